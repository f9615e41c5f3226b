"""The other processes of a run: who am I, how many are we, wait for all, ask all. Plain python is one rank."""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Callable
from typing import Any

import numpy as np
import torch


def rank() -> int:
    return int(os.environ.get("RANK", 0))


def local_rank() -> int:
    return int(os.environ.get("LOCAL_RANK", 0))


def world_size() -> int:
    return int(os.environ.get("WORLD_SIZE", 1))


def device() -> torch.device:
    return torch.device("cuda", local_rank()) if torch.cuda.is_available() else torch.device("cpu")


def barrier() -> None:
    if world_size() > 1:
        torch.distributed.barrier()


def gather_objects(value: Any) -> list[Any]:
    """Every rank's `value`, in rank order, on every rank."""
    if world_size() == 1:
        return [value]
    gathered: list[Any] = [None] * world_size()
    torch.distributed.all_gather_object(gathered, value)
    return gathered


def from_rank_0(make: Callable[[], Any]) -> Any:
    """What make() returns on rank 0, on every rank: for reading files once."""
    return gather_objects(make() if rank() == 0 else None)[0]


def free_port() -> int:
    """Return a port of this machine that is free now."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def seed_everything(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
