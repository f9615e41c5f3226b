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
class LogitShape:
    """The way from the head's product z to logits: cap·tanh(scale·z / cap) / temperature, or scale·z / temperature."""

    scale: float = 1.0
    cap: float | None = None
    temperature: float = 1.0

    def logits(self, product: Tensor) -> Tensor:
        """Return a product of any shape as logits: a float32 tensor of its own, which callers change in place."""
        values = product.to(torch.float32, copy=True)
        # factors of 1 are left out: a pass over a chunk costs more than the comparison
        if self.scale != 1:
            values = values * self.scale
        if self.cap is not None:
            values = torch.tanh(values / self.cap) * self.cap
        if self.temperature != 1:
            values = values / self.temperature
        return values

    def gradient(self, grad: Tensor, logits: Tensor) -> Tensor:
        """Turn d/d logits into d/d product, in place, and return it."""
        if self.cap is not None:  # d tanh(y) / dy = 1 − tanh²(y), and tanh(y) is logits · temperature / cap
            grad.mul_(1 - (logits * (self.temperature / self.cap)).square())
        factor = self.scale / self.temperature
        if factor != 1:
            grad.mul_(factor)
        return grad


@dataclass(frozen=True)
class HeadOptions:
    """Everything but tensors that log-probs depend on."""

    shape: LogitShape
    lora_scale: float  # alpha / r
    entropy: bool  # of every position, too


@dataclass(frozen=True)
class Weights:
    """The head's parameters as tensors; `weight` is None where logits are given instead of hidden states."""

    weight: Tensor | None  # [V, D]
    bias: Tensor | None  # [V]
    lora_a: Tensor | None  # [r, D]
    lora_b: Tensor | None  # [V, r]
    lora_scale: float

    def product(self, hidden_lD: Tensor) -> Tensor:
        """Return the head's output for a chunk, [l, V]: float32 from bfloat16 factors where the device has such a
        product. A CPU has none, and converting the factors first takes 3.4 times as long, so there it is rounded to
        bfloat16."""
        if self.weight is None:
            return hidden_lD
        product = _matmul(hidden_lD, self.weight.T)
        if self.lora_a is not None:
            product = product + self.lora_scale * _matmul(hidden_lD @ self.lora_a.T, self.lora_b.T)
        if self.bias is not None:
            product = product + self.bias
        return product

    def into_hidden(self, grad_lV: Tensor) -> Tensor:
        """Return the gradient of hidden states, [l, D], from that of their product."""
        grad_lD = grad_lV @ self.weight
        if self.lora_a is not None:
            grad_lD = grad_lD + self.lora_scale * (grad_lV @ self.lora_b @ self.lora_a)
        return grad_lD

    def vocabulary(self, hidden_LD: Tensor) -> int:
        """Return V; where there is no weight, `hidden_LD` are logits already."""
        return hidden_LD.shape[1] if self.weight is None else self.weight.shape[0]

    def products_of(self, hidden_nD: Tensor, targets_n: Tensor) -> Tensor:
        """Return the product of each row with one word, [n], in float32 whatever the parameters' dtype."""
        hidden_nD = hidden_nD.float()
        product_n = torch.linalg.vecdot(hidden_nD, self.weight[targets_n].float())
        if self.lora_a is not None:
            into_nr = hidden_nD @ self.lora_a.float().T
            product_n += self.lora_scale * torch.linalg.vecdot(into_nr, self.lora_b[targets_n].float())
        if self.bias is not None:
            product_n = product_n + self.bias[targets_n].float()
        return product_n


def _matmul(a: Tensor, b: Tensor) -> Tensor:
    if a.is_cuda and a.dtype != torch.float32:
        return torch.mm(a, b, out_dtype=torch.float32)
    return a @ b


@dataclass(frozen=True)
class _Block:
    """A part of a chunk: its positions, and the trained tokens that they predict."""

    positions: slice
    within: slice  # the same positions, counted from the chunk's first
    tokens_n: Tensor  # numbers among the N
    rows_n: Tensor  # the position of each, counted from the block's first
    targets_n: Tensor

    def logits(self, hidden_LD: Tensor, product: Tensor, weights: Weights, shape: LogitShape) -> Tensor:
        """Return the block's logits in float32 from the chunk's `product` [l, V], those of the trained tokens exact:
        where the product was rounded they are computed again, as a log-prob's error is mostly that of its own logit."""
        logits = shape.logits(product[self.within])
        if weights.weight is not None and product.dtype != torch.float32:
            exact_n = weights.products_of(hidden_LD[self.positions][self.rows_n], self.targets_n)
            logits[self.rows_n, self.targets_n] = shape.logits(exact_n)
        return logits


def _chunks(hidden_LD: Tensor, vocabulary: int, rows_N: Tensor, targets_N: Tensor) -> list[tuple[slice, list[_Block]]]:
    """Return every chunk's positions and blocks."""
    total = len(hidden_LD)
    chunk = max(FEWEST, CHUNK // (vocabulary * hidden_LD.element_size()))
    block = chunk
    if not hidden_LD.is_cuda:
        block = max(FEWEST, min(MOST, BLOCK // vocabulary, chunk))
    # sorted by position, the tokens of a block lie side by side; stable, so that sums are added in one order
    order_N = rows_N.argsort(stable=True)
    starts: list[int] = []
    for first in range(0, total, chunk):
        starts += range(first, min(first + chunk, total), block)
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
    def forward(ctx, options: HeadOptions, hidden_LD, rows_N, targets_N, weight_VD, bias_V, lora_a, lora_b):
        # autograd dictates the order and form of these arguments: tensors that may learn stand by themselves
        weights = Weights(weight_VD, bias_V, lora_a, lora_b, options.lora_scale)
        chunks = _chunks(hidden_LD, weights.vocabulary(hidden_LD), rows_N, targets_N)
        lse_L = hidden_LD.new_empty(len(hidden_LD), dtype=torch.float32)
        entropy_L = lse_L.new_empty(len(hidden_LD) if options.entropy else 0)
        logprobs_N = lse_L.new_empty(len(targets_N))
        for positions, blocks in chunks:
            product = weights.product(hidden_LD[positions])
            for block in blocks:
                logits = block.logits(hidden_LD, product, weights, options.shape)
                lse = lse_L[block.positions] = logits.logsumexp(-1)
                logprobs_N[block.tokens_n] = logits[block.rows_n, block.targets_n] - lse[block.rows_n]
                if options.entropy:
                    entropy_L[block.positions] = lse - ((logits - lse[:, None]).exp_() * logits).sum(-1)
        ctx.options, ctx.chunks = options, chunks
        ctx.kept = product if len(chunks) == 1 else None
        ctx.save_for_backward(hidden_LD, weight_VD, bias_V, lora_a, lora_b, lse_L, entropy_L)
        return logprobs_N, entropy_L

    @staticmethod
    def backward(ctx, grad_N: Tensor, grad_entropy_L: Tensor):
        options: HeadOptions = ctx.options
        hidden_LD, *parameters, lse_L, entropy_L = ctx.saved_tensors
        weights = Weights(*parameters, options.lora_scale)
        grads = _Gradients(weights, ctx.needs_input_grad[4:])
        grad_LD = torch.empty_like(hidden_LD) if ctx.needs_input_grad[1] else None
        for positions, blocks in ctx.chunks:
            product, ctx.kept = ctx.kept, None  # its memory becomes the gradient's
            if product is None:
                product = weights.product(hidden_LD[positions])
            grad = grad_LD[positions] if weights.weight is None else product
            for block in blocks:
                logits, lse = block.logits(hidden_LD, product, weights, options.shape), lse_L[block.positions, None]
                # in place, unless the soft cap's gradient needs the logits below
                logprobs = logits.sub_(lse) if options.shape.cap is None else logits - lse
                grad_n = grad_N[block.tokens_n]
                # d log P(target) / d logits = onehot(target) − softmax. Near P = 1 the two cancel, so they are summed
                # in float32 before anything is rounded. Several tokens may be predicted at one position.
                weight = torch.zeros_like(lse).index_add_(0, block.rows_n, grad_n[:, None])
                if options.entropy:  # d entropy / d logits = −p (log p + entropy)
                    wanted, entropy = grad_entropy_L[block.positions, None], entropy_L[block.positions, None]
                    into = -logprobs.exp() * (weight + wanted * (logprobs + entropy))
                else:
                    into = logprobs.exp_().mul_(-weight)
                into.index_put_((block.rows_n, block.targets_n), grad_n, accumulate=True)
                grad[block.within] = options.shape.gradient(into, logits)
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
        """Add what a chunk gives: its hidden states [l, D], and the gradient of the head's output for them [l, V]."""
        weight, bias, lora_a, lora_b = self.needed
        weights = self.weights
        if weight:
            self._add(0, _matmul(grad_lV.T, hidden_lD))
        if bias:
            self._add(1, grad_lV.float().sum(0))
        if lora_a:
            self._add(2, weights.lora_scale * _matmul((grad_lV @ weights.lora_b).T, hidden_lD))
        if lora_b:
            self._add(3, weights.lora_scale * _matmul(grad_lV.T, hidden_lD @ weights.lora_a.T))

    def _add(self, place: int, grad: Tensor) -> None:
        before = self.sums[place]
        if before is not None:
            grad = before.float().add_(grad)
        self.sums[place] = grad

    def of_parameters(self) -> list[Tensor | None]:
        """Return a gradient for each of weight, bias, A and B, in its dtype; None where none is needed."""
        w, found = self.weights, []
        parameters = (w.weight, w.bias, w.lora_a, w.lora_b)
        for grad, parameter in zip(self.sums, parameters, strict=True):
            found.append(None if grad is None else grad.to(parameter.dtype))
        return found
