"""The one place that knows DeepSpeed: distributed start-up, an engine that trains a module; the config is in config.py.

DeepSpeed runs on GPUs (NCCL) and on CPUs (gloo) alike; nothing is compiled on a CPU.
"""

from __future__ import annotations

import contextlib
import math
import os
import socket
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from utils.arguments.options import TrainingArguments
from utils.engine.config import config_of
from utils.errors import UserError
from utils.ranks import device, local_rank, rank, seed_everything, world_size

_alive: dict[str, Any] = {}  # transformers reads ZeRO-3 from a config object that somebody must hold


def start(args: TrainingArguments) -> None:
    """Join the other ranks (plain `python` is one rank), pick the device, seed every generator. Call it before any
    model is loaded: under ZeRO-3 models load in shards."""
    _quiet()
    import deepspeed

    for name, value in {"RANK": 0, "WORLD_SIZE": 1, "LOCAL_RANK": 0, "MASTER_ADDR": "127.0.0.1"}.items():
        os.environ.setdefault(name, str(value))
    if "MASTER_PORT" not in os.environ:
        os.environ["MASTER_PORT"] = str(_free_port())
    if not torch.cuda.is_available():  # DeepSpeed would compile its shared-memory collectives inside init_distributed
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    if not torch.distributed.is_initialized():
        deepspeed.init_distributed()
    if torch.cuda.is_available():
        torch.cuda.set_device(local_rank())
    if args.tf32:
        torch.set_float32_matmul_precision("high")
    seed_everything(args.seed)
    _alive.pop("zero3", None)
    if config_of(args, world_size())["zero_optimization"]["stage"] == 3:
        from transformers.integrations import HfDeepSpeedConfig

        _alive["zero3"] = HfDeepSpeedConfig(config_of(args, world_size()))
    else:
        from transformers.integrations.deepspeed import unset_hf_deepspeed_config

        unset_hf_deepspeed_config()


class Engine:
    """A module in training under DeepSpeed. Calling it runs the module's forward."""

    def __init__(self, module: nn.Module, args: TrainingArguments, total_steps: int) -> None:
        import deepspeed
        from transformers import get_scheduler

        optimizer = torch.optim.AdamW(
            _parameter_groups(module, args.weight_decay), lr=args.learning_rate,
            betas=(args.adam_beta1, args.adam_beta2), fused=True,
        )  # fmt: skip
        warmup = args.warmup_steps or int(args.warmup_ratio * total_steps)
        try:
            schedule = get_scheduler(args.lr_scheduler_type, optimizer, warmup, total_steps)
        except ValueError as error:  # polynomial ends at a rate of 1e-7
            raise UserError(f"--lr_scheduler_type {args.lr_scheduler_type}: {error}") from None
        config = config_of(args, world_size())
        self.stage = config["zero_optimization"]["stage"]
        if args.bf16:
            module = module.to(torch.bfloat16) if self.stage < 3 else module
        self.deepspeed, *_ = deepspeed.initialize(
            model=module, optimizer=optimizer, lr_scheduler=schedule, config=config, dist_init_required=False
        )
        self.module, self.config, self.total_steps = module, config, total_steps
        self.skipped_in_a_row = 0  # updates
        self._broken_gradient = False
        if self.stage == 0:  # DeepSpeed neither skips a step here, nor tells the norm of its gradient
            optimizer.register_step_pre_hook(self._look_at_gradient)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.deepspeed(*args, **kwargs)

    def backward(self, loss: Tensor) -> None:
        self.deepspeed.backward(loss)

    def step(self) -> bool:
        """Reduce, clip, update, advance the schedule. False when a non-finite gradient made DeepSpeed skip it."""
        self.deepspeed.step()
        applied = self.deepspeed.was_step_applied()
        self.skipped_in_a_row = 0 if applied else self.skipped_in_a_row + 1
        return applied

    def learning_rate(self) -> float:
        """The rate that the next step will use."""
        return float(self.deepspeed.get_lr()[0])

    def gradient_norm(self) -> float | None:
        """Global norm, before clipping, of the gradient that the last step used; at stage 0 NaN when it was not finite,
        else None (DeepSpeed does not tell it)."""
        norm = math.nan if self._broken_gradient else self.deepspeed.get_global_grad_norm()
        return None if norm is None else float(norm)

    def _look_at_gradient(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        self._broken_gradient = not torch.nn.utils.get_total_norm(gradients).isfinite()

    def save_states(self, folder: Path, tag: str, facts: dict[str, Any]) -> None:
        self.deepspeed.save_checkpoint(str(folder), tag=tag, client_state=facts, save_latest=False)

    def load_states(self, folder: Path, tag: str) -> dict[str, Any]:
        """Returns the facts that save_states was given."""
        path, facts = self.deepspeed.load_checkpoint(str(folder), tag=tag)
        if path is None:
            raise UserError(
                f"{folder / tag}: DeepSpeed cannot load this checkpoint; remove the folder to go on without it"
            )
        return facts

    def full_state_dict(self) -> dict[str, Tensor] | None:
        """Every weight whole, on the CPU of rank 0 (None elsewhere); a collective under ZeRO-3."""
        state = {}
        for name, tensor in self._whole_tensors():
            if rank() == 0:
                state[name] = tensor.detach().cpu().clone()
        return state if rank() == 0 else None

    def _whole_tensors(self) -> Iterator[tuple[str, Tensor]]:
        import deepspeed

        persistent = self.module.state_dict().keys()
        for name, parameter in self.module.named_parameters(remove_duplicate=False):
            if name in persistent:
                with deepspeed.zero.GatheredParameters([parameter], enabled=self.stage == 3):
                    yield name, parameter.data
        yield from ((name, buffer) for name, buffer in self.module.named_buffers() if name in persistent)

    def gathered(self, update: Callable[[str, Tensor], None]) -> None:
        """Call update(name, whole tensor) for each trained parameter on every rank, one gathered at a time."""
        import deepspeed

        for name, parameter in self.module.named_parameters():
            if parameter.requires_grad:
                with deepspeed.zero.GatheredParameters([parameter], enabled=self.stage == 3):
                    update(name, parameter.data)

    @contextlib.contextmanager
    def flipped(self) -> Iterator[None]:
        """Context in which the module generates: whole weights on every rank, gathered once and released, and none of
        DeepSpeed's hooks, which would gather and release them layer by layer, each rank at the others' pace."""
        import deepspeed

        hooks = getattr(self.deepspeed.optimizer, "parameter_offload", None) if self.stage == 3 else None
        with deepspeed.zero.GatheredParameters(list(self.module.parameters()), enabled=self.stage == 3):
            if hooks is not None:
                for parameter in self.module.parameters():
                    parameter.ds_active_sub_modules.clear()
                for hook in (*hooks.forward_hooks, *hooks.backward_hooks):
                    hook.remove()
                hooks.forward_hooks, hooks.backward_hooks = [], []
            try:
                yield
            finally:
                if hooks is not None:
                    hooks._register_deepspeed_module(hooks.module)


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


def _parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Biases and norms (everything of one dimension, as ZeRO-3 knows it) are not decayed."""
    trained = [p for p in module.parameters() if p.requires_grad]
    dimensions = lambda p: len(getattr(p, "ds_shape", p.shape))  # noqa: E731
    groups = [
        {"params": [p for p in trained if dimensions(p) > 1], "weight_decay": weight_decay},
        {"params": [p for p in trained if dimensions(p) <= 1], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def _quiet() -> None:
    """DeepSpeed and transformers tell their internals at length; what a person needs, the run itself says."""
    import logging

    os.environ.setdefault("DS_ACCELERATOR", "cuda" if torch.cuda.is_available() else "cpu")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="torch.distributed")
    warnings.filterwarnings("ignore", module="deepspeed")
