"""A SharedCache in tensors that stay where they are, as CUDA graphs need it: prompts and answers padded to few shapes.

A step has a slot for `copies` answers of each of `prompts` prompts. An answer that ends leaves its slot empty, and the
batch is packed anew only when fewer prompts, or fewer answers of each, fit the next smaller shape. Empty slots compute
numbers that are never read. Every tensor is the beginning of a flat buffer, so that a smaller shape takes the memory of
a larger one.

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

from utils.generation.shared_cache import BLOCK, Bucket, SharedCache, rounded

# Above this many padded places for each one that is read, buckets without a graph are the better way.
WASTE = 4


@dataclass(frozen=True)
class StepShape:
    """The shape of a step.

    While answers are generated prompts and copies only fall and the reach only grows, each through the sizes of
    `rounded` and `reach_of`: a batch of B prompts with N answers each and room for T tokens meets at most
    sizes(B) + sizes(N) + reaches(T) − 2 shapes.

    Args:
        prompts: how many prompts there is room for.
        copies: how many answers of each.
        places: tokens of the longest prompt.
        reach: places of an answer that are looked at.
    """

    prompts: int
    copies: int
    places: int
    reach: int

    @property
    def slots(self) -> int:
        """Return how many answers there is room for."""
        return self.prompts * self.copies


def reach_of(place: int, room: int) -> int:
    """Return 64, 128, 256, … places, but no more than the answers' `room`, so that `place` is among them."""
    return min(max(BLOCK, 1 << place.bit_length()), room)


def shape_of(lengths: Sequence[int], copies: int, room: int) -> StepShape:
    """Return the shape that prompts of these lengths begin with."""
    places = rounded(max(lengths), BLOCK)
    return StepShape(rounded(len(lengths)), rounded(copies), places, reach=reach_of(0, room))


def why_not_slots(lengths: Sequence[int]) -> str | None:
    """Return None if these prompts may be padded to one shape, else the reason."""
    padded, read = rounded(len(lengths)) * rounded(max(lengths), BLOCK), sum(max(n, BLOCK) for n in lengths)
    if padded > WASTE * read:
        return f"prompts of {min(lengths)} to {max(lengths)} tokens would take {padded / read:.1f} times their places"
    return None


class Buffers:
    """Flat buffers by name; a view takes the beginning of its buffer.

    `moved` counts the buffers that had to be made anew because they were too small: a graph that was captured before
    `moved` changed reads memory that is gone.
    """

    def __init__(self, device: torch.device) -> None:
        self.device, self.flat, self.moved = device, {}, 0

    def view(self, name: Hashable, shape: Sequence[int], dtype: torch.dtype = torch.int64) -> Tensor:
        """Return the beginning of a buffer in this shape, contiguous, with the numbers that it held before."""
        size, flat = math.prod(shape), self.flat.get(name)
        if flat is None or len(flat) < size or flat.dtype != dtype:
            # The smaller buffer is let go before the larger one is made, so that both never take memory together.
            del flat
            self.flat.pop(name, None)
            self.flat[name] = flat = torch.zeros(size, dtype=dtype, device=self.device)
            self.moved += 1
        return flat[:size].view(*shape)

    @property
    def bytes(self) -> int:
        """The size of all buffers together."""
        return sum(flat.nbytes for flat in self.flat.values())


class Slots(SharedCache):
    """A SharedCache whose tensors are views of Buffers.

    `slot_of_R` says in which slot each answer in flight is computed.

    Args:
        lengths: of the prompts in tokens.
        copies: answers to each prompt.
        room: longest answer in tokens.
        device: of every tensor.
        buffers: the memory, which may have served another batch.
    """

    exact = False

    def __init__(self, lengths: Sequence[int], copies: int, room: int, device: torch.device, buffers: Buffers) -> None:
        super().__init__(lengths, copies, room=room, device=device)
        self.buffers, self.shape = buffers, shape_of(lengths, copies, room)
        self.step = buffers.view("step", (1,))

    def fill(self) -> None:
        """Put the prompts that were read, longest first, into one bucket of the first shape."""
        lengths_B = torch.tensor([self.lengths[i] for i in self.sorted], device=self.device)
        prompt_of_R = torch.arange(len(self.lengths), device=self.device).repeat_interleave(self.copies)
        self.layers = sorted(self.read)
        keys, values = [], []
        for layer in self.layers:
            read_keys, read_values = self._read_of(layer)
            for side, prompts, kept, answers in (
                ("k", read_keys, keys, self.keys),
                ("v", read_values, values, self.values),
            ):
                whole = self._prompts_view(side, layer, prompts[0])
                for number, i in enumerate(self.sorted):
                    whole[:, number, : self.lengths[i]] = prompts[i]
                kept.append(whole)
                answers[layer] = self._answers_view(side, layer, whole)
        self._arrange(lengths_B, prompt_of_R, keys=keys, values=values)

    def at(self, step: int, reach: int | None = None) -> None:
        """Go on to place `step` of the answers; the shape's reach grows when it must."""
        needed = reach_of(step, self.room)
        if needed != self.shape.reach:
            self._move(dataclasses.replace(self.shape, reach=needed), None, self.slot_of_R)
        super().at(step, needed)

    def keep(self, rows: Tensor) -> None:
        """Keep `rows` (ascending); they change places when the next smaller shape holds them."""
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
        """Return a copy with the tensors of now, as a graph reads them, whatever shape comes next."""
        now = copy.copy(self)
        now.keys, now.values, now.buckets = dict(self.keys), dict(self.values), list(self.buckets)
        return now

    def _move(self, shape: StepShape, used: Tensor | None, sources_R: Tensor) -> None:
        """Go over to another shape, with the answers in the slots sources_R and the prompts `used` (None: all)."""
        (bucket,) = self.buckets
        places, self.shape = min(self.shape.reach, shape.reach), shape
        lengths_B, keys, values = bucket.lengths_B, bucket.keys, bucket.values
        if used is not None:
            lengths_B = lengths_B[used]
            keys, values = self._prompts_again("k", keys, used), self._prompts_again("v", values, used)
        self._arrange(lengths_B, bucket.prompt_of_R, keys=keys, values=values)
        for side, answers in (("k", self.keys), ("v", self.values)):
            for layer, before in answers.items():
                moved = before[:, :, :places].index_select(1, sources_R)
                answers[layer] = self._answers_view(side, layer, before)
                answers[layer][:, :, :places].index_copy_(1, self.slot_of_R, moved)

    def _arrange(self, lengths_B: Tensor, prompt_of_R: Tensor, keys: list[Tensor], values: list[Tensor]) -> None:
        """Give each answer in flight a slot of its prompt; a slot without a prompt has length 0.

        Args:
            lengths_B: of the prompts in tokens.
            prompt_of_R: the prompt of each answer in flight, ascending.
            keys: of the prompts, for each layer [K, B, P, D].
            values: of the prompts, for each layer [K, B, P, D].
        """
        shape, counts_B = self.shape, torch.bincount(prompt_of_R, minlength=len(lengths_B))
        first_B, rows = counts_B.cumsum(0) - counts_B, torch.arange(len(prompt_of_R), device=self.device)
        self.slot_of_R = prompt_of_R * shape.copies + rows - first_B[prompt_of_R]
        self.length_R = self.buffers.view("lengths", (shape.slots,)).zero_()
        self.length_R[: len(lengths_B) * shape.copies] = lengths_B.repeat_interleave(shape.copies)
        self.tokens_R = self.buffers.view("tokens", (shape.slots,)).zero_()
        self.buckets = [
            Bucket(lengths_B, start=0, stop=shape.slots, prompt_of_R=prompt_of_R, keys=keys, values=values, even=False)
        ]

    def _prompts_view(self, side: str, layer: int, like: Tensor) -> Tensor:
        """Return zeros for the keys or values of a layer's prompts; like: [K, …, D], for their sizes and dtype."""
        shape = (like.shape[0], self.shape.prompts, self.shape.places, like.shape[-1])
        return self.buffers.view(("prompts", side, layer), shape, like.dtype).zero_()

    def _prompts_again(self, side: str, of_layers: list[Tensor], used: Tensor) -> list[Tensor]:
        """Return the keys or values of the prompts `used`, for each layer, in the shape of now."""
        found = []
        for layer, before in zip(self.layers, of_layers, strict=True):
            # Copied first: the new view may begin in the same memory.
            kept = before.index_select(1, used)
            whole = self._prompts_view(side, layer, before)
            whole[:, : len(used)] = kept
            found.append(whole)
        return found

    def _answers_view(self, side: str, layer: int, like: Tensor) -> Tensor:
        """Return zeros for the keys or values of a layer's answers."""
        # Hidden places are still multiplied, by weights of 0, so that they must be finite.
        shape = (like.shape[0], self.shape.slots, self.shape.reach, like.shape[3])
        return self.buffers.view(("answers", side, layer), shape, like.dtype).zero_()
