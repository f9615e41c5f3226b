"""What a run does besides training, each thing looked up by the option that asks for it and imported only then.

A new extra is a module of this folder with a function `begin(stage) -> Hooks`, and a line in EXTRAS.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from utils.training.saving import SavedModel
from utils.training.stage import Stage

# The option that asks for an extra, when its value is neither 0 nor empty -> the module here. They act in this order:
# the card comes last, since it names what the others wrote.
EXTRAS = {
    "sample_during_eval": "samples",
    "lora_dim": "merging",
    "ema_decay": "ema",
    "output_dir": "model_card",
}


@dataclass(frozen=True)
class Hooks:
    """The moments at which an extra acts, on every rank alike, so that it may use collectives."""

    after_update: Callable[[], None] | None = None  # of the stage's engine
    # (step, the epoch that it ended) -> numbers for the row of the evaluation
    at_evaluation: Callable[[int, int | None], dict[str, float]] | None = None
    after_saving: Callable[[SavedModel], None] | None = None
    state: Any = None  # an object whose attributes a checkpoint keeps


@dataclass(frozen=True)
class Extras:
    """The extras of a run by the names of their modules, in the order of EXTRAS."""

    hooks: dict[str, Hooks]

    def after_update(self) -> None:
        """Let the extras act on the weights that an optimizer step has just changed."""
        for hooks in self.hooks.values():
            if hooks.after_update:
                hooks.after_update()

    def at_evaluation(self, step: int, epoch: int | None) -> dict[str, float]:
        """Return the extras' numbers of an evaluation."""
        numbers: dict[str, float] = {}
        for hooks in self.hooks.values():
            if hooks.at_evaluation:
                numbers |= hooks.at_evaluation(step, epoch)
        return numbers

    def after_saving(self, saved: SavedModel) -> None:
        """Let the extras act on a model folder that was just written."""
        for hooks in self.hooks.values():
            if hooks.after_saving:
                hooks.after_saving(saved)

    def states(self) -> dict[str, Any]:
        """Return what a checkpoint keeps of the extras, by their names."""
        return {name: hooks.state for name, hooks in self.hooks.items() if hooks.state is not None}


def begin_extras(stage: Stage) -> Extras:
    """Return the extras that the options of the run ask for. Models that they need are loaded here."""
    asked = {}
    for option, module in EXTRAS.items():
        if any(getattr(group, option, None) for group in stage.run.groups):
            asked[module] = importlib.import_module(f"{__name__}.{module}").begin(stage)
    return Extras(asked)
