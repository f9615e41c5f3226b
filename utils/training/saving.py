"""Saving what was trained as folders that plain transformers loads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from utils.engine import ranks
from utils.engine.deepspeed_engine import Engine
from utils.model.writing import save
from utils.reporting import say


@dataclass
class SavedModel:
    """A model folder that was just written."""

    folder: Path
    engine: Engine
    model: nn.Module | None  # as read back, on rank 0, until an extra lets go of it


def save_model(engine: Engine, renderer: Any, folder: Path, after: Callable[[SavedModel], None]) -> None:
    """Write the engine's model to `folder`. A collective.

    Args:
        engine: the model in training.
        renderer: its tokenizer and template, saved with it.
        folder: where to.
        after: called on every rank once the folder is written.
    """
    after(SavedModel(folder, engine, write_model(engine.full_state_dict(), engine, renderer, folder)))
    ranks.barrier()


def write_model(state: dict[str, Tensor] | None, engine: Engine, renderer: Any, folder: Path) -> nn.Module | None:
    """Write on rank 0 while the other ranks wait.

    Args:
        state: the whole weights by the engine's names, on rank 0.
        engine: whose model they belong to.
        renderer: its tokenizer and template.
        folder: where to.

    Returns:
        The model as it was read back, on rank 0.
    """
    written = None
    if ranks.rank() == 0:
        state = {name.removeprefix("model."): tensor for name, tensor in state.items()}
        written = save(engine.module.model, state, renderer, folder)
        say(f"saved {folder}")
    # DeepSpeed's own collectives wait ten minutes, a barrier waits as long as rank 0 writes.
    ranks.barrier()
    return written
