"""Saving what was trained as folders that plain transformers loads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from utils.engine import ranks
from utils.engine.deepspeed_engine import Engine
from utils.model import loading
from utils.reporting import say
from utils.training.ema import Average


@dataclass(frozen=True)
class SavedModel:
    """A model folder that was just written. `model` is what was read back from it, on rank 0 alone."""

    folder: Path
    engine: Engine
    model: nn.Module | None
    is_average: bool = False


def save_model(
    engine: Engine, renderer: Any, folder: Path, average: Average | None, after: Callable[[SavedModel], None]
) -> None:
    """Write the engine's model to `folder` and its average, if it has begun, to `folder`/ema. A collective.

    Args:
        engine: the model in training.
        renderer: its tokenizer and template, saved with it.
        folder: where to.
        average: of the model's weights.
        after: called on every rank with each folder that was written.
    """
    after(SavedModel(folder, engine, _write(engine.full_state_dict(), engine, renderer, folder)))
    ranks.barrier()
    if average and average.updates:
        folder = folder / "ema"
        after(SavedModel(folder, engine, _write(average.whole(engine), engine, renderer, folder), is_average=True))
        ranks.barrier()


def _write(state: dict[str, Tensor] | None, engine: Engine, renderer: Any, folder: Path) -> nn.Module | None:
    """Write on rank 0, with the other ranks waiting; return the model as it was read back."""
    written = None
    if ranks.rank() == 0:
        state = {name.removeprefix("model."): tensor for name, tensor in state.items()}
        written = loading.save(engine.module.model, state, renderer, folder)
        say(f"saved {folder}")
    # DeepSpeed's own collectives wait ten minutes, a barrier waits as long as rank 0 writes.
    ranks.barrier()
    return written
