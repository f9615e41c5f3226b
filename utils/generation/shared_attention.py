"""Attention for decoding many answers of few prompts: the rows of a prompt share one product with its keys.

A step is one row of R tokens, one of each answer that is still being written; every token sees its prompt and its own
answer so far. Registered with transformers under the name SHARED_PREFIX; the SharedCache comes along as the keyword
`layout`, as a packed row's Layout does. The decomposition into prompt and answer is that of Hydragen (Juravsky et al.
2024, arXiv:2402.05099).

Legend: R answers in flight, r of them in a bucket, B prompts of a bucket, n answers of a prompt, X keys or head size,
H heads, K heads of keys and values, G = H / K, D head size.
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import AttentionInterface

from utils.generation.shared_cache import Bucket, SharedCache
from utils.model.packed_attention import packed_attention

SHARED_PREFIX = "shared_prefix_decoding"


def shared_attention(
    module, query, key, value, attention_mask, scaling=None, dropout=0.0, sliding_window=None, softcap=None,
    s_aux=None, layout: SharedCache | None = None, **_,
):  # fmt: skip
    """Compute a layer's attention, as transformers calls it.

    Args:
        module: the attention layer; it must know its number, `layer_idx`.
        query: [1, H, R, D].
        key: of the step's own tokens, [1, K, R, D].
        value: of the step's own tokens, [1, K, R, D].
        attention_mask: unused: the SharedCache says what is seen.
        scaling: of the scores; None: 1/√D.
        dropout: unused, but by packed_attention while prompts are read.
        sliding_window: how many positions a token sees; None: all.
        softcap: Gemma 2's limit of the scores; None: none.
        s_aux: attention sinks, a score for each head; None: none.
        layout: the keys and values so far, to which the step's own are added.

    Returns:
        ([1, R, H, D], None).
    """
    if layout is None:
        raise RuntimeError(f"{type(module).__name__} does not pass `layout` to its attention function")
    if layout.packed is not None:
        layout.read.setdefault(module.layer_idx, []).append((key[0], value[0]))
        return packed_attention(
            module, query, key, value, attention_mask=None, scaling=scaling, dropout=dropout,
            sliding_window=sliding_window, softcap=softcap, s_aux=s_aux, layout=layout.packed,
        )  # fmt: skip
    heads, rows, size = query.shape[1:]
    kept = key.shape[1]
    answer_keys, answer_values = layout.append(module.layer_idx, key, value)
    scale = size**-0.5 if scaling is None else scaling
    query_KRGD = (query[0] * scale).view(kept, heads // kept, rows, size).transpose(1, 2)
    sinks = None if s_aux is None else s_aux.view(kept, 1, -1, 1)
    number, outputs = layout.layers.index(module.layer_idx), []
    for bucket, (prompt_bias, answer_bias) in zip(layout.buckets, layout.bias_of(sliding_window), strict=True):
        here = slice(bucket.start, bucket.stop)
        q, k, v = query_KRGD[:, here], bucket.keys[number], bucket.values[number]
        # Scores of prompt and answer are computed apart and share one softmax, so that the result is exact.
        prompt = _by_row(bucket, _by_prompt(bucket, q) @ k.transpose(-1, -2), q.shape)
        answer = q @ answer_keys[:, here].transpose(-1, -2)
        prompt, answer = _masked(prompt, softcap, prompt_bias), _masked(answer, softcap, answer_bias)
        scores = torch.cat((prompt, answer), -1)
        weights = _softmax(scores, sinks).to(value.dtype)
        from_prompt, from_answer = weights.split((k.shape[2], layout.reach), -1)
        output = _by_row(bucket, _by_prompt(bucket, from_prompt) @ v, q.shape)
        outputs.append(output + from_answer @ answer_values[:, here])
    output_KRGD = outputs[0] if len(outputs) == 1 else torch.cat(outputs, 1)
    return output_KRGD.transpose(0, 1).reshape(1, rows, heads, size), None


def _by_prompt(bucket: Bucket, x_KRGX: Tensor) -> Tensor:
    """Bring the rows of a prompt beside each other, for one product with its keys: [K, r, G, X] -> [K, B, n·G, X]."""
    if bucket.slots_BN is not None:
        x_KRGX = x_KRGX[:, bucket.slots_BN]
    return x_KRGX.reshape(x_KRGX.shape[0], bucket.keys[0].shape[1], -1, x_KRGX.shape[-1])


def _by_row(bucket: Bucket, x_KBNX: Tensor, like: torch.Size) -> Tensor:
    """Undo _by_prompt: [K, B, n·G, X] -> [K, r, G, X]. like: the shape that _by_prompt was given."""
    x_KRGX = x_KBNX.reshape(like[0], -1, like[2], x_KBNX.shape[-1])
    return x_KRGX if bucket.slot_of_R is None else x_KRGX[:, bucket.slot_of_R]


def _masked(scores_KRGX: Tensor, softcap: float | None, bias_RX: Tensor | None) -> Tensor:
    """Return the scores, limited as Gemma 2 does (softcap) and minus infinity where they are hidden."""
    if softcap is not None:
        scores_KRGX = torch.tanh(scores_KRGX / softcap) * softcap
    return scores_KRGX if bias_RX is None else scores_KRGX + bias_RX[None, :, None].to(scores_KRGX.dtype)


def _softmax(scores: Tensor, sinks: Tensor | None) -> Tensor:
    if sinks is None:
        return scores.softmax(-1)  # summed in float32 whatever the dtype
    # A sink is one more column that takes weight and gives nothing.
    sinks = sinks.expand(*scores.shape[:-1], 1).to(scores.dtype)
    return torch.cat((scores, sinks), -1).softmax(-1, dtype=torch.float32)[..., :-1]


AttentionInterface.register(SHARED_PREFIX, shared_attention)


def why_not_shared(model) -> str | None:
    """Return None if every attention layer knows its number and has its own keys and values, else the reason.

    The model must also be able to read packed rows (why_not_packed).
    """
    for module in model.modules():
        if type(module).__name__.endswith("Attention") and not isinstance(getattr(module, "layer_idx", None), int):
            return f"{type(module).__name__} does not know the number of its layer"
        if getattr(module, "is_kv_shared_layer", False):
            return f"{type(module).__name__} shares keys and values between layers"
    return None
