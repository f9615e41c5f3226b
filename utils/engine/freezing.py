"""Models that are only read: made for reading, and let go of."""

from __future__ import annotations

from typing import Any

from torch import nn

from utils.arguments.options import TrainingArguments
from utils.engine.config import config_of
from utils.engine.ranks import device, world_size


def frozen(module: nn.Module, args: TrainingArguments, offload: bool = False) -> Any:
    """A module that is only read: sharded under ZeRO-3, else whole on this rank's device (offload: on the CPU; under
    ZeRO-3 its shards). Call it like the module."""
    import deepspeed

    module.eval().requires_grad_(False)
    config = config_of(args, world_size())
    if config["zero_optimization"]["stage"] < 3:
        return module.to("cpu" if offload else device())
    if offload:
        config["zero_optimization"]["offload_param"] = {"device": "cpu"}
    engine, *_ = deepspeed.initialize(model=module, config=config, dist_init_required=False)
    return engine


def release(model: Any) -> None:
    """Make DeepSpeed forget what frozen() returned, so that its memory is free once the caller drops it. DeepSpeed
    keeps every ZeRO-3 module in a list that nothing shortens, and its hooks keep the engine."""
    import deepspeed
    from deepspeed.runtime.zero import parameter_offload

    if not isinstance(model, deepspeed.DeepSpeedEngine):
        return
    model.destroy()
    stack = parameter_offload.FWD_MODULE_STACK
    stack[:] = [module for module in stack if module is not model.module]
