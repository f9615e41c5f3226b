"""Every touch of a private name or an internal hook of DeepSpeed, transformers or torch: one function for each.

A docstring says what the function does and, after "Relies on", what must hold in the library. No other file may touch
such a name. tests/test_internals.py checks each touch against the installed libraries and names those that broke.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from utils.engine.ranks import rank

# the versions in which all of this was read and tested
SEEN = {"deepspeed": "0.19.8", "transformers": "5.23.0", "torch": "2.13.0", "peft": "0.21.2"}

# ---- DeepSpeed: start-up and configuration


def skip_shared_memory_collectives() -> None:
    """Keep DeepSpeed from compiling its shared-memory collectives for CPUs inside init_distributed; gloo serves.

    Relies on: deepspeed.comm.torch builds them only where `deepspeed.ops.__compatible_ops__` has a true value for the
    name "deepspeed_shm_comm".
    """
    import deepspeed

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


def check_zero_block(block: dict[str, Any]) -> None:
    """Check the zero_optimization block of a configuration before any model is loaded.

    Relies on: DeepSpeedZeroConfig is the pydantic model that DeepSpeed reads the block with.

    Raises:
        ValueError: pydantic's, whose errors() tell `loc`, `input` and `msg`.
    """
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig

    DeepSpeedZeroConfig(**block)


# ---- DeepSpeed: the engine


def skip_reduction(engine: Any) -> None:
    """Leave gradients where backward put them: one rank has nothing to add up, and DeepSpeed would copy them all twice
    (a seventh of a step of the built-in world).

    Relies on: the engine asks `enable_backward_allreduce` before it reduces; an optimizer that does more than add when
    it reduces (it shards gradients) has a method `reduce_gradients`, and its engine is left as it is.
    """
    if not hasattr(engine.optimizer, "reduce_gradients"):
        engine.enable_backward_allreduce = False


def before_update(engine: Any, look: Callable[[], None]) -> None:
    """Have every step() of the engine call `look` when gradients are reduced, but neither clipped nor used.

    Relies on: step() calls the attribute `_take_model_step`, which clips, updates and clears the gradients.
    """
    take_step = engine._take_model_step

    def look_and_step(*args: Any) -> None:
        look()
        take_step(*args)

    engine._take_model_step = look_and_step


@contextlib.contextmanager
def without_hooks(engine: Any) -> Iterator[None]:
    """Run a ZeRO-3 engine's module without DeepSpeed's hooks inside this context; its weights must be gathered.

    Relies on: the optimizer's `parameter_offload` keeps the handles of all hooks in `forward_hooks` and
    `backward_hooks`, and `_register_deepspeed_module` puts them on again, as unwrap_model_for_generation of DeepSpeed
    does. No weight is released while its `ds_active_sub_modules` names a module, which only a hook would remove.
    """
    offload = engine.optimizer.parameter_offload
    for parameter in offload.module.parameters():
        parameter.ds_active_sub_modules.clear()
    for hook in (*offload.forward_hooks, *offload.backward_hooks):
        hook.remove()
    offload.forward_hooks, offload.backward_hooks = [], []
    try:
        yield
    finally:
        offload._register_deepspeed_module(offload.module)


def forget_module(module: nn.Module) -> None:
    """Take a ZeRO-3 engine's module out of the list in which DeepSpeed would hold its memory forever.

    Relies on: `FWD_MODULE_STACK` is that list, and nothing else keeps the module once the engine is destroyed.
    """
    from deepspeed.runtime.zero import parameter_offload

    stack = parameter_offload.FWD_MODULE_STACK
    stack[:] = [kept for kept in stack if kept is not module]


# ---- DeepSpeed: weights


def whole_shape(parameter: nn.Parameter) -> torch.Size:
    """Return the shape of the whole weight, whose shard ZeRO-3 may hold instead. Relies on: `ds_shape`."""
    return getattr(parameter, "ds_shape", parameter.shape)


def whole_size(parameter: nn.Parameter) -> int:
    """Return how many numbers the whole weight has. Relies on: ZeRO-3 keeps the count as `ds_numel`."""
    return getattr(parameter, "ds_numel", parameter.numel())


def master_fragment(parameter: nn.Parameter) -> tuple[int, Tensor] | None:
    """Return (start, values) of the part of a flattened weight that this rank updates at ZeRO-1 or 2, as a view of the
    float32 numbers; None where it updates none of it.

    Relies on: each parameter's `_hp_mapping`, its `lp_fragment_address.start`, and the view of get_hp_fragment().
    """
    mapping = parameter._hp_mapping
    if mapping is None:
        return None
    return mapping.lp_fragment_address.start, mapping.get_hp_fragment().detach()


def master_shard(parameter: nn.Parameter) -> tuple[int, Tensor]:
    """Return (start, values) of the part of a flattened weight that this rank updates at ZeRO-3, as a view of the
    float32 numbers.

    Relies on: `_z3_optimizer` of each parameter and its `_get_fp32_opt_state_partition`; shards of `ds_tensor.ds_numel`
    numbers in rank order, of which the last are padded.
    """
    # not deepspeed.utils.safe_get_local_fp32_param: it would copy an offloaded shard to the GPU
    shard, _ = parameter._z3_optimizer._get_fp32_opt_state_partition(parameter, release_swap_buffers=True)
    start = parameter.ds_tensor.ds_numel * rank()
    return start, shard.detach()[: max(0, parameter.ds_numel - start)]


# ---- transformers: loading

_zero3: list[Any] = []  # holds the one config object that transformers itself refers to only weakly


def shard_while_loading(config: dict[str, Any] | None) -> None:
    """Make from_pretrained shard weights as it loads them, by this DeepSpeed configuration of ZeRO-3; None: it loads
    them whole.

    Relies on: transformers asks the last HfDeepSpeedConfig that was made, as long as it is alive.
    """
    from transformers.integrations.deepspeed import HfDeepSpeedConfig, unset_hf_deepspeed_config

    _zero3.clear()
    if config is None:
        unset_hf_deepspeed_config()
    else:
        _zero3.append(HfDeepSpeedConfig(config))


def shards_while_loading() -> bool:
    """Return whether from_pretrained would shard weights now. Relies on: transformers' own function for it."""
    from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled

    return is_deepspeed_zero3_enabled()


@contextlib.contextmanager
def whole_models() -> Iterator[None]:
    """Make models whole inside this context even when ZeRO-3 is on (DeepSpeed shards them when training starts).

    Relies on: transformers keeps its reference to the ZeRO-3 configuration in `_hf_deepspeed_config_weak_ref`.
    """
    from transformers.integrations import deepspeed

    held = deepspeed._hf_deepspeed_config_weak_ref
    deepspeed._hf_deepspeed_config_weak_ref = None
    try:
        yield
    finally:
        deepspeed._hf_deepspeed_config_weak_ref = held


@contextlib.contextmanager
def no_load_report() -> Iterator[None]:
    """Keep transformers from logging its table of missing and unexpected weights, which the caller judges himself.

    Relies on: the logger "transformers.modeling_utils" and the words LOAD REPORT in the table's message.
    """
    logger = logging.getLogger("transformers.modeling_utils")
    keep = lambda record: "LOAD REPORT" not in record.getMessage()  # noqa: E731
    logger.addFilter(keep)
    try:
        yield
    finally:
        logger.removeFilter(keep)


def draw_weights(model: nn.Module, module: nn.Module) -> None:
    """Draw a module's weights from the distribution that the model's family starts from.

    Relies on: PreTrainedModel._init_weights draws the weights of one module, without those of its children.
    """
    model._init_weights(module)


# ---- transformers: attention


def attention_of(model: nn.Module) -> str:
    """Return the name of the model's attention. Relies on: set_attn_implementation() writes it to the config."""
    return model.config._attn_implementation


def padded_attention(model: nn.Module) -> str:
    """Return the name of the attention that reads padded rows. Relies on: `_supports_sdpa` of the model's class."""
    return "sdpa" if getattr(model, "_supports_sdpa", False) else "eager"


def takes_attention(model: nn.Module) -> bool:
    """Return whether attention comes from AttentionInterface. Relies on: `_supports_attention_backend` of the class."""
    return getattr(model, "_supports_attention_backend", False)


# ---- torch


class Borrower(nn.Module):
    """A module whose parameters belong to another one, which alone saves and loads them.

    Relies on: load_state_dict calls `_load_from_state_dict` of each module, which reports what is missing.
    """

    def state_dict(self, *args, destination=None, **_):
        return {} if destination is None else destination

    def _load_from_state_dict(self, *_) -> None:
        pass
