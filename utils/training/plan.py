"""Which groups make which optimizer step, for all ranks alike."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from utils.model.batch import Batch, collate


@dataclass(frozen=True)
class MicroBatch:
    """One forward and backward pass: the numbers of its groups, its weight (0 fills the turn of a rank that has fewer),
    and, where a single group exceeds the token budget, which part of that group."""

    rows: tuple[int, ...]
    weight: float = 1.0
    part: int | None = None


@dataclass(frozen=True)
class Step:
    """One optimizer step of one rank."""

    micro_batches: list[MicroBatch]
    units: int  # what the loss is averaged over, of all ranks together
    tokens: int  # the same, packed tokens


class Plan:
    """Which groups make which step: a pure function of (sizes, options, seed), so that a position in the data is a step
    number, every rank knows the whole plan without asking, and the loss's denominator is known before the first
    backward.

    Epochs are permutations; a step takes the next `per_step` groups (the last of an epoch takes what is left); ranks
    get equal counts, balanced by tokens; forward passes hold `per_device` groups, or as many as fit `token_budget`, and
    a group that exceeds it is split (Group.split), keep_pairs so that no pair is divided.
    """

    def __init__(self, groups, tokens, units, *, per_device, accumulation, token_budget, world, seed, epochs, max_steps,
                 per_step=None, keep_pairs=False):  # fmt: skip
        self.groups, self.keep_pairs = groups, keep_pairs
        self.tokens, self.units = np.asarray(tokens), np.asarray(units)
        large = np.flatnonzero(self.tokens > token_budget).tolist() if token_budget else []
        self.parts = {row: len(groups[row].split(token_budget, keep_pairs)) for row in large}
        self.per_device, self.token_budget, self.world, self.seed = per_device, token_budget, world, seed
        self.per_step = per_step or per_device * accumulation * world
        self.steps_per_epoch = max(1, -(-len(self.tokens) // self.per_step))
        whole = round(epochs * self.steps_per_epoch)
        self._order = (-1, np.zeros(0, np.int64))  # (epoch, its permutation)
        self.total_steps = max_steps if max_steps > 0 else max(1, whole)

    def epoch_ended(self, step: int) -> int | None:
        """The number of the epoch (from 1) that step `step` (from 1) ended; the last step ends the last one begun."""
        if step % self.steps_per_epoch == 0:
            return step // self.steps_per_epoch
        return step // self.steps_per_epoch + 1 if step == self.total_steps else None

    def step(self, number: int, rank: int) -> Step:
        """Step `number` (from 1) as `rank` sees it."""
        epoch, place = divmod(number - 1, self.steps_per_epoch)
        if self._order[0] != epoch:
            self._order = (epoch, np.random.default_rng([self.seed, epoch]).permutation(len(self.tokens)))
        chosen = self._order[1][place * self.per_step : (place + 1) * self.per_step]
        shares = [self._micro_batches(share) for share in self._deal(chosen)]
        count = max(map(len, shares))
        smallest = int(chosen[self.tokens[chosen].argmin()])
        part = 0 if smallest in self.parts else None
        filling = [MicroBatch((smallest,), 0.0, part)] * (count - len(shares[rank]))
        return Step(shares[rank] + filling, int(self.units[chosen].sum()), int(self.tokens[chosen].sum()))

    def batch(self, micro: MicroBatch, packed: bool) -> Batch:
        groups = [self.groups[row] for row in micro.rows]
        if micro.part is not None:
            groups = [groups[0].split(self.token_budget, self.keep_pairs)[micro.part]]
        return collate(groups, micro.rows, packed, micro.weight)

    def _deal(self, chosen: np.ndarray) -> list[list[int]]:
        """To each rank, longest first, to the one with the fewest tokens that still has room."""
        room, shares, load = -(-len(chosen) // self.world), [[] for _ in range(self.world)], np.zeros(self.world)
        for row in chosen[np.argsort(-self.tokens[chosen], kind="stable")]:
            open_ranks = [r for r in range(self.world) if len(shares[r]) < room]
            taker = min(open_ranks, key=lambda r: load[r])
            shares[taker].append(int(row))
            load[taker] += self.tokens[row]
        return shares

    def _micro_batches(self, share: list[int]) -> list[MicroBatch]:
        if not self.token_budget:
            starts = range(0, len(share), self.per_device)
            return [MicroBatch(tuple(share[i : i + self.per_device])) for i in starts]
        split = [MicroBatch((row,), 1.0, part) for row in share for part in range(self.parts.get(row, 0))]
        bins: list[tuple[int, list[int]]] = []
        for row in share:  # first fit, longest first
            if row in self.parts:
                continue
            size = int(self.tokens[row])
            fits = next((i for i, (used, _) in enumerate(bins) if used + size <= self.token_budget), None)
            if fits is None:
                bins.append((size, [row]))
            else:
                bins[fits] = (bins[fits][0] + size, [*bins[fits][1], row])
        return split + [MicroBatch(tuple(rows)) for _, rows in bins]
