"""Which groups make which optimizer step, for all ranks alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from utils.model.batch import Batch, collate
from utils.tokens.group import Group, Unit


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


@dataclass(frozen=True)
class Division:
    """How a step's groups become forward passes on every rank."""

    per_step: int  # groups of an optimizer step, of all ranks together
    per_device: int  # groups of a forward pass, where there is no token budget
    token_budget: int  # most tokens of a forward pass; 0: no budget
    world: int  # ranks
    seed: int  # of the permutations
    unit: Unit = "token"  # of the loss: a group that exceeds the budget is split so that none is divided


class Plan:
    """Which groups make which step: a pure function of (sizes, options, seed), so that a position in the data is a step
    number, every rank knows the whole plan without asking, and the loss's denominator is known before the first
    backward.

    Epochs are permutations; a step takes the next `per_step` groups (the last of an epoch takes what is left); ranks
    get equal counts, balanced by tokens; forward passes hold `per_device` groups, or as many as fit `token_budget`, and
    a group that exceeds it is split (Group.split).

    Args:
        groups: the prompts with their answers.
        tokens: the packed length of each group.
        units: what each group adds to the loss's denominator: trained tokens, pairs, another unit, or a sum of weights.
        division: how groups become steps and forward passes.
        epochs: passes over the groups, rounded to whole steps.
        max_steps: instead of `epochs`; -1: not given.
    """

    def __init__(
        self,
        groups: Sequence[Group], tokens: Sequence[int], units: Sequence[int], division: Division, epochs: float = 1.0,
        max_steps: int = -1,
    ) -> None:  # fmt: skip
        self.groups, self.division = groups, division
        self.tokens, self.units = np.asarray(tokens), np.asarray(units)
        self.parts: dict[int, int] = {}  # of the groups that exceed the budget: into how many they are split
        if division.token_budget:
            for row in np.flatnonzero(self.tokens > division.token_budget).tolist():
                self.parts[row] = len(self._split(row))
        self.per_step = division.per_step
        self.steps_per_epoch = max(1, -(-len(self.tokens) // self.per_step))
        self.total_steps = max(1, round(epochs * self.steps_per_epoch))
        if max_steps > 0:
            self.total_steps = max_steps
        self._order = (-1, np.zeros(0, np.int64))  # (epoch, its permutation)

    def _split(self, row: int) -> list[Group]:
        return self.groups[row].split(self.division.token_budget, self.division.unit)

    def epoch_ended(self, step: int) -> int | None:
        """Return the number (from 1) of the epoch that step `step` (from 1) ended; the last step ends the last epoch
        that was begun."""
        epochs, rest = divmod(step, self.steps_per_epoch)
        if rest == 0:
            return epochs
        return epochs + 1 if step == self.total_steps else None

    def step(self, number: int, rank: int) -> Step:
        """Return step `number` (from 1) of rank `rank`."""
        rows = self._rows(number)
        shares = [self._micro_batches(share) for share in self._deal(rows)]
        # Every rank makes equally many passes, since their collectives must match. The filling is the cheapest row.
        smallest = int(rows[self.tokens[rows].argmin()])
        part = 0 if smallest in self.parts else None
        filling = [MicroBatch((smallest,), 0.0, part)] * (max(map(len, shares)) - len(shares[rank]))
        return Step(shares[rank] + filling, int(self.units[rows].sum()), int(self.tokens[rows].sum()))

    def batch(self, micro: MicroBatch, packed: bool) -> Batch:
        """Return the groups of a forward pass as tensors."""
        groups = [self.groups[row] for row in micro.rows]
        if micro.part is not None:
            groups = [self._split(micro.rows[0])[micro.part]]
        return collate(groups, micro.rows, packed, micro.weight)

    def _rows(self, number: int) -> np.ndarray:
        """Return the numbers of a step's groups."""
        epoch, place = divmod(number - 1, self.steps_per_epoch)
        known, order = self._order
        if known != epoch:
            order = np.random.default_rng([self.division.seed, epoch]).permutation(len(self.tokens))
            self._order = (epoch, order)
        return order[place * self.per_step : (place + 1) * self.per_step]

    def _deal(self, rows: np.ndarray) -> list[list[int]]:
        """Return each rank's rows: the longest first, each to the rank with the fewest tokens that still has room."""
        world = self.division.world
        room, shares, load = -(-len(rows) // world), [[] for _ in range(world)], np.zeros(world)
        for row in rows[np.argsort(-self.tokens[rows], kind="stable")]:
            open_ranks = [r for r in range(world) if len(shares[r]) < room]
            taker = min(open_ranks, key=lambda r: load[r])
            shares[taker].append(int(row))
            load[taker] += self.tokens[row]
        return shares

    def _micro_batches(self, share: list[int]) -> list[MicroBatch]:
        """Divide a rank's rows into forward passes."""
        per_device, budget = self.division.per_device, self.division.token_budget
        if not budget:
            starts = range(0, len(share), per_device)
            return [MicroBatch(tuple(share[i : i + per_device])) for i in starts]
        passes: list[MicroBatch] = []
        bins: list[list[int]] = []  # rows of each pass
        used: list[int] = []  # its tokens
        # First fit, longest first (Johnson 1973): never far from the fewest passes that are possible.
        for row in share:
            if row in self.parts:
                passes += [MicroBatch((row,), 1.0, part) for part in range(self.parts[row])]
                continue
            size = int(self.tokens[row])
            place = next((i for i, tokens in enumerate(used) if tokens + size <= budget), len(bins))
            if place == len(bins):
                bins.append([])
                used.append(0)
            bins[place].append(row)
            used[place] += size
        return passes + [MicroBatch(tuple(rows)) for rows in bins]
