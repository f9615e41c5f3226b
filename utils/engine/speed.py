"""How much of the machine a run uses: useful floating-point work against the matrix products it could have done."""

from __future__ import annotations

import time
from functools import partial

import torch
from torch import nn

ROWS = 8192  # tokens of a large micro-batch, 8 x 1,024: the most rows that a product is measured with
AT_ONCE = 4  # products between two looks at the clock: on a GPU launching the next one hides behind the one before
SECONDS = 0.2  # for measuring
AGAIN, TRIES = 0.04, 2  # seconds and times for measuring once more, where a step was quicker than the peak allows
SMALL = 2**22  # weights of a matrix that is made in a few milliseconds, with little memory


def gemm_peak(inner: int, outer: int, dtype: torch.dtype, device: torch.device, *, seconds: float = SECONDS) -> float:
    """FLOP/s of [rows, inner] x [inner, outer], the best over rows = 16, 32, … ROWS, as far as `seconds` reach: a GPU
    needs the last of them to be busy, a CPU is at its best long before."""
    numbers = lambda *shape: torch.linspace(-1, 1, shape[0] * shape[1], device=device).view(shape).to(dtype)  # noqa: E731
    weight, rows, best, spent, took = numbers(inner, outer), 16, 0.0, 0.0, 0.0  # torch.randn would move the seed
    numbers(rows, inner) @ weight  # the first product also loads the library
    while rows <= ROWS and spent + 2 * took < seconds:
        took = _seconds(numbers(rows, inner), weight)
        best, spent = max(best, AT_ONCE * 2 * rows * inner * outer / took), spent + took
        rows *= 2
    return best


def _seconds(a: torch.Tensor, b: torch.Tensor) -> float:
    """How long AT_ONCE products take."""
    wait = torch.cuda.synchronize if a.device.type == "cuda" else lambda: None
    wait()
    start = time.perf_counter()
    for _ in range(AT_ONCE):
        a @ b
    wait()
    return time.perf_counter() - start


class Meter:
    """Share of the GEMM limit, which is measured at the shape of the model's largest matrix.

    FLOPs of a token (Kaplan et al. 2020, arXiv:2001.08361, section 2.1): every weight costs 2 forward, 2 for the
    gradient of its input and, if it is trained, 2 for its own: 6 N of trained weights (an adapter's too), 4 N of frozen
    ones. The head's count for trained tokens alone. Left out are attention itself and recomputation, which is not
    useful work. The frozen weights below the first adapter need no gradient: there LoRA is overcounted, by less than a
    layer.
    """

    def __init__(self, model: nn.Module, dtype: torch.dtype, device: torch.device) -> None:
        head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
        heads = [] if head is None else list(head.parameters())
        apart = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)} | {id(p) for p in heads}
        body = [p for p in model.parameters() if id(p) not in apart]
        self.body, self.head = (sum(map(_flops, weights)) for weights in (body, heads))
        matrices = [shape[-2:] for shape in (getattr(p, "ds_shape", p.shape) for p in body) if len(shape) > 1]
        inner, outer = max(matrices, key=lambda shape: shape[0] * shape[1])
        self._measure = partial(gemm_peak, inner, outer, dtype, device)
        self._tries = TRIES if inner * outer <= SMALL else 0
        self.peak = self._measure()

    def share(self, tokens: int, trained_tokens: int, seconds: float, devices: int) -> float:
        """Return the share of all `devices` together, 0 to 1.

        A peak that was measured while the machine was busy is too low: it is measured again, and is at least what a
        step has reached.
        """
        rate = (self.body * tokens + self.head * trained_tokens) / seconds / devices
        while rate > self.peak and self._tries:
            self._tries -= 1
            self.peak = max(self.peak, self._measure(seconds=AGAIN))
        self.peak = max(self.peak, rate)
        return rate / self.peak


def _flops(weight: nn.Parameter) -> int:
    """Of one token; ds_numel is the whole size of a ZeRO-3 shard."""
    return (6 if weight.requires_grad else 4) * getattr(weight, "ds_numel", weight.numel())
