"""The keys and values of a batch being decoded: each prompt's are kept once, for all its answers.

Prompts are computed packed, without padding, and then kept in buckets of similar length, so that short prompts are not
padded to a long one. Answers are as long as each other, whatever their prompts are.

Legend: R answers in flight, r of them in a bucket, B prompts of a bucket, P prompt tokens, K heads of keys and values,
D head size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from utils.model.packed_attention import Layout

# A bucket's shortest prompt, as a share of its longest: at most a quarter of its keys and values is padding.
SHORTEST = 0.75
BLOCK = 64  # the least number of places of an answer to make room for


def rounded(size: int, least: int = 1) -> int:
    """Return the smallest of 1, 2, 4, …, 64, 96, 128, 192, 256, 384, … that is at least `size` and `least`."""
    size, power = max(size, least), 1 << (max(size, least) - 1).bit_length()
    return power * 3 // 4 if power > BLOCK and size <= power * 3 // 4 else power


@dataclass
class Bucket:
    """Prompts of similar length and the answers that read them, which are rows `start` to `stop` of a step.

    Args:
        lengths_B: of the prompts in tokens, [B].
        start: first row.
        stop: the row after the last.
        prompt_of_R: which of the B prompts each row belongs to.
        keys: of each layer, [K, B, P, D].
        values: of each layer, [K, B, P, D].
        slots_BN: the rows of each prompt, filled up with row 0; None where all prompts have equally many.
        slot_of_R: where in slots_BN each row is; None where all prompts have equally many.
        even: whether all prompts are as long as the longest.
    """

    lengths_B: Tensor
    start: int
    stop: int
    prompt_of_R: Tensor
    keys: list[Tensor] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)
    slots_BN: Tensor | None = None
    slot_of_R: Tensor | None = None
    even: bool = True

    def arrange(self) -> None:
        """Set `slots_BN`, `slot_of_R` and `even`, after rows have come or left."""
        self.even = int(self.lengths_B.min()) == self.keys[0].shape[2]
        counts_B = torch.bincount(self.prompt_of_R, minlength=len(self.lengths_B))
        if bool((counts_B == counts_B[0]).all()):
            self.slots_BN = self.slot_of_R = None
            return
        first_B, rows = counts_B.cumsum(0) - counts_B, torch.arange(len(self.prompt_of_R), device=counts_B.device)
        self.slot_of_R = self.prompt_of_R * int(counts_B.max()) + rows - first_B[self.prompt_of_R]
        self.slots_BN = rows.new_zeros(len(counts_B) * int(counts_B.max()))
        self.slots_BN[self.slot_of_R] = rows


class SharedCache:
    """The keys and values of a batch being decoded; those of the answers grow with the longest of them.

    `order[r]` is the number, among all answers, of row r: prompts are sorted by length, longest first, and rows leave.

    Args:
        lengths: of the prompts in tokens.
        copies: answers to each prompt.
        room: longest answer in tokens.
        device: of every tensor.
    """

    # `reach` ends at the step's own place, so that without a window no place of an answer is hidden.
    exact = True

    def __init__(self, lengths: Sequence[int], copies: int, room: int, device: torch.device) -> None:
        self.lengths, self.copies, self.room, self.device = list(lengths), copies, room, device
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
        """Divide the prompts that were read into buckets; keys and values are padded to the longest of a bucket."""
        groups: list[list[int]] = []
        for i in self.sorted:
            if not groups or self.lengths[i] < SHORTEST * self.lengths[groups[-1][0]]:
                groups.append([])
            groups[-1].append(i)
        for members in groups:
            start = self.buckets[-1].stop if self.buckets else 0
            lengths = torch.tensor([self.lengths[m] for m in members], device=self.device)
            prompt_of_R = torch.arange(len(members), device=self.device).repeat_interleave(self.copies)
            self.buckets.append(Bucket(lengths, start=start, stop=start + len(prompt_of_R), prompt_of_R=prompt_of_R))
        self.layers = sorted(self.read)
        for layer in self.layers:
            keys, values = self._read_of(layer)
            for bucket, members in zip(self.buckets, groups, strict=True):
                bucket.keys.append(_padded([keys[m] for m in members]))
                bucket.values.append(_padded([values[m] for m in members]))
        for bucket in self.buckets:
            bucket.arrange()

    def _read_of(self, layer: int) -> list[tuple[Tensor, ...]]:
        """Return (keys, values) of a layer, each a tensor [K, P, D] for every prompt; the packed rows are let go."""
        keys, values = zip(*self.read.pop(layer), strict=True)
        return [torch.cat(keys, 1).split(self.lengths, 1), torch.cat(values, 1).split(self.lengths, 1)]

    def at(self, step: int, reach: int) -> None:
        """Go on to place `step` of the answers, looking at `reach` places."""
        self.step.fill_(step)
        self.reach, self.bias = reach, {}

    def keep(self, rows: Tensor) -> None:
        """Keep `rows` (ascending) and drop the others."""
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
        """Put a step's keys and values, [1, K, R, D], at its place; return all that is looked at, [K, R, reach, D]."""
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
        """Return for each bucket what is added to the scores of its prompts, [r, P], and of its answers, [1, reach].

        It is −inf at padding and outside the window, else 0; None where nothing is hidden. Made once a step, read by
        every layer. window: of sliding-window attention, in positions.
        """
        if window not in self.bias:
            places = torch.arange(self.reach, device=self.device)
            hidden = places > self.step
            if window is not None:
                hidden |= places <= self.step - window
            if self.exact and (window is None or self.reach <= window):
                answer = None
            else:
                answer = _minus_infinity(hidden)[None]
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
    """Return the parts, each [K, P_i, D], as [K, B, longest, D] with zeros behind the shorter ones."""
    whole = parts[0].new_zeros(parts[0].shape[0], len(parts), max(p.shape[1] for p in parts), parts[0].shape[2])
    for number, part in enumerate(parts):
        whole[:, number, : part.shape[1]] = part
    return whole


def _minus_infinity(hidden: Tensor) -> Tensor:
    return torch.zeros(hidden.shape, device=hidden.device).masked_fill_(hidden, float("-inf"))
