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

PACKED = "packed_prefix_shared"


@dataclass(frozen=True, eq=False)
class Layout:
    """The lengths of a packed row: for each group its prompt and its answers, in tokens."""

    groups: tuple[tuple[int, tuple[int, ...]], ...]
    masks: dict = field(default_factory=dict, repr=False)  # of this row, made once and read by every layer

    @cached_property
    def segments(self) -> list[tuple[int, int]]:
        """(queries, keys taken from the prompt) of each segment; those of one group follow each other."""
        found = []
        for prompt, answers in self.groups:
            found.append((prompt + (answers[0] if answers else 0), 0))
            found += [(answer, prompt) for answer in answers[1:]]
        return found

    @cached_property
    def lengths(self) -> list[int]:
        return [queries for queries, _ in self.segments]

    def mask(self, queries: int, prefix: int, window: int | None, device: torch.device) -> Tensor:
        """[queries, prefix + queries], True where seen: causal from the end, at most `window` positions back."""
        key = (queries, prefix, window)
        if key not in self.masks:
            distance = torch.arange(prefix, prefix + queries, device=device)[:, None]
            distance = distance - torch.arange(prefix + queries, device=device)
            seen = distance >= 0
            self.masks[key] = seen if window is None else seen & (distance < window)
        return self.masks[key]

    def varlen(self, device: torch.device) -> tuple[Tensor, Tensor, Tensor, int, int]:
        """For CUDA: (index of the keys each segment reads, cumulative queries, cumulative keys, longest of both)."""
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
    """transformers' attention function. query [1, H, T, D], key and value [1, H_kv, T, D] -> ([1, T, H, D], None).

    Honours sliding_window (in positions), softcap (Gemma 2) and s_aux (attention sinks), or whatever of them is given.
    """
    if layout is None:
        raise RuntimeError(f"{type(module).__name__} does not pass `layout` to its attention function")
    if query.is_cuda and query.dtype != torch.float32 and softcap is None and s_aux is None and not dropout:
        return _varlen(query, key, value, scaling, sliding_window, layout), None
    dtype = query.dtype
    if query.device.type == "cpu" and dtype == torch.bfloat16:
        # torch compiles a CPU product in bfloat16 for every new shape, and each segment is one: float32 takes a third
        # of the time or less (16 pairs of 80 tokens, 6 heads of 32, forward and backward: 10 ms, not 50 to 75).
        query, key, value = query.float(), key.float(), value.float()
    copies = query.shape[1] // key.shape[1]
    if copies > 1:
        key, value = _repeat_heads(key, copies), _repeat_heads(value, copies)
    outputs, prompt_key, prompt_value = [], None, None
    pieces = zip(*(x.split(layout.lengths, dim=2) for x in (query, key, value)), layout.segments, strict=True)
    for q, k, v, (length, prefix) in pieces:
        if prefix:
            k, v = torch.cat((prompt_key[:, :, :prefix], k), 2), torch.cat((prompt_value[:, :, :prefix], v), 2)
        else:
            prompt_key, prompt_value = k, v
        window = sliding_window if sliding_window is not None and sliding_window < k.shape[2] else None
        if softcap is None and s_aux is None:
            causal = not prefix and window is None
            mask = None if causal else layout.mask(length, prefix, window, q.device)
            outputs.append(F.scaled_dot_product_attention(q, k, v, mask, dropout, is_causal=causal, scale=scaling))
        else:
            mask = layout.mask(length, prefix, window, q.device)
            outputs.append(_explicit(q, k, v, mask, scaling, dropout, softcap, s_aux))
    return torch.cat(outputs, 2).transpose(1, 2).to(dtype), None


def _repeat_heads(x: Tensor, copies: int) -> Tensor:
    batch, heads, length, dim = x.shape
    return x[:, :, None].expand(batch, heads, copies, length, dim).reshape(batch, heads * copies, length, dim)


def _explicit(q, k, v, mask, scaling, dropout, softcap, s_aux) -> Tensor:
    scores = (q * (q.shape[-1] ** -0.5 if scaling is None else scaling)) @ k.transpose(-1, -2)
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    scores = scores.masked_fill(~mask, float("-inf"))
    if s_aux is not None:  # a sink is one more column that takes weight and gives nothing
        sink = s_aux.reshape(1, -1, 1, 1).expand(*scores.shape[:3], 1).to(scores.dtype)
        weights = torch.cat((scores, sink), -1).softmax(-1, dtype=torch.float32)[..., :-1]
    else:
        weights = scores.softmax(-1)  # summed in float32 whatever the dtype
    return F.dropout(weights.to(v.dtype), dropout) @ v


def _varlen(query, key, value, scaling, window, layout) -> Tensor:
    """FlashAttention's variable-length kernel, as torch ships it: keys gathered, causal from the end."""
    from torch.nn.attention.varlen import varlen_attn

    index, cu_q, cu_k, max_q, max_k = layout.varlen(query.device)
    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))
    grouped = q.shape[1] != k.shape[1]
    out = varlen_attn(
        q, k[index], v[index], cu_q, cu_k, max_q, max_k,
        scale=scaling, window_size=(-1 if window is None else window - 1, 0), enable_gqa=grouped,
    )  # fmt: skip
    return out[None]


AttentionInterface.register(PACKED, packed_attention)

READABLE_LAYERS = {"full_attention", "sliding_attention"}


def why_not_packed(model) -> str | None:
    """The gate: None if the architecture may read packed rows, else the reason why it may not.

    What passes is still tested at start-up (scoring.self_test); what does not is known to be wrong or unknown: ALiBi
    biases and recurrent or convolutional state follow the row's index, not the positions.
    """
    config = model.config.get_text_config()
    kind = config.model_type
    if config.is_encoder_decoder:
        return f"{kind} is an encoder-decoder"
    if not getattr(model, "_supports_attention_backend", False):
        return f"{kind} does not take its attention from transformers' AttentionInterface"
    if getattr(config, "alibi", False):
        return f"{kind} uses ALiBi"
    strange: Sequence[str] = sorted(set(getattr(config, "layer_types", None) or []) - READABLE_LAYERS)
    if strange:
        return f"{kind} has {strange[0]} layers"
    return None
