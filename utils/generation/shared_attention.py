"""Attention for decoding many answers of few prompts: each prompt's keys and values stand once, for all its answers.

A step is one row of R tokens, one of each answer that is still being written; every token sees its prompt and its own
answer so far. Prompts are computed packed, without padding, and then kept in buckets of similar length, so that a long
prompt does not make short ones wait; answers are as long as each other, whatever their prompts are. Registered with
transformers under the name CASCADE; the keys and values come along as the keyword `layout`, as a packed row's Layout
does. Juravsky et al. 2024 (Hydragen), arXiv:2402.05099, names the decomposition.

Legend: R answers in flight, B prompts of a bucket, n answers of a prompt, P prompt tokens, T answer tokens so far,
H heads, K heads of keys and values, G = H / K, D head size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers import AttentionInterface

from utils.model.packed_attention import Layout, packed_attention

CASCADE = "cascade_decoding"
SHORTEST = 0.75  # of a bucket's longest prompt: shorter ones go to the next bucket
BLOCK = 64  # the first places of an answer that are made room for


def rounded(size: int, least: int = 1) -> int:
    """The smallest of 1, 2, 4, …, 64, 96, 128, 192, 256, 384, … that is at least `size` and `least`."""
    size, power = max(size, least), 1 << (max(size, least) - 1).bit_length()
    return power * 3 // 4 if power > BLOCK and size <= power * 3 // 4 else power


@dataclass
class Bucket:
    """Prompts of similar length and the answers that read them: rows `start` to `stop` of a step."""

    lengths_B: Tensor
    start: int
    stop: int
    prompt_of_R: Tensor  # which of the B each of its rows belongs to
    keys: list[Tensor] = field(default_factory=list)  # of each layer, [K, B, P, D]
    values: list[Tensor] = field(default_factory=list)
    slots_BN: Tensor | None = None  # rows of each prompt, filled up with row 0; None: every prompt has as many
    slot_of_R: Tensor | None = None
    even: bool = True  # no prompt is shorter than the longest

    def arrange(self) -> None:
        """Find slots and evenness, after rows have come or left."""
        self.even = int(self.lengths_B.min()) == self.keys[0].shape[2]
        counts_B = torch.bincount(self.prompt_of_R, minlength=len(self.lengths_B))
        if bool((counts_B == counts_B[0]).all()):
            self.slots_BN = self.slot_of_R = None
            return
        first_B, rows = counts_B.cumsum(0) - counts_B, torch.arange(len(self.prompt_of_R), device=counts_B.device)
        self.slot_of_R = self.prompt_of_R * int(counts_B.max()) + rows - first_B[self.prompt_of_R]
        self.slots_BN = rows.new_zeros(len(counts_B) * int(counts_B.max()))
        self.slots_BN[self.slot_of_R] = rows


class Cascade:
    """The keys and values of a batch being decoded. `order[r]` is the number, among all answers, of row r: prompts are
    sorted by length, longest first, and rows leave. The store of the answers grows with the longest of them."""

    exact = True  # `reach` ends at the step's own place: without a window no place of an answer is hidden

    def __init__(self, lengths: Sequence[int], copies: int, max_new_tokens: int, device: torch.device) -> None:
        self.lengths, self.copies, self.room, self.device = list(lengths), copies, max_new_tokens, device
        self.sorted = sorted(range(len(lengths)), key=lambda i: -lengths[i])
        self.order = torch.tensor([i * copies + c for i in self.sorted for c in range(copies)], device=device)
        self.length_R = torch.tensor([lengths[i] for i in self.sorted for _ in range(copies)], device=device)
        self.packed: Layout | None = None  # while prompts are read
        self.read: dict[int, list[tuple[Tensor, Tensor]]] = {}  # layer -> keys and values of packed rows of prompts
        self.buckets: list[Bucket] = []
        self.keys: dict[int, Tensor] = {}  # layer -> [K, R, reach or more, D]
        self.values: dict[int, Tensor] = {}
        self.step = torch.zeros(1, dtype=torch.int64, device=device)  # the place of the token being computed
        self.reach = 0  # places of an answer that are looked at: step + 1, or more, the rest being masked
        self.bias: dict[int | None, list[tuple[Tensor | None, Tensor | None]]] = {}

    def fill(self) -> None:
        """Sort the prompts that were read into buckets; keys and values are padded to the longest of a bucket."""
        groups: list[list[int]] = []
        for i in self.sorted:
            if not groups or self.lengths[i] < SHORTEST * self.lengths[groups[-1][0]]:
                groups.append([])
            groups[-1].append(i)
        for members in groups:
            start = self.buckets[-1].stop if self.buckets else 0
            lengths = torch.tensor([self.lengths[m] for m in members], device=self.device)
            prompt_of_R = torch.arange(len(members), device=self.device).repeat_interleave(self.copies)
            self.buckets.append(Bucket(lengths, start, start + len(prompt_of_R), prompt_of_R))
        self.layers = sorted(self.read)
        for layer in self.layers:
            keys, values = self._read_of(layer)
            for bucket, members in zip(self.buckets, groups, strict=True):
                bucket.keys.append(_padded([keys[m] for m in members]))
                bucket.values.append(_padded([values[m] for m in members]))
        for bucket in self.buckets:
            bucket.arrange()

    def _read_of(self, layer: int) -> list[tuple[Tensor, ...]]:
        """The keys and the values of each prompt in turn, [K, P, D]; the packed rows of the layer are let go."""
        return [torch.cat(rows, 1).split(self.lengths, 1) for rows in zip(*self.read.pop(layer), strict=True)]

    def at(self, step: int, reach: int) -> None:
        """Go on to place `step` of the answers, looking at `reach` places."""
        self.step.fill_(step)
        self.reach, self.bias = reach, {}

    def keep(self, rows: Tensor) -> None:
        """Only `rows` (ascending) go on."""
        self.order, self.length_R = self.order[rows], self.length_R[rows]
        for cache in (self.keys, self.values):
            for layer, kept in cache.items():
                cache[layer] = kept.index_select(1, rows)
        start, buckets = 0, []
        for bucket in self.buckets:
            mine = rows[(rows >= bucket.start) & (rows < bucket.stop)] - bucket.start
            used, prompt_of_R = bucket.prompt_of_R[mine].unique(return_inverse=True)
            if not len(mine):
                continue
            if len(used) < len(bucket.lengths_B):
                bucket.keys = [k.index_select(1, used) for k in bucket.keys]
                bucket.values = [v.index_select(1, used) for v in bucket.values]
                bucket.lengths_B = bucket.lengths_B[used]
            bucket.prompt_of_R, bucket.start, bucket.stop = prompt_of_R, start, start + len(mine)
            bucket.arrange()
            buckets.append(bucket)
            start = bucket.stop
        self.buckets = buckets

    def append(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Put a step's keys and values, [1, K, R, D], at its place; returns all that is looked at, [K, R, reach, D]."""
        for cache, new in ((self.keys, key[0]), (self.values, value[0])):
            kept = cache.get(layer)
            if kept is None or kept.shape[2] < self.reach:
                room = min(rounded(self.reach, BLOCK), self.room)
                cache[layer] = new.new_zeros(new.shape[0], new.shape[1], room, new.shape[2])
                if kept is not None:
                    cache[layer][:, :, : kept.shape[2]] = kept
            cache[layer].index_copy_(2, self.step, new[:, :, None])
        return self.keys[layer][:, :, : self.reach], self.values[layer][:, :, : self.reach]

    def bias_of(self, window: int | None) -> list[tuple[Tensor | None, Tensor | None]]:
        """For each bucket what is added to the scores of prompt [r, P] and answer [1, reach]: 0, or −inf where nothing
        stands or the window ends; None where nothing is hidden. Made once a step, read by every layer."""
        if window not in self.bias:
            places = torch.arange(self.reach, device=self.device)
            hidden = places > self.step
            if window is not None:
                hidden |= places <= self.step - window
            answer = None if self.exact and (window is None or self.reach <= window) else _minus_infinity(hidden)[None]
            self.bias[window] = [(self._prompt_bias(b, window), answer) for b in self.buckets]
        return self.bias[window]

    def _prompt_bias(self, bucket: Bucket, window: int | None) -> Tensor | None:
        longest = bucket.keys[0].shape[2]
        if window is None and bucket.even:
            return None
        places, length_R = torch.arange(longest, device=self.device), self.length_R[bucket.start : bucket.stop, None]
        hidden = places >= length_R
        if window is not None:
            hidden |= places <= length_R + self.step - window
        return _minus_infinity(hidden)


def _padded(parts: list[Tensor]) -> Tensor:
    """[K, P_i, D] each -> [K, B, longest, D], zeros behind."""
    whole = parts[0].new_zeros(parts[0].shape[0], len(parts), max(p.shape[1] for p in parts), parts[0].shape[2])
    for number, part in enumerate(parts):
        whole[:, number, : part.shape[1]] = part
    return whole


def _minus_infinity(hidden: Tensor) -> Tensor:
    return torch.zeros(hidden.shape, device=hidden.device).masked_fill_(hidden, float("-inf"))


def cascade_attention(
    module, query, key, value, attention_mask, scaling=None, dropout=0.0, sliding_window=None, softcap=None,
    s_aux=None, layout: Cascade | None = None, **_,
):  # fmt: skip
    """transformers' attention function. query [1, H, R, D], key and value [1, K, R, D] -> ([1, R, H, D], None)."""
    if layout is None:
        raise RuntimeError(f"{type(module).__name__} does not pass `layout` to its attention function")
    if layout.packed is not None:
        layout.read.setdefault(module.layer_idx, []).append((key[0], value[0]))
        return packed_attention(
            module, query, key, value, None, scaling, dropout, sliding_window, softcap, s_aux, layout.packed
        )
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
        prompt = _of_rows(bucket, _by_prompt(bucket, q) @ k.transpose(-1, -2), q.shape)
        answer = q @ answer_keys[:, here].transpose(-1, -2)
        scores = torch.cat((_bent(prompt, softcap, prompt_bias), _bent(answer, softcap, answer_bias)), -1)
        weights = _softmax(scores, sinks).to(value.dtype)
        from_prompt, from_answer = weights.split((k.shape[2], layout.reach), -1)
        output = _of_rows(bucket, _by_prompt(bucket, from_prompt) @ v, q.shape)
        outputs.append(output + from_answer @ answer_values[:, here])
    output_KRGD = outputs[0] if len(outputs) == 1 else torch.cat(outputs, 1)
    return output_KRGD.transpose(0, 1).reshape(1, rows, heads, size), None


def _by_prompt(bucket: Bucket, x_KRGX: Tensor) -> Tensor:
    """[K, r, G, X] -> [K, B, n·G, X]: the rows of a prompt beside each other, for one product with its keys."""
    if bucket.slots_BN is not None:
        x_KRGX = x_KRGX[:, bucket.slots_BN]
    return x_KRGX.reshape(x_KRGX.shape[0], bucket.keys[0].shape[1], -1, x_KRGX.shape[-1])


def _of_rows(bucket: Bucket, x_KBNX: Tensor, like: torch.Size) -> Tensor:
    """The way back: [K, B, n·G, X] -> [K, r, G, X]."""
    x_KRGX = x_KBNX.reshape(like[0], -1, like[2], x_KBNX.shape[-1])
    return x_KRGX if bucket.slot_of_R is None else x_KRGX[:, bucket.slot_of_R]


def _bent(scores_KRGX: Tensor, softcap: float | None, bias_RX: Tensor | None) -> Tensor:
    if softcap is not None:
        scores_KRGX = torch.tanh(scores_KRGX / softcap) * softcap
    return scores_KRGX if bias_RX is None else scores_KRGX + bias_RX[None, :, None].to(scores_KRGX.dtype)


def _softmax(scores: Tensor, sinks: Tensor | None) -> Tensor:
    if sinks is None:
        return scores.softmax(-1)  # summed in float32 whatever the dtype
    sinks = sinks.expand(*scores.shape[:-1], 1).to(scores.dtype)  # one more column that takes weight and gives nothing
    return torch.cat((scores, sinks), -1).softmax(-1, dtype=torch.float32)[..., :-1]


AttentionInterface.register(CASCADE, cascade_attention)


def why_not_shared(model) -> str | None:
    """On top of attention.why_not_packed: None if every attention layer knows its number, else the reason."""
    for module in model.modules():
        if type(module).__name__.endswith("Attention") and not isinstance(getattr(module, "layer_idx", None), int):
            return f"{type(module).__name__} does not know the number of its layer"
        if getattr(module, "is_kv_shared_layer", False):
            return f"{type(module).__name__} shares keys and values between layers"
    return None
