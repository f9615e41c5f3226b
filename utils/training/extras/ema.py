"""The average of the weights over training (--ema_decay), kept where ZeRO keeps the float32 master weights."""

from __future__ import annotations

import dataclasses

from torch import Tensor

from utils.arguments.options import TrainingArguments
from utils.engine.deepspeed_engine import Engine
from utils.engine.masters import assembled, owned
from utils.training.extras import Hooks
from utils.training.saving import SavedModel, write_model
from utils.training.stage import Stage


def begin(stage: Stage) -> Hooks:
    """Average the weights of the stage's model after every update; write it to ema/ in every folder of the model."""
    average = Average(stage.options(TrainingArguments).ema_decay)

    def update() -> None:
        average.update(stage.engine)

    def save(saved: SavedModel) -> None:
        # PPO also saves its critic, which has no average; and while the critic warms up the policy has none
        if saved.engine is stage.engine and average.updates:
            # An average needs as much memory again.
            saved.model = None
            write_model(average.whole(stage.engine), stage.engine, stage.renderer, saved.folder / "ema")

    return Hooks(after_update=update, after_saving=save, state=average)


class Average:
    """Exponential moving average e <- d e + (1 − d) w of the trained float32 weights, begun with the first w. Each rank
    averages the part that it owns, on the device where that lies; whole weights are made only for saving. Polyak and
    Juditsky 1992; with a fixed decay as in Tarvainen and Valpola 2017, arXiv:1703.01780, eq. 1."""

    # A checkpoint keeps the attributes of this object: another name of one is another format.

    def __init__(self, decay: float) -> None:
        self.decay, self.updates = decay, 0
        self.parts: dict[str, Tensor] = {}  # this rank's, by the names of owned()

    def update(self, engine: Engine) -> None:
        """Take in the weights as they are now; no communication."""
        self.updates += 1
        for name, part in owned(engine.module, engine.stage):
            if name not in self.parts:
                self.parts[name] = part.values.clone()
                continue
            # a checkpoint gives them back on the CPU
            self.parts[name] = self.parts[name].to(part.values.device)
            self.parts[name].lerp_(part.values, 1 - self.decay)

    def whole(self, engine: Engine) -> dict[str, Tensor] | None:
        """Return the module's weights with the average in place of the trained ones, whole on rank 0. A collective."""
        owners = dict(owned(engine.module, engine.stage))
        averaged = {name: dataclasses.replace(owners[name], values=values) for name, values in self.parts.items()}
        return engine.full_state_dict(lambda name, parameter: assembled(parameter, averaged.get(name)))
