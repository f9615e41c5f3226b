"""The average of the weights over training (--ema_decay), kept where ZeRO keeps the float32 master weights."""

from __future__ import annotations

import dataclasses
from typing import Any

from torch import Tensor

from utils.arguments.options import TrainingArguments
from utils.engine.deepspeed_engine import Engine


class Average:
    """Exponential moving average e <- d e + (1 − d) w of the trained float32 weights, begun with the first w. Each rank
    averages the part that it owns, on the device where that lies; whole weights are made only for saving. Polyak and
    Juditsky 1992; with a fixed decay as in Tarvainen and Valpola 2017, arXiv:1703.01780, eq. 1."""

    # A checkpoint keeps vars() of this object: another name of an attribute is another format.

    def __init__(self, decay: float) -> None:
        self.decay, self.updates = decay, 0
        self.parts: dict[str, Tensor] = {}  # this rank's, by the names of owned_weights()

    def update(self, engine: Engine) -> None:
        """Take in the weights as they are now; no communication."""
        self.updates += 1
        for name, part in engine.owned_weights():
            if name in self.parts:
                self.parts[name].lerp_(part.values, 1 - self.decay)
            else:
                self.parts[name] = part.values.clone()

    def restore(self, engine: Engine, saved: dict[str, Any]) -> None:
        """Go on from the attributes that a checkpoint kept of this rank."""
        devices = {name: part.values.device for name, part in engine.owned_weights()}
        self.updates = saved["updates"]
        self.parts = {name: tensor.to(devices[name]) for name, tensor in saved["parts"].items()}

    def whole(self, engine: Engine) -> dict[str, Tensor] | None:
        """The module's weights with the average in place of the trained ones, whole on rank 0. A collective."""
        owners = dict(engine.owned_weights())
        return engine.full_state_dict({n: dataclasses.replace(owners[n], values=v) for n, v in self.parts.items()})


def average_of(args: TrainingArguments) -> Average | None:
    """Return the average that --ema_decay asks for."""
    return Average(args.ema_decay) if args.ema_decay else None
