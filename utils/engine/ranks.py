"""The ranks of a run: the number of this one, how many there are, waiting, exchanging. Plain `python` is one rank."""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Callable
from typing import Any

import numpy as np
import torch


def rank() -> int:
    """Return this process's number among all; launchers set it in the environment."""
    return int(os.environ.get("RANK", 0))


def local_rank() -> int:
    """Return this process's number on its own machine, which is the number of its GPU."""
    return int(os.environ.get("LOCAL_RANK", 0))


def world_size() -> int:
    """Return how many ranks there are."""
    return int(os.environ.get("WORLD_SIZE", 1))


def device() -> torch.device:
    """Return the device on which this rank computes."""
    if torch.cuda.is_available():
        return torch.device("cuda", local_rank())
    return torch.device("cpu")


def barrier() -> None:
    """Wait until every rank is here."""
    if world_size() > 1:
        torch.distributed.barrier()


def gather_objects(value: Any) -> list[Any]:
    """Return every rank's `value`, in rank order, on every rank."""
    if world_size() == 1:
        return [value]
    gathered: list[Any] = [None] * world_size()
    torch.distributed.all_gather_object(gathered, value)
    return gathered


def from_rank_0(make: Callable[[], Any]) -> Any:
    """Return on every rank what make() returns on rank 0, which alone calls it: for reading files once."""
    value = None
    if rank() == 0:
        value = make()
    first, *_ = gather_objects(value)
    return first


def free_port() -> int:
    """Return a port of this machine that is free now."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def seed_everything(seed: int) -> None:
    """Seed the generators of Python, numpy and torch (all devices)."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # numpy takes 32 bits
    torch.manual_seed(seed)
