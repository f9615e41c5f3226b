"""Groups of tokens -> batches of tensors, and the plan of which groups make which optimizer step.

Legend: T tokens of the packed row, L positions whose logits are needed, N trained tokens, A answers, M pairs.
A prompt is computed once for its k answers; where an architecture cannot read packed rows, `packed=False` lays the same
answers out as right-padded rows, and everything downstream is the same.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from utils.attention import Layout
from utils.groups import Group


@dataclass(frozen=True)
class Batch:
    """Groups as tensors. `rows` are the groups' numbers in their store; `weight` is 0 for a batch that only fills a
    short rank's turn. Positions index the flattened input_ids."""

    input_ids: Tensor  # [1, T] packed, [A, longest] padded
    position_ids: Tensor | None  # [1, T] packed: restarting at the prompt's length for each answer
    attention_mask: Tensor | None  # [A, longest] padded
    layout: Layout | None
    logit_positions: Tensor  # [L]
    logit_rows: Tensor  # [N] which of the L logits predicts each trained token
    targets: Tensor  # [N] the trained tokens
    answer_of: Tensor  # [N] which answer each belongs to; A for trained tokens inside a prompt
    answer_ends: Tensor  # [A] position of each answer's last token
    answer_tokens: Tensor  # [A] lengths
    winners: Tensor  # [M] answers
    losers: Tensor  # [M]
    rows: tuple[int, ...]
    parts: tuple[tuple[int, ...] | None, ...]  # of each group, which of its answers are here; None: all
    tokens: int
    weight: float = 1.0

    def sum_per_answer(self, values_N: Tensor) -> Tensor:
        """Sum over each answer's tokens in float32, [A]."""
        sums = values_N.new_zeros(len(self.answer_ends) + 1, dtype=torch.float32)
        return sums.index_add(0, self.answer_of, values_N.float())[:-1]

    def to(self, device: torch.device | str) -> Batch:
        if torch.device(device).type == "cpu":
            return self
        tensors = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        moved = {n: v.to(device, non_blocking=True) for n, v in tensors.items() if isinstance(v, Tensor)}
        return dataclasses.replace(self, **moved)


def collate(groups: Sequence[Group], rows: Sequence[int] = (), packed: bool = True, weight: float = 1.0) -> Batch:
    """One Batch of `groups`. Everything that is a next-token shift happens here: a token at position p is predicted by
    the logits at p − 1, and the first token of every answer by the last token of the prompt."""
    ids, positions, columns = (_packed if packed else _padded)(groups)
    logit_positions, logit_rows = np.unique(columns.predicted_by, return_inverse=True)
    t = lambda values: torch.from_numpy(np.ascontiguousarray(values, np.int64))  # noqa: E731
    return Batch(
        input_ids=t(ids),
        position_ids=t(positions) if packed else None,
        attention_mask=None if packed else t(positions),
        layout=Layout(tuple((len(g.prompt), tuple(map(len, g.answers))) for g in groups)) if packed else None,
        logit_positions=t(logit_positions),
        logit_rows=t(logit_rows),
        targets=t(columns.targets),
        answer_of=t(columns.answer_of),
        answer_ends=t(columns.ends),
        answer_tokens=t([len(a) for g in groups for a in g.answers]),
        winners=t([first + w for g, first in _with_first_answer(groups) for w, _ in g.pairs]),
        losers=t([first + l for g, first in _with_first_answer(groups) for _, l in g.pairs]),
        rows=tuple(rows),
        parts=tuple(g.part for g in groups),
        tokens=sum(g.tokens for g in groups),
        weight=weight,
    )


class _Columns:
    """The trained tokens of a batch, gathered answer by answer."""

    def __init__(self) -> None:
        self._targets, self._by, self._of, self.ends = [], [], [], []

    def add_answer(self, answer: np.ndarray, number: int, start: int, prompt_end: int) -> None:
        """`start` is the position of the answer's first token, `prompt_end` that of its prompt's last."""
        self._targets.append(answer)
        self._by.append(np.r_[prompt_end, np.arange(start, start + len(answer) - 1)])
        self._of.append(np.full(len(answer), number))
        self.ends.append(start + len(answer) - 1)

    def add_inside_prompt(self, group: Group, start: int, nobody: int) -> None:
        if group.prompt_trained is not None:
            at = np.flatnonzero(group.prompt_trained[1:]) + 1  # nothing predicts a prompt's first token
            self._targets.append(group.prompt[at])
            self._by.append(start + at - 1)
            self._of.append(np.full(len(at), nobody))

    targets = property(lambda self: np.concatenate(self._targets or [np.zeros(0)]))
    predicted_by = property(lambda self: np.concatenate(self._by or [np.zeros(0, np.int64)]))
    answer_of = property(lambda self: np.concatenate(self._of or [np.zeros(0)]))


def _packed(groups: Sequence[Group]):
    total = sum(len(g.answers) for g in groups)
    ids, positions, columns, at, number = [], [], _Columns(), 0, 0
    for g in groups:
        prompt = len(g.prompt)
        ids.append(g.prompt)
        positions.append(np.arange(prompt))
        columns.add_inside_prompt(g, at, total)
        start, prompt_end = at + prompt, at + prompt - 1
        for answer in g.answers:
            ids.append(answer)
            positions.append(np.arange(prompt, prompt + len(answer)))
            columns.add_answer(answer, number, start, prompt_end)
            start, number = start + len(answer), number + 1
        at = start
    return np.concatenate(ids)[None], np.concatenate(positions)[None], columns


def _padded(groups: Sequence[Group]):
    rows = [(g, answer, k) for g in groups for k, answer in enumerate(g.answers)]
    longest = max(len(g.prompt) + len(answer) for g, answer, _ in rows)
    ids, mask, columns = np.zeros((len(rows), longest), np.int64), np.zeros((len(rows), longest), np.int64), _Columns()
    for number, (g, answer, k) in enumerate(rows):
        end = len(g.prompt) + len(answer)
        ids[number, :end] = np.concatenate((g.prompt, answer))
        mask[number, :end] = 1
        at = number * longest
        if k == 0:
            columns.add_inside_prompt(g, at, len(rows))
        columns.add_answer(answer, number, at + len(g.prompt), at + len(g.prompt) - 1)
    return ids, mask, columns


def _with_first_answer(groups: Sequence[Group]):
    first = 0
    for g in groups:
        yield g, first
        first += len(g.answers)


# ------------------------------------------------------------------------------------------------ which groups, when


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
