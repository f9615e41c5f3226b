"""Attention over a packed row: prompts and answers laid end to end, each answer sees its prompt and itself.

A row is prompt, answer 1, answer 2, …, next prompt, …. Prompt and first answer are one causal segment; every later
answer is a segment of queries whose keys are the prompt's followed by its own. Registered with transformers under the
name PACKED, so that any model whose attention goes through `AttentionInterface` can read such rows unpatched; the
Layout comes along as the keyword `layout`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AttentionInterface

from utils.engine.internals import takes_attention

PACKED = "packed_prefix_shared"


@dataclass(frozen=True, eq=False)
class Layout:
    """The lengths of a packed row: for each group its prompt and its answers, in tokens."""

    groups: tuple[tuple[int, tuple[int, ...]], ...]
    masks: dict = field(default_factory=dict, repr=False)  # of this row, made once and read by every layer

    @cached_property
    def segments(self) -> list[tuple[int, int]]:
        """Return (queries, keys taken from the prompt) of each segment; those of one group follow each other."""
        found = []
        for prompt, answers in self.groups:
            found.append((prompt + sum(answers[:1]), 0))
            found += [(answer, prompt) for answer in answers[1:]]
        return found

    @cached_property
    def lengths(self) -> list[int]:
        """Return the queries of each segment."""
        return [queries for queries, _ in self.segments]

    def mask(self, queries: int, prefix: int, window: int | None, device: torch.device) -> Tensor:
        """Return which keys each query of a segment sees, causal from the end.

        Args:
            queries: length of the segment.
            prefix: keys that it takes from its prompt, in front of its own.
            window: the most positions that are seen, the query's own included; None: all.
            device: where the mask is made.

        Returns:
            [queries, prefix + queries], True where seen.
        """
        key = (queries, prefix, window)
        if key not in self.masks:
            distance = torch.arange(prefix, prefix + queries, device=device)[:, None]
            distance = distance - torch.arange(prefix + queries, device=device)
            seen = distance >= 0
            if window is not None:
                seen = seen & (distance < window)
            self.masks[key] = seen
        return self.masks[key]

    def varlen(self, device: torch.device) -> tuple[Tensor, Tensor, Tensor, int, int]:
        """Return what CUDA's kernel for rows of variable length reads, in its order: the index of the keys of each
        segment, cumulative queries, cumulative keys, the longest of both."""
        # an answer's segment reads the keys of its prompt and its own, so a prompt's are named once for each answer
        if "varlen" not in self.masks:
            index, keys, start, prompt_start = [], [], 0, 0
            for queries, prefix in self.segments:
                if not prefix:
                    prompt_start = start
                index.append(torch.arange(prompt_start, prompt_start + prefix))
                index.append(torch.arange(start, start + queries))
                keys.append(prefix + queries)
                start += queries
            cumulative = [torch.tensor([0, *lengths]).cumsum(0) for lengths in (self.lengths, keys)]
            on_device = [c.to(device, torch.int32) for c in cumulative]
            self.masks["varlen"] = (torch.cat(index).to(device), *on_device, max(self.lengths), max(keys))
        return self.masks["varlen"]


def packed_attention(
    module, query, key, value, attention_mask, scaling=None, dropout=0.0, sliding_window=None, softcap=None,
    s_aux=None, layout: Layout | None = None, **_,
):  # fmt: skip
    """Compute attention over a packed row. transformers calls it and dictates names and order of the arguments.

    Args:
        module: the attention layer.
        query: [1, H, T, D].
        key: [1, H_kv, T, D].
        value: [1, H_kv, T, D].
        attention_mask: unused; the layout has the masks.
        scaling: of the scores; None: 1 / √D.
        dropout: share of the weights that is dropped.
        sliding_window: the most positions that a query sees; None: all.
        softcap: bounds scores by a tanh (Gemma 2).
        s_aux: attention sinks, one number a head.
        layout: of the row.

    Returns:
        ([1, T, H, D], None): transformers wants weights in the second place, which no one reads.
    """
    if layout is None:
        raise RuntimeError(f"{type(module).__name__} does not pass `layout` to its attention function")
    if query.is_cuda and query.dtype != torch.float32 and softcap is None and s_aux is None and not dropout:
        # one call of a kernel for all segments; it has neither float32 nor these options
        return _varlen(query, key, value, scaling=scaling, window=sliding_window, layout=layout), None
    dtype = query.dtype
    if query.device.type == "cpu" and dtype == torch.bfloat16:
        # torch compiles a CPU product in bfloat16 for every new shape, and each segment is one: float32 takes a third
        # of the time or less (16 pairs of 80 tokens, 6 heads of 32, forward and backward: 10 ms, not 50 to 75).
        query, key, value = query.float(), key.float(), value.float()
    copies = query.shape[1] // key.shape[1]
    if copies > 1:  # grouped-query attention
        key, value = _repeat_heads(key, copies), _repeat_heads(value, copies)
    outputs, prompt_key, prompt_value = [], None, None
    pieces = zip(*(x.split(layout.lengths, dim=2) for x in (query, key, value)), layout.segments, strict=True)
    for q, k, v, (length, prefix) in pieces:
        if prefix:
            k, v = torch.cat((prompt_key[:, :, :prefix], k), 2), torch.cat((prompt_value[:, :, :prefix], v), 2)
        else:
            prompt_key, prompt_value = k, v
        window = sliding_window
        if window is not None and window >= k.shape[2]:  # it hides nothing, and plain causal attention is faster
            window = None
        if softcap is not None or s_aux is not None:
            mask = layout.mask(length, prefix, window, q.device)
            outputs.append(_with_scores(q, k, v, mask, scores=_Scores(scaling, softcap, s_aux), dropout=dropout))
            continue
        causal = not prefix and window is None
        mask = None
        if not causal:
            mask = layout.mask(length, prefix, window, q.device)
        outputs.append(F.scaled_dot_product_attention(q, k, v, mask, dropout, is_causal=causal, scale=scaling))
    return torch.cat(outputs, 2).transpose(1, 2).to(dtype), None


def _repeat_heads(x: Tensor, copies: int) -> Tensor:
    batch, heads, length, dim = x.shape
    return x[:, :, None].expand(batch, heads, copies, length, dim).reshape(batch, heads * copies, length, dim)


@dataclass(frozen=True)
class _Scores:
    """What a family does to scores before the softmax, by transformers' names."""

    scaling: float | None
    softcap: float | None
    s_aux: Tensor | None


def _with_scores(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, *, scores: _Scores, dropout: float) -> Tensor:
    """Compute attention step by step, for what torch's own function does not offer."""
    how, scaling = scores, scores.scaling
    if scaling is None:
        scaling = q.shape[-1] ** -0.5
    scores = (q * scaling) @ k.transpose(-1, -2)
    if how.softcap is not None:
        scores = torch.tanh(scores / how.softcap) * how.softcap
    scores = scores.masked_fill(~mask, float("-inf"))
    if how.s_aux is not None:  # a sink is one more column that takes weight and gives nothing
        sink = how.s_aux.reshape(1, -1, 1, 1).expand(*scores.shape[:3], 1).to(scores.dtype)
        weights = torch.cat((scores, sink), -1).softmax(-1, dtype=torch.float32)[..., :-1]
    else:
        weights = scores.softmax(-1)  # summed in float32 whatever the dtype
    return F.dropout(weights.to(v.dtype), dropout) @ v


def _varlen(query: Tensor, key: Tensor, value: Tensor, *, scaling, window, layout: Layout) -> Tensor:
    """Compute attention by FlashAttention's kernel for variable lengths, as torch ships it: keys gathered, causal from
    the end."""
    from torch.nn.attention.varlen import varlen_attn

    index, cu_q, cu_k, max_q, max_k = layout.varlen(query.device)
    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))
    grouped = q.shape[1] != k.shape[1]
    before = -1 if window is None else window - 1  # the kernel counts the keys before a query's own; -1: all
    out = varlen_attn(
        q, k[index], v[index], cu_q, cu_k, max_q, max_k, scale=scaling, window_size=(before, 0), enable_gqa=grouped
    )
    return out[None]


AttentionInterface.register(PACKED, packed_attention)

READABLE_LAYERS = {"full_attention", "sliding_attention"}


def why_not_packed(model) -> str | None:
    """Return why the architecture may not read packed rows, None if it may.

    What passes is still tested at start-up (`self_test` in scoring.py); what does not is known to be wrong or unknown:
    ALiBi biases and recurrent or convolutional state follow the row's index, not the positions.
    """
    config = model.config.get_text_config()
    kind = config.model_type
    if config.is_encoder_decoder:
        return f"{kind} is an encoder-decoder"
    if not takes_attention(model):
        return f"{kind} does not take its attention from transformers' AttentionInterface"
    if getattr(config, "alibi", False):
        return f"{kind} uses ALiBi"
    strange: Sequence[str] = sorted(set(getattr(config, "layer_types", None) or []) - READABLE_LAYERS)
    if strange:
        return f"{kind} has {strange[0]} layers"
    return None
