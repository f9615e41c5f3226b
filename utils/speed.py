"""How much of the machine a run uses: useful floating-point work against the matrix products it could have done."""

from __future__ import annotations

import time

import torch
from torch import nn


def gemm_peak(dtype: torch.dtype, device: torch.device, rows: int = 1024, width: int = 1024) -> float:
    """FLOP/s of a square-ish matrix product in `dtype`, best of a few (about 0.1 s)."""
    a, b = (
        torch.ones(n, width, dtype=dtype, device=device) for n in (rows, width)
    )  # random numbers would move the seed
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        for _ in range(3):
            a @ b.T
        if device.type == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return 3 * 2 * rows * width * width / best


class Meter:
    """Share of the GEMM limit: 6 FLOPs per body weight and packed token, 6 per head weight and trained token (forward
    and backward; attention itself is left out, recomputation does not count as useful)."""

    def __init__(self, model: nn.Module, dtype: torch.dtype, device: torch.device) -> None:
        size = lambda p: getattr(p, "ds_numel", p.numel())  # noqa: E731
        embeddings = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
        self.body = sum(size(p) for p in model.parameters() if id(p) not in embeddings)
        head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
        self.head = size(head.weight) if head is not None else 0
        if head is not None and id(head.weight) not in embeddings:
            self.body -= self.head
        self.peak = gemm_peak(dtype, device)

    def share(self, tokens: int, trained_tokens: int, seconds: float, devices: int) -> float:
        """Of all `devices` together, 0 to 1."""
        return 6 * (self.body * tokens + self.head * trained_tokens) / seconds / self.peak / devices
