"""The one place that knows DeepSpeed: distributed start-up, an engine that trains a module; the config is in config.py.

DeepSpeed runs on GPUs (NCCL) and on CPUs (gloo) alike; nothing is compiled on a CPU.
"""

from __future__ import annotations

import contextlib
import datetime
import io
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from utils.arguments.options import TrainingArguments
from utils.engine.config import config_of
from utils.engine.freezing import frozen, release
from utils.engine.masters import Part, assembled, owned
from utils.engine.ranks import free_port, local_rank, rank, seed_everything, world_size
from utils.errors import UserError

__all__ = ["Engine", "Part", "frozen", "release", "start"]
# How long ranks wait for one of them. Rank 0 alone writes a model and reads it back: 140 GB (70B weights in bf16),
# twice over a network drive of 0.1 GB/s, take 47 minutes. DEEPSPEED_TIMEOUT (minutes) in the environment overrides it.
PATIENCE = datetime.timedelta(minutes=60)
_alive: dict[str, Any] = {}  # transformers reads ZeRO-3 from a config object that somebody must hold


def start(args: TrainingArguments) -> None:
    """Join the other ranks (plain `python` is one rank), pick the device, seed every generator. Call it before any
    model is loaded: under ZeRO-3 models load in shards."""
    _quiet()
    minutes = os.environ.get("DEEPSPEED_TIMEOUT")
    if minutes is not None and not (minutes.isdecimal() and int(minutes)):
        raise UserError(f"DEEPSPEED_TIMEOUT is {minutes!r} in the environment; expected a whole number of minutes")
    import deepspeed

    for name, value in {"RANK": 0, "WORLD_SIZE": 1, "LOCAL_RANK": 0, "MASTER_ADDR": "127.0.0.1"}.items():
        os.environ.setdefault(name, str(value))
    if "MASTER_PORT" not in os.environ:
        os.environ["MASTER_PORT"] = str(free_port())
    if not torch.cuda.is_available():  # DeepSpeed would compile its shared-memory collectives inside init_distributed
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    if not torch.distributed.is_initialized():
        deepspeed.init_distributed(timeout=datetime.timedelta(minutes=int(minutes)) if minutes else PATIENCE)
    if torch.cuda.is_available():
        torch.cuda.set_device(local_rank())
        _deterministic(args.deterministic)
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
        with contextlib.redirect_stdout(io.StringIO()):  # its bfloat16 optimizer prints 20 lines about memory
            self.deepspeed, *_ = deepspeed.initialize(
                model=module, optimizer=optimizer, lr_scheduler=schedule, config=config, dist_init_required=False
            )
        if world_size() == 1 and self.stage <= 1 and not hasattr(self.deepspeed.optimizer, "reduce_gradients"):
            # One rank has nothing to add up; DeepSpeed would copy all gradients twice (a seventh of a step of the
            # built-in world). Its optimizers that shard gradients do more than add when they reduce.
            self.deepspeed.enable_backward_allreduce = False
        self.module, self.config, self.total_steps = module, config, total_steps
        self.skipped_in_a_row = 0  # updates
        self._norm: float | None = None
        if self.stage == 0:  # DeepSpeed neither skips a step here, nor tells the norm of its gradient
            self._take_step = self.deepspeed._take_model_step  # clips and updates, once the gradients are reduced
            self.deepspeed._take_model_step = self._measure_and_step

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
        """Global norm, before clipping, of the gradient that the last step used."""
        norm = self._norm if self.stage == 0 else self.deepspeed.get_global_grad_norm()
        return None if norm is None else float(norm)

    def _measure_and_step(self, *args: Any) -> None:
        gradients = [p.grad for p in self.module.parameters() if p.grad is not None]
        self._norm = float(torch.nn.utils.get_total_norm(gradients))
        self._take_step(*args)

    def save_states(self, folder: Path, tag: str, facts: dict[str, Any]) -> None:
        """Write what training changes: frozen weights are left out, the starting model has them."""
        without = self._frozen_names()

        def leave_out(module: nn.Module, state: dict[str, Tensor], prefix: str, metadata: Any) -> None:
            for name in without:  # exclude_frozen_parameters alone would keep the second name of a tied weight
                state.pop(prefix + name, None)

        hook = self.module.register_state_dict_post_hook(leave_out)
        try:
            self.deepspeed.save_checkpoint(
                str(folder), tag=tag, client_state=facts, save_latest=False, exclude_frozen_parameters=bool(without)
            )
        finally:
            hook.remove()

    def load_states(self, folder: Path, tag: str) -> dict[str, Any]:
        """Returns the facts that save_states was given. Frozen weights stay as they are."""

        def load(src: dict[str, Tensor], dst: nn.Module) -> None:
            found = dst.load_state_dict(src, strict=False)
            strange = (set(found.missing_keys) ^ self._frozen_names()) | set(found.unexpected_keys)
            if strange:
                raise UserError(
                    f"{folder / tag}: this checkpoint is of other weights than this run trains (the first: "
                    f"{min(strange)}); give another --output_dir"
                )

        path, facts = self.deepspeed.load_checkpoint(str(folder), tag=tag, custom_load_fn=load)
        if path is None:
            raise UserError(
                f"{folder / tag}: DeepSpeed cannot load this checkpoint; remove the folder to go on without it"
            )
        return facts

    def _frozen_names(self) -> set[str]:
        return {n for n, p in self._saved_parameters() if not p.requires_grad}

    def _saved_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Every name that a parameter is saved under: two for a tied weight, none for a module that only borrows it."""
        saved = self.module.state_dict().keys()
        return ((n, p) for n, p in self.module.named_parameters(remove_duplicate=False) if n in saved)

    def owned_weights(self) -> Iterator[tuple[str, Part]]:
        """The float32 master weights that this rank holds, by the names of the module."""
        return owned(self.module, self.stage)

    def full_state_dict(self, parts: dict[str, Part] | None = None) -> dict[str, Tensor] | None:
        """Every weight whole, on the CPU of rank 0 (None elsewhere); names of one tied weight share one tensor. The
        trained weights are made of `parts`, this rank's by name, if given. A collective."""
        import deepspeed

        state: dict[str, Tensor] = {}
        names: dict[nn.Parameter, str] = {}
        for name, parameter in self._saved_parameters():
            if (known := names.setdefault(parameter, name)) != name:
                whole = state.get(known)
            elif parts is not None and parameter.requires_grad:
                whole = assembled(parameter, parts.get(name)).cpu()
            else:
                with deepspeed.zero.GatheredParameters([parameter], enabled=self.stage == 3):
                    whole = parameter.detach().to("cpu", copy=True) if rank() == 0 else None
            if rank() == 0:
                state[name] = whole
        persistent = self.module.state_dict().keys()
        state |= {n: buffer.detach().cpu().clone() for n, buffer in self.module.named_buffers() if n in persistent}
        return state if rank() == 0 else None

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


def _deterministic(wanted: bool) -> None:
    """Kernels on GPUs that add up in a fixed order, or refuse."""
    if wanted:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS's condition; the other value is slower
        torch.utils.deterministic.fill_uninitialized_memory = False  # finds errors in programs, and takes time
        torch.backends.cudnn.benchmark = False  # it would choose kernels by a clock
    torch.backends.cudnn.deterministic = wanted
    torch.use_deterministic_algorithms(wanted)


def _parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Biases and norms (everything of one dimension, as ZeRO-3 knows it) are not decayed."""
    trained = [p for p in module.parameters() if p.requires_grad]
    dimensions = lambda p: len(getattr(p, "ds_shape", p.shape))  # noqa: E731
    groups = [
        {"params": [p for p in trained if dimensions(p) > 1], "weight_decay": weight_decay},
        {"params": [p for p in trained if dimensions(p) <= 1], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def _quiet() -> None:
    """DeepSpeed and transformers tell their internals at length; what a person needs, the run itself says."""
    import logging

    os.environ.setdefault("DS_ACCELERATOR", "cuda" if torch.cuda.is_available() else "cpu")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="torch.distributed")
    warnings.filterwarnings("ignore", module="deepspeed")
