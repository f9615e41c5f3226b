"""Models, or blocks of them, that are not trained: such as a reference, which is frozen, and later released."""

from __future__ import annotations

from typing import Any

from torch import nn

from utils.arguments.options import TrainingArguments
from utils.engine import internals
from utils.engine.config import config_of
from utils.engine.ranks import device, world_size
from utils.errors import UserError


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


def freeze_below(model: nn.Module, kept: int) -> None:
    """Freeze embeddings and blocks of a transformers model but the last `kept` blocks; what comes behind the blocks, a
    norm and a head, stays trained. Raises UserError where it has no list of blocks, or not so many."""
    body = getattr(model, model.base_model_prefix)
    count = model.config.get_text_config().num_hidden_layers
    lists = [m for m in body.modules() if isinstance(m, nn.ModuleList) and len(m) == count]
    if not lists:
        raise UserError(f"--num_layers_unfrozen: {model.config.model_type} has no list of {count} blocks to freeze")
    if kept > count:
        raise UserError(f"--num_layers_unfrozen is {kept}; the model has {count} blocks")
    for name, module in body.named_modules():
        if isinstance(module, nn.Embedding) or name == "embeddings":
            module.requires_grad_(False)
    for block in lists[0][: count - kept]:
        block.requires_grad_(False)


def release(model: Any) -> None:
    """Make DeepSpeed forget what frozen() returned, so that its memory is free once the caller drops it. DeepSpeed
    keeps every ZeRO-3 module in a list that nothing shortens, and its hooks keep the engine."""
    import deepspeed

    if not isinstance(model, deepspeed.DeepSpeedEngine):
        return
    model.destroy()
    internals.forget_module(model.module)
