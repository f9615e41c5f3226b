"""An engine that generates: the model in training, without what DeepSpeed does at each layer for training."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from utils.engine import internals
from utils.engine.deepspeed_engine import Engine


@contextlib.contextmanager
def flipped(engine: Engine) -> Iterator[None]:
    """Let the engine's module generate inside this context: with whole weights on every rank, gathered once, and
    without DeepSpeed's hooks, which would gather and release them layer by layer, each rank at the others' pace."""
    import deepspeed

    if engine.stage < 3:
        yield
        return
    weights = list(engine.module.parameters())
    with deepspeed.zero.GatheredParameters(weights), internals.without_hooks(engine.deepspeed):
        yield
