"""Distributed start-up and an engine that trains a module, by DeepSpeed's public interface.

The config is made in config.py; internals.py holds what reaches into DeepSpeed's private parts.

DeepSpeed runs on GPUs (NCCL) and on CPUs (gloo) alike; nothing is compiled on a CPU.
"""

from __future__ import annotations

import contextlib
import datetime
import io
import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from utils.arguments.options import TrainingArguments
from utils.engine import internals
from utils.engine.config import config_of
from utils.engine.ranks import free_port, local_rank, rank, seed_everything, world_size
from utils.errors import UserError

# How long ranks wait for one of them. Rank 0 alone writes a model and reads it back: 140 GB (70B weights in bf16),
# twice over a network drive of 0.1 GB/s, take 47 minutes. DEEPSPEED_TIMEOUT (minutes) in the environment overrides it.
PATIENCE = datetime.timedelta(minutes=60)


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
    if not torch.cuda.is_available():
        internals.skip_shared_memory_collectives()
    if not torch.distributed.is_initialized():
        patience = PATIENCE
        if minutes:
            patience = datetime.timedelta(minutes=int(minutes))
        deepspeed.init_distributed(timeout=patience)
    if torch.cuda.is_available():
        torch.cuda.set_device(local_rank())
        _deterministic(args.deterministic)
    if args.tf32:
        torch.set_float32_matmul_precision("high")
    seed_everything(args.seed)
    config = config_of(args, world_size())
    if config["zero_optimization"]["stage"] == 3:
        internals.shard_while_loading(config)
    else:
        internals.shard_while_loading(None)


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
        if args.bf16 and self.stage < 3:
            module = module.to(torch.bfloat16)
        # its bfloat16 optimizer prints 20 lines about memory
        with contextlib.redirect_stdout(io.StringIO()):
            self.deepspeed, *_ = deepspeed.initialize(
                model=module, optimizer=optimizer, lr_scheduler=schedule, config=config, dist_init_required=False
            )
        if world_size() == 1 and self.stage <= 1:
            internals.skip_reduction(self.deepspeed)
        self.module, self.config, self.total_steps = module, config, total_steps
        self.skipped_in_a_row = 0  # updates
        self._norm: float | None = None
        if self.stage == 0:  # DeepSpeed neither skips a step here, nor tells the norm of its gradient
            internals.before_update(self.deepspeed, self._measure)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.deepspeed(*args, **kwargs)

    def backward(self, loss: Tensor) -> None:
        """Add the loss's gradients to those of the step."""
        self.deepspeed.backward(loss)

    def step(self) -> bool:
        """Reduce, clip, update, advance the schedule. Return False where DeepSpeed skipped a non-finite gradient."""
        self.deepspeed.step()
        applied = self.deepspeed.was_step_applied()
        self.skipped_in_a_row += 1
        if applied:
            self.skipped_in_a_row = 0
        return applied

    def learning_rate(self) -> float:
        """Return the rate that the next step will use."""
        return float(self.deepspeed.get_lr()[0])

    def gradient_norm(self) -> float | None:
        """Return the global norm, before clipping, of the gradient that the last step used; None before the first."""
        if self.stage == 0:
            return self._norm
        norm = self.deepspeed.get_global_grad_norm()
        return None if norm is None else float(norm)

    def _measure(self) -> None:
        gradients = [p.grad for p in self.module.parameters() if p.grad is not None]
        self._norm = float(torch.nn.utils.get_total_norm(gradients))

    def save_states(self, folder: Path, tag: str, facts: dict[str, Any]) -> None:
        """Write what training changes to folder/tag, with `facts` (JSON); the starting model has the frozen weights."""
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
        """Restore a state, and return the facts that save_states was given. Frozen weights stay as they are. Raises
        UserError for a state of another model."""

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
        """Yield every name that a parameter is saved under: two for a tied weight, none for one that is borrowed."""
        saved = self.module.state_dict().keys()
        return ((n, p) for n, p in self.module.named_parameters(remove_duplicate=False) if n in saved)

    def full_state_dict(self, trained: Callable[[str, nn.Parameter], Tensor] | None = None) -> dict[str, Tensor] | None:
        """Return every weight whole, on the CPU of rank 0 (None elsewhere); names of one tied weight share one tensor.
        `trained` gives the trained weights other values, by name and parameter, on all ranks. A collective."""
        import deepspeed

        state: dict[str, Tensor] = {}
        names: dict[nn.Parameter, str] = {}
        # one weight at a time: a GPU may not have room for two copies of the model
        for name, parameter in self._saved_parameters():
            if (known := names.setdefault(parameter, name)) != name:
                whole = state.get(known)
            elif trained and parameter.requires_grad:
                whole = trained(name, parameter).cpu()
            else:
                whole = None
                with deepspeed.zero.GatheredParameters([parameter], enabled=self.stage == 3):
                    if rank() == 0:
                        whole = parameter.detach().to("cpu", copy=True)
            if rank() == 0:
                state[name] = whole
        if rank() != 0:
            return None
        persistent = self.module.state_dict().keys()
        for name, buffer in self.module.named_buffers():
            if name in persistent:
                state[name] = buffer.detach().cpu().clone()
        return state


def _deterministic(wanted: bool) -> None:
    """Choose kernels on GPUs that add up in a fixed order, or refuse (`wanted`), or any."""
    if wanted:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS's condition; the other value is slower
        torch.utils.deterministic.fill_uninitialized_memory = False  # finds errors in programs, and takes time
        torch.backends.cudnn.benchmark = False  # it would choose kernels by a clock
    torch.backends.cudnn.deterministic = wanted
    torch.use_deterministic_algorithms(wanted)


def _parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Return AdamW's groups. Biases and norms (all weights of one dimension) are not decayed: they are few, and pulling
    a norm's scale towards 0 changes the function rather than its complexity."""
    trained = [p for p in module.parameters() if p.requires_grad]
    decayed = [p for p in trained if len(internals.whole_shape(p)) > 1]
    others = [p for p in trained if len(internals.whole_shape(p)) <= 1]
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def _quiet() -> None:
    """Silence what DeepSpeed and transformers log about themselves; the run reports what a person needs."""
    import logging

    os.environ.setdefault("DS_ACCELERATOR", "cuda" if torch.cuda.is_available() else "cpu")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="torch.distributed")
    warnings.filterwarnings("ignore", module="deepspeed")
