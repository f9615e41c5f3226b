"""Decoding in tensors that stay where they are, as CUDA graphs need them: prompts and answers padded to few shapes.

A step has a slot for `copies` answers of each of `prompts` prompts. An answer that ends leaves its slot empty, and the
batch is packed anew only when fewer prompts, or fewer answers of each, fit the next smaller shape. Empty slots compute
numbers that are never read. Every tensor is the beginning of a flat buffer, so a smaller shape lies where a larger one
lay.

Legend: R answers in flight, B prompts, T places of an answer, K heads of keys and values, D head size.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from utils.generation.shared_attention import BLOCK, Bucket, Cascade, rounded

WASTE = 4  # more places padded for each one read, and prompts are better kept in buckets, without a graph


@dataclass(frozen=True)
class Shape:
    """Of a step. While answers are generated prompts and copies only fall and the reach only grows, each through the
    sizes of `rounded` and `reach_of`: a batch of B prompts with N answers each and room for T tokens meets at most
    sizes(B) + sizes(N) + reaches(T) − 2 shapes."""

    prompts: int
    copies: int
    places: int  # of the longest prompt
    reach: int  # places of an answer that are looked at

    @property
    def slots(self) -> int:
        return self.prompts * self.copies


def reach_of(place: int, room: int) -> int:
    """64, 128, 256, … places, but no more than the answers' `room`, so that `place` is among them."""
    return min(max(BLOCK, 1 << place.bit_length()), room)


def shape_of(lengths: Sequence[int], copies: int, room: int) -> Shape:
    """The shape that prompts of these lengths begin with."""
    return Shape(rounded(len(lengths)), rounded(copies), rounded(max(lengths), BLOCK), reach_of(0, room))


def why_not_slots(lengths: Sequence[int]) -> str | None:
    """None if these prompts may be padded to one shape, else the reason."""
    padded, read = rounded(len(lengths)) * rounded(max(lengths), BLOCK), sum(max(n, BLOCK) for n in lengths)
    if padded > WASTE * read:
        return f"prompts of {min(lengths)} to {max(lengths)} tokens would take {padded / read:.1f} times their places"
    return None


class Arena:
    """Flat buffers by name. A view takes the beginning of its buffer; `moved` counts the buffers that had to be made
    anew, because they were too small: what was captured before it changed reads memory that is gone."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.flat, self.moved = device, {}, 0

    def view(self, name: Hashable, shape: Sequence[int], dtype: torch.dtype = torch.int64) -> Tensor:
        """Contiguous, with whatever stood there before."""
        size, flat = math.prod(shape), self.flat.get(name)
        if flat is None or len(flat) < size or flat.dtype != dtype:
            del flat
            self.flat.pop(name, None)  # let go before the larger one is made
            self.flat[name] = flat = torch.zeros(size, dtype=dtype, device=self.device)
            self.moved += 1
        return flat[:size].view(*shape)

    @property
    def bytes(self) -> int:
        return sum(flat.nbytes for flat in self.flat.values())


class Slots(Cascade):
    """A Cascade whose tensors lie in an Arena. `slot_of_R`: where each answer in flight is computed."""

    exact = False

    def __init__(self, lengths: Sequence[int], copies: int, room: int, device: torch.device, arena: Arena) -> None:
        super().__init__(lengths, copies, room, device)
        self.arena, self.shape = arena, shape_of(lengths, copies, room)
        self.step = arena.view("step", (1,))

    def fill(self) -> None:
        """Put the prompts that were read, longest first, into one bucket of the first shape."""
        lengths_B = torch.tensor([self.lengths[i] for i in self.sorted], device=self.device)
        prompt_of_R = torch.arange(len(self.lengths), device=self.device).repeat_interleave(self.copies)
        self.layers = sorted(self.read)
        keys, values = [], []
        for layer in self.layers:
            for side, prompts, kept, answers in zip(
                "kv", self._read_of(layer), (keys, values), (self.keys, self.values), strict=True
            ):
                heads, _, size = prompts[0].shape
                whole = self._prompts_view(side, layer, heads, size, prompts[0].dtype)
                for number, i in enumerate(self.sorted):
                    whole[:, number, : self.lengths[i]] = prompts[i]
                kept.append(whole)
                answers[layer] = self._answers_view(side, layer, whole)
        self._arrange(lengths_B, prompt_of_R, keys, values)

    def at(self, step: int, reach: int | None = None) -> None:
        """Go on to place `step` of the answers; the shape's reach grows when it must."""
        needed = reach_of(step, self.room)
        if needed != self.shape.reach:
            self._move(dataclasses.replace(self.shape, reach=needed), None, self.slot_of_R)
        super().at(step, needed)

    def keep(self, rows: Tensor) -> None:
        """Only `rows` (ascending) go on; they change places when the next smaller shape holds them."""
        (bucket,) = self.buckets
        self.order, sources_R = self.order[rows], self.slot_of_R[rows]
        used, prompt_of_R = bucket.prompt_of_R[rows].unique(return_inverse=True)
        copies = rounded(int(torch.bincount(prompt_of_R).max()))
        shape = dataclasses.replace(self.shape, prompts=rounded(len(used)), copies=copies)
        if shape == self.shape:
            self.slot_of_R, bucket.prompt_of_R = sources_R, bucket.prompt_of_R[rows]
        else:
            bucket.prompt_of_R = prompt_of_R
            self._move(shape, used, sources_R)

    def frozen(self) -> Slots:
        """As a graph sees it: the tensors of now, whatever shape comes next."""
        now = copy.copy(self)
        now.keys, now.values, now.buckets = dict(self.keys), dict(self.values), list(self.buckets)
        return now

    def _move(self, shape: Shape, used: Tensor | None, sources_R: Tensor) -> None:
        """Into another shape: answers from the slots where they are, of the prompts `used` (None: all as they are)."""
        (bucket,) = self.buckets
        places, self.shape = min(self.shape.reach, shape.reach), shape
        lengths_B = bucket.lengths_B if used is None else bucket.lengths_B[used]
        keys, values = bucket.keys, bucket.values
        if used is not None:
            keys, values = (
                [self._prompts_again(side, layer, x, used) for layer, x in zip(self.layers, kept, strict=True)]
                for side, kept in (("k", keys), ("v", values))
            )
        self._arrange(lengths_B, bucket.prompt_of_R, keys, values)
        for side, answers in (("k", self.keys), ("v", self.values)):
            for layer, before in answers.items():
                moved = before[:, :, :places].index_select(1, sources_R)
                answers[layer] = self._answers_view(side, layer, before)
                answers[layer][:, :, :places].index_copy_(1, self.slot_of_R, moved)

    def _arrange(self, lengths_B: Tensor, prompt_of_R: Tensor, keys: list[Tensor], values: list[Tensor]) -> None:
        """Give each answer in flight a slot of its prompt; a slot without a prompt has length 0."""
        shape, counts_B = self.shape, torch.bincount(prompt_of_R, minlength=len(lengths_B))
        first_B, rows = counts_B.cumsum(0) - counts_B, torch.arange(len(prompt_of_R), device=self.device)
        self.slot_of_R = prompt_of_R * shape.copies + rows - first_B[prompt_of_R]
        self.length_R = self.arena.view("lengths", (shape.slots,)).zero_()
        self.length_R[: len(lengths_B) * shape.copies] = lengths_B.repeat_interleave(shape.copies)
        self.tokens_R = self.arena.view("tokens", (shape.slots,)).zero_()
        self.buckets = [Bucket(lengths_B, 0, shape.slots, prompt_of_R, keys, values, even=False)]

    def _prompts_view(self, side: str, layer: int, heads: int, size: int, dtype: torch.dtype) -> Tensor:
        shape = (heads, self.shape.prompts, self.shape.places, size)
        return self.arena.view(("prompts", side, layer), shape, dtype).zero_()

    def _prompts_again(self, side: str, layer: int, before: Tensor, used: Tensor) -> Tensor:
        kept = before.index_select(1, used)
        whole = self._prompts_view(side, layer, before.shape[0], before.shape[3], before.dtype)
        whole[:, : len(used)] = kept
        return whole

    def _answers_view(self, side: str, layer: int, like: Tensor) -> Tensor:
        """Zeros: what is hidden is still multiplied, by weights of 0, and must be finite."""
        shape = (like.shape[0], self.shape.slots, self.shape.reach, like.shape[3])
        return self.arena.view(("answers", side, layer), shape, like.dtype).zero_()
