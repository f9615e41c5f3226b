"""The mathematics of the head: log-probs and entropies from hidden states, and their gradients, chunk by chunk.

Legend: L positions, l positions of one chunk, D hidden size, V vocabulary, N trained tokens, n those of one block.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# Bytes of a chunk's logits: 1,024 positions of 128,000 words in bfloat16. A smaller chunk would read the head's
# weights, and add to their gradient, too often. What fits one chunk is kept for backward; else logits are computed
# again there, a third more products for the head.
CHUNK = 1 << 28
# Float32 copies are made of a part of a chunk, on a CPU one of about its cache (512 positions of 2,000 words); on a GPU
# every call of a kernel costs more than memory does, and a part is a whole chunk.
BLOCK, FEWEST, MOST = 1 << 20, 16, 512


@dataclass(frozen=True)
class Shape:
    """Turns the head's product z into logits: cap·tanh(scale·z / cap) / temperature, or scale·z / temperature."""

    scale: float = 1.0
    cap: float | None = None
    temperature: float = 1.0

    def logits(self, product: Tensor) -> Tensor:
        """Shape a product into a float32 tensor of its own."""
        values = product.to(torch.float32, copy=True)
        values = values * self.scale if self.scale != 1 else values
        values = torch.tanh(values / self.cap) * self.cap if self.cap is not None else values
        return values / self.temperature if self.temperature != 1 else values

    def gradient(self, grad: Tensor, logits: Tensor) -> Tensor:
        """Turn d/d logits into d/d product, in place."""
        if self.cap is not None:
            grad.mul_(1 - (logits * (self.temperature / self.cap)).square())
        factor = self.scale / self.temperature
        return grad.mul_(factor) if factor != 1 else grad


@dataclass(frozen=True)
class Job:
    shape: Shape
    lora_scale: float
    entropy: bool


@dataclass(frozen=True)
class Weights:
    """The head's parameters as tensors; `weight` is None where logits are given instead of hidden states."""

    weight: Tensor | None  # [V, D]
    bias: Tensor | None  # [V]
    lora_a: Tensor | None  # [r, D]
    lora_b: Tensor | None  # [V, r]
    lora_scale: float

    def product(self, hidden_lD: Tensor) -> Tensor:
        """[l, V]: float32 from bfloat16 factors where the device has such a product. A CPU has none, and converting
        the factors first takes 3.4 times as long, so there it is rounded to bfloat16."""
        if self.weight is None:
            return hidden_lD
        product = _matmul(hidden_lD, self.weight.T)
        if self.lora_a is not None:
            product = product + self.lora_scale * _matmul(hidden_lD @ self.lora_a.T, self.lora_b.T)
        return product if self.bias is None else product + self.bias

    def into_hidden(self, grad_lV: Tensor) -> Tensor:
        """[l, D]: the gradient of hidden states from that of their product."""
        grad_lD = grad_lV @ self.weight
        return grad_lD if self.lora_a is None else grad_lD + self.lora_scale * (grad_lV @ self.lora_b @ self.lora_a)

    def words(self, hidden_LD: Tensor) -> int:
        return hidden_LD.shape[1] if self.weight is None else self.weight.shape[0]

    def products_of(self, hidden_nD: Tensor, targets_n: Tensor) -> Tensor:
        """[n]: the product of each row with one word, in float32 whatever the parameters' dtype."""
        hidden_nD = hidden_nD.float()
        product_n = torch.linalg.vecdot(hidden_nD, self.weight[targets_n].float())
        if self.lora_a is not None:
            into_nr = hidden_nD @ self.lora_a.float().T
            product_n += self.lora_scale * torch.linalg.vecdot(into_nr, self.lora_b[targets_n].float())
        return product_n if self.bias is None else product_n + self.bias[targets_n].float()


def _matmul(a: Tensor, b: Tensor) -> Tensor:
    return torch.mm(a, b, out_dtype=torch.float32) if a.is_cuda and a.dtype != torch.float32 else a @ b


@dataclass(frozen=True)
class _Block:
    """A part of a chunk: its positions, and the trained tokens that they predict."""

    positions: slice
    within: slice  # the same positions, counted from the chunk's first
    tokens_n: Tensor  # numbers among the N
    rows_n: Tensor  # the position of each, counted from the block's first
    targets_n: Tensor

    def logits(self, hidden_LD: Tensor, product: Tensor, weights: Weights, shape: Shape) -> Tensor:
        """Float32 logits, those of the trained tokens exact: where the product was rounded they are computed again,
        since the error of a log-prob is mostly that of its own logit."""
        logits = shape.logits(product[self.within])
        if weights.weight is not None and product.dtype != torch.float32:
            exact_n = weights.products_of(hidden_LD[self.positions][self.rows_n], self.targets_n)
            logits[self.rows_n, self.targets_n] = shape.logits(exact_n)
        return logits


def _chunks(hidden_LD: Tensor, vocabulary: int, rows_N: Tensor, targets_N: Tensor) -> list[tuple[slice, list[_Block]]]:
    """Every chunk's positions and blocks."""
    total = len(hidden_LD)
    chunk = max(FEWEST, CHUNK // (vocabulary * hidden_LD.element_size()))
    block = chunk if hidden_LD.is_cuda else max(FEWEST, min(MOST, BLOCK // vocabulary, chunk))
    order_N = rows_N.argsort(stable=True)
    starts = [i for first in range(0, total, chunk) for i in range(first, min(first + chunk, total), block)]
    bounds = torch.searchsorted(rows_N[order_N], torch.tensor([*starts, total], device=rows_N.device)).tolist()
    found: list[tuple[slice, list[_Block]]] = []
    for i, start in enumerate(starts):
        first = start - start % chunk
        if start == first:
            found.append((slice(first, min(first + chunk, total)), []))
        end = min(start + block, found[-1][0].stop)
        tokens_n = order_N[bounds[i] : bounds[i + 1]]
        found[-1][1].append(_Block(slice(start, end), slice(start - first, end - first), tokens_n,
                                   rows_N[tokens_n] - start, targets_N[tokens_n]))  # fmt: skip
    return found


class LogProbs(torch.autograd.Function):
    """Log-probs and entropies of hidden states (of logits, where there is no weight)."""

    @staticmethod
    def forward(ctx, job: Job, hidden_LD, rows_N, targets_N, weight_VD, bias_V, lora_a, lora_b):
        weights = Weights(weight_VD, bias_V, lora_a, lora_b, job.lora_scale)
        chunks = _chunks(hidden_LD, weights.words(hidden_LD), rows_N, targets_N)
        lse_L = hidden_LD.new_empty(len(hidden_LD), dtype=torch.float32)
        entropy_L = torch.empty_like(lse_L) if job.entropy else lse_L.new_empty(0)
        logprobs_N = lse_L.new_empty(len(targets_N))
        for positions, blocks in chunks:
            product = weights.product(hidden_LD[positions])
            for block in blocks:
                logits = block.logits(hidden_LD, product, weights, job.shape)
                lse = lse_L[block.positions] = logits.logsumexp(-1)
                logprobs_N[block.tokens_n] = logits[block.rows_n, block.targets_n] - lse[block.rows_n]
                if job.entropy:
                    entropy_L[block.positions] = lse - ((logits - lse[:, None]).exp_() * logits).sum(-1)
        ctx.job, ctx.chunks, ctx.kept = job, chunks, product if len(chunks) == 1 else None
        ctx.save_for_backward(hidden_LD, weight_VD, bias_V, lora_a, lora_b, lse_L, entropy_L)
        return logprobs_N, entropy_L

    @staticmethod
    def backward(ctx, grad_N: Tensor, grad_entropy_L: Tensor):
        job: Job = ctx.job
        hidden_LD, *parameters, lse_L, entropy_L = ctx.saved_tensors
        weights = Weights(*parameters, job.lora_scale)
        grads = _Gradients(weights, ctx.needs_input_grad[4:])
        grad_LD = torch.empty_like(hidden_LD) if ctx.needs_input_grad[1] else None
        for positions, blocks in ctx.chunks:
            product = weights.product(hidden_LD[positions]) if ctx.kept is None else ctx.kept
            ctx.kept = None  # its memory becomes the gradient's
            grad = product if weights.weight is not None else grad_LD[positions]
            for block in blocks:
                logits, lse = block.logits(hidden_LD, product, weights, job.shape), lse_L[block.positions, None]
                logprobs = logits - lse if job.shape.cap is not None else logits.sub_(lse)
                grad_n = grad_N[block.tokens_n]
                # d log P(target) / d logits = onehot(target) − softmax. Near P = 1 the two cancel, so they are summed
                # in float32 before anything is rounded. Several tokens may be predicted at one position.
                weight = torch.zeros_like(lse).index_add_(0, block.rows_n, grad_n[:, None])
                if job.entropy:  # d entropy / d logits = −p (log p + entropy)
                    wanted, entropy = grad_entropy_L[block.positions, None], entropy_L[block.positions, None]
                    into = -logprobs.exp() * (weight + wanted * (logprobs + entropy))
                else:
                    into = logprobs.exp_().mul_(-weight)
                into.index_put_((block.rows_n, block.targets_n), grad_n, accumulate=True)
                grad[block.within] = job.shape.gradient(into, logits)
            if weights.weight is not None:
                grad = grad.to(hidden_LD.dtype)
                if grad_LD is not None:
                    grad_LD[positions] = weights.into_hidden(grad)
                grads.add(hidden_LD[positions], grad)
        return None, grad_LD, None, None, *grads.of_parameters()


class _Gradients:
    """Gradients of the head's parameters, summed in float32 over the chunks of a batch. `needed`: which of weight,
    bias, A and B learn."""

    def __init__(self, weights: Weights, needed: tuple[bool, ...]) -> None:
        self.weights, self.needed = weights, needed
        self.sums: list[Tensor | None] = [None] * 4

    def add(self, hidden_lD: Tensor, grad_lV: Tensor) -> None:
        w, (weight, bias, lora_a, lora_b) = self.weights, self.needed
        if weight:
            self._add(0, _matmul(grad_lV.T, hidden_lD))
        if bias:
            self._add(1, grad_lV.float().sum(0))
        if lora_a:
            self._add(2, w.lora_scale * _matmul((grad_lV @ w.lora_b).T, hidden_lD))
        if lora_b:
            self._add(3, w.lora_scale * _matmul(grad_lV.T, hidden_lD @ w.lora_a.T))

    def _add(self, place: int, grad: Tensor) -> None:
        before = self.sums[place]
        self.sums[place] = grad if before is None else before.float().add_(grad)

    def of_parameters(self) -> list[Tensor | None]:
        """One for each of weight, bias, A and B, in its dtype; None where none is needed."""
        w = self.weights
        parameters = (w.weight, w.bias, w.lora_a, w.lora_b)
        return [s if s is None else s.to(p.dtype) for s, p in zip(self.sums, parameters, strict=True)]
