"""Groups of tokens -> batches of tensors.

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

from utils.model.packed_attention import Layout
from utils.tokens.group import Group

# Packed rows and logits are filled up to a multiple of this many. torch compiles a CPU product in bfloat16 for every
# new shape: in rows of 600 to 1,100 tokens a layer's products of hidden size 192 take 7 ms instead of 23. GPUs are
# faster, too, with multiples of 8.
MULTIPLE = 64


@dataclass(frozen=True)
class Batch:
    """Groups as tensors. `rows` are the groups' numbers in their store; `weight` is 0 for a batch that only fills a
    short rank's turn. Positions index the flattened input_ids."""

    input_ids: Tensor  # [1, T] packed, its end filled with a segment of zeros; [A, longest] padded
    position_ids: Tensor | None  # [1, T] packed: restarting at the prompt's length for each answer
    attention_mask: Tensor | None  # [A, longest] padded
    layout: Layout | None
    logit_positions: Tensor  # [L], filled up to a multiple of MULTIPLE with the first ones again
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
    lengths = [(len(g.prompt), tuple(map(len, g.answers))) for g in groups]
    tokens = sum(g.tokens for g in groups)
    filling = [(ids.size - tokens, ())] if ids.size > tokens else []
    t = lambda values: torch.from_numpy(np.ascontiguousarray(values, np.int64))  # noqa: E731
    return Batch(
        input_ids=t(ids),
        position_ids=t(positions) if packed else None,
        attention_mask=None if packed else t(positions),
        layout=Layout((*lengths, *filling)) if packed else None,
        logit_positions=t(np.resize(logit_positions, len(logit_positions) + _filling(len(logit_positions)))),
        logit_rows=t(logit_rows),
        targets=t(columns.targets),
        answer_of=t(columns.answer_of),
        answer_ends=t(columns.ends),
        answer_tokens=t([len(a) for g in groups for a in g.answers]),
        winners=t([first + w for g, first in _with_first_answer(groups) for w, _ in g.pairs]),
        losers=t([first + l for g, first in _with_first_answer(groups) for _, l in g.pairs]),
        rows=tuple(rows),
        parts=tuple(g.part for g in groups),
        tokens=tokens,
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


def _filling(length: int) -> int:
    return -length % MULTIPLE


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
    ids.append(np.zeros(_filling(at), np.int64))
    positions.append(np.arange(_filling(at)))
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
