"""What a run does besides training, each thing looked up by the option that asks for it and imported only then.

A new extra is a module of this folder with a function `begin(setting) -> Hooks`, and a line in EXTRAS.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from utils.engine.deepspeed_engine import Engine
from utils.tokens.group import Group
from utils.training.run import Run
from utils.training.saving import SavedModel

# The option that asks for an extra, when its value is neither 0 nor empty -> the module here.
EXTRAS = {
    "sample_during_eval": "samples",
    "lora_dim": "merging",
    "output_dir": "model_card",
}
Options = TypeVar("Options")


@dataclass(frozen=True)
class Setting:
    """What an extra may look at: the run, its policy or reward model in training, the renderer, the held-out groups."""

    run: Run
    engine: Engine
    renderer: Any
    held_out: Sequence[Group]

    def options(self, kind: type[Options]) -> Options:
        """Return the run's group of options of this kind."""
        return next(group for group in self.run.groups if isinstance(group, kind))


@dataclass(frozen=True)
class Hooks:
    """The moments at which an extra acts. Every rank calls it, so that it may use collectives."""

    # (step, the epoch that it ended) -> numbers for the row of the evaluation
    at_evaluation: Callable[[int, int | None], dict[str, float]] | None = None
    after_saving: Callable[[SavedModel], None] | None = None


@dataclass(frozen=True)
class Extras:
    """The extras of a run, in the order of EXTRAS."""

    hooks: tuple[Hooks, ...] = ()

    def at_evaluation(self, step: int, epoch: int | None) -> dict[str, float]:
        """Return the numbers of all extras at an evaluation."""
        numbers: dict[str, float] = {}
        for hooks in self.hooks:
            if hooks.at_evaluation:
                numbers |= hooks.at_evaluation(step, epoch)
        return numbers

    def after_saving(self, saved: SavedModel) -> None:
        """Let all extras act on a model folder that was just written."""
        for hooks in self.hooks:
            if hooks.after_saving:
                hooks.after_saving(saved)


def begin_extras(setting: Setting) -> Extras:
    """Return the extras that the options of the run ask for. Models that they need are loaded here."""
    asked = []
    for option, module in EXTRAS.items():
        if any(getattr(group, option, None) for group in setting.run.groups):
            asked.append(importlib.import_module(f"{__name__}.{module}").begin(setting))
    return Extras(tuple(asked))
