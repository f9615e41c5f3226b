"""The float32 master weights that the optimizer updates, as ZeRO divides them among the ranks.

Stages 1 and 2 cut the flattened weights of all parameters into one piece a rank, so that a rank holds a fragment of a
parameter, the whole of it, or nothing. Stage 3 cuts each parameter by itself. At stage 0 every rank holds everything,
and rank 0 stands for all. Rajbhandari et al. 2020, arXiv:1910.02054.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from utils.engine import internals
from utils.engine.ranks import device, rank, world_size


@dataclass(frozen=True)
class Part:
    """A rank's part of one parameter: the elements from `start` on of its flattened float32 values."""

    start: int
    values: Tensor


def owned(module: nn.Module, stage: int) -> Iterator[tuple[str, Part]]:
    """Yield (name, part) of every trained parameter of which this rank holds a part; no communication. The values are
    views: they change with every step."""
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        part = _part(parameter, stage)
        if part is not None and part.values.numel():
            yield name, part


def _part(parameter: nn.Parameter, stage: int) -> Part | None:
    if stage == 0 and rank() == 0:
        return Part(0, parameter.detach().flatten())
    if stage == 0:
        return None
    if stage == 3:
        return Part(*internals.master_shard(parameter))
    fragment = internals.master_fragment(parameter)
    return None if fragment is None else Part(*fragment)


def assembled(parameter: nn.Parameter, part: Part | None) -> Tensor:
    """Return a parameter whole and in its own dtype, from every rank's part; complete on rank 0 alone. A collective."""
    shape = internals.whole_shape(parameter)
    whole = torch.zeros(shape.numel(), dtype=torch.float32, device=device())
    if part is not None:
        whole[part.start : part.start + part.values.numel()] = part.values
    if world_size() > 1:
        torch.distributed.reduce(whole, dst=0)  # elsewhere zero, so the sum is exact
    return whole.view(shape).to(parameter.dtype)
