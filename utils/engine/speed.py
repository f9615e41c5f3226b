"""The share of the machine that a run uses: its useful FLOP/s divided by those of plain matrix products."""

from __future__ import annotations

import time
from functools import partial

import torch
from torch import nn

from utils.engine import internals

ROWS = 8192  # tokens of a large micro-batch, 8 x 1,024: the most rows that a product is measured with
AT_ONCE = 4  # products between two looks at the clock: on a GPU launching the next one hides behind the one before
SECONDS = 0.2  # for measuring
AGAIN, TRIES = 0.04, 2  # seconds and times for measuring once more, where a step was quicker than the peak allows
SMALL = 2**22  # weights of a matrix that is made in a few milliseconds, with little memory


def gemm_peak(inner: int, outer: int, dtype: torch.dtype, device: torch.device, *, seconds: float = SECONDS) -> float:
    """Measure the speed of matrix products.

    Args:
        inner, outer: of the products [rows, inner] x [inner, outer].
        dtype: of the factors.
        device: where they are.
        seconds: the most that measuring takes.

    Returns:
        FLOP/s, the best over rows = 16, 32, … ROWS: a GPU needs the last of them to be busy, a CPU is at its best
        long before.
    """
    numbers = lambda *shape: torch.linspace(-1, 1, shape[0] * shape[1], device=device).view(shape).to(dtype)  # noqa: E731
    # not torch.randn, which would move the seed of the run
    weight, rows, best, spent, took = numbers(inner, outer), 16, 0.0, 0.0, 0.0
    numbers(rows, inner) @ weight  # the first product also loads the library
    while rows <= ROWS and spent + 2 * took < seconds:
        took = _seconds(numbers(rows, inner), weight)
        best, spent = max(best, AT_ONCE * 2 * rows * inner * outer / took), spent + took
        rows *= 2
    return best


def _seconds(a: torch.Tensor, b: torch.Tensor) -> float:
    """Return the seconds that AT_ONCE products take."""
    _wait(a.device)
    start = time.perf_counter()
    for _ in range(AT_ONCE):
        a @ b
    _wait(a.device)
    return time.perf_counter() - start


def _wait(device: torch.device) -> None:
    """Let a GPU finish: its kernels run on after the call that starts them."""
    if device.type == "cuda":
        torch.cuda.synchronize()


class Meter:
    """Share of the GEMM limit, which is measured at the shape of the model's largest matrix.

    FLOPs of a token (Kaplan et al. 2020, arXiv:2001.08361, section 2.1): every weight costs 2 forward, 2 for the
    gradient of its input and, if it is trained, 2 for its own: 6 N of trained weights (an adapter's too), 4 N of frozen
    ones. The head's count for trained tokens alone. Left out are attention itself and recomputation, which is not
    useful work. The frozen weights below the first adapter need no gradient: there LoRA is overcounted, by less than a
    layer.
    """

    def __init__(self, model: nn.Module, dtype: torch.dtype, device: torch.device) -> None:
        """model: the transformers model, with or without an adapter. dtype, device: those of its products."""
        heads: list[nn.Parameter] = []
        if hasattr(model, "get_output_embeddings") and model.get_output_embeddings() is not None:
            heads = list(model.get_output_embeddings().parameters())
        # a table of embeddings is looked up, not multiplied; one that is tied to the head counts as the head
        tables = [m.weight for m in model.modules() if isinstance(m, nn.Embedding)]
        apart = set(map(id, [*tables, *heads]))
        body = [p for p in model.parameters() if id(p) not in apart]
        self.body, self.head = sum(map(_flops, body)), sum(map(_flops, heads))
        matrices = [shape[-2:] for shape in map(internals.whole_shape, body) if len(shape) > 1]
        inner, outer = max(matrices, key=lambda shape: shape[0] * shape[1])
        self._measure = partial(gemm_peak, inner, outer, dtype, device)
        self._tries = 0
        if inner * outer <= SMALL:
            self._tries = TRIES
        self.peak = self._measure()

    def share(self, tokens: int, trained_tokens: int, seconds: float, devices: int) -> float:
        """Return the share of the GEMM limit that was reached, 0 to 1.

        A peak that was measured while the machine was busy is too low: it is measured again, and is at least what a
        step has reached.

        Args:
            tokens: computed on all devices together.
            trained_tokens: those of them that went through the head.
            seconds: that they took.
            devices: how many worked.
        """
        rate = (self.body * tokens + self.head * trained_tokens) / seconds / devices
        while rate > self.peak and self._tries:
            self._tries -= 1
            self.peak = max(self.peak, self._measure(seconds=AGAIN))
        self.peak = max(self.peak, rate)
        return rate / self.peak


def _flops(weight: nn.Parameter) -> int:
    """Return the FLOPs that one token costs in this weight."""
    per_number = 6 if weight.requires_grad else 4
    return per_number * internals.whole_size(weight)
