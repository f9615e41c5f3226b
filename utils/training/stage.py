"""What a stage trains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from utils.engine.deepspeed_engine import Engine
from utils.tokens.group import Group
from utils.training.run import Run

Options = TypeVar("Options")


@dataclass(frozen=True)
class Stage:
    """A run, the model that it trains, the renderer that is saved with the model, and the groups held out."""

    run: Run
    engine: Engine
    renderer: Any
    held_out: Sequence[Group] = ()

    def options(self, kind: type[Options]) -> Options:
        """Return the run's group of options of this kind."""
        return next(group for group in self.run.groups if isinstance(group, kind))
