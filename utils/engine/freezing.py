"""Models that are only read, such as a reference or a reward model: frozen, and later released."""

from __future__ import annotations

from typing import Any

from torch import nn

from utils.arguments.options import TrainingArguments
from utils.engine import internals
from utils.engine.config import config_of
from utils.engine.ranks import device, world_size


def frozen(module: nn.Module, args: TrainingArguments, offload: bool = False) -> Any:
    """Return `module` ready to be read, and called as before: sharded under ZeRO-3, else whole on this rank's device.
    offload: it waits in CPU memory instead (under ZeRO-3 its shards do)."""
    import deepspeed

    module.eval().requires_grad_(False)
    config = config_of(args, world_size())
    if config["zero_optimization"]["stage"] < 3:  # DeepSpeed has no engine for reading at stages 1 and 2
        return module.to("cpu" if offload else device())
    if offload:
        config["zero_optimization"]["offload_param"] = {"device": "cpu"}
    engine, *_ = deepspeed.initialize(model=module, config=config, dist_init_required=False)
    return engine


def release(model: Any) -> None:
    """Make DeepSpeed forget what frozen() returned, so that its memory is free once the caller drops it. DeepSpeed
    keeps every ZeRO-3 module in a list that nothing shortens, and its hooks keep the engine."""
    import deepspeed

    if not isinstance(model, deepspeed.DeepSpeedEngine):
        return
    model.destroy()
    internals.forget_module(model.module)
