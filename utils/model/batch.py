"""Groups of tokens -> batches of tensors.

Legend: T tokens of the packed row, L positions whose logits are needed, N trained tokens, A answers, M pairs, V votes
(a vote is one judgement of one answer as good or bad).
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
from utils.tokens.group import OF_PAIRS, Group

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
    chosen: Tensor  # [M] which answer each pair prefers
    rejected: Tensor  # [M] to which
    confidence: Tensor  # [M] float32, P(the chosen answer is truly the better)
    tie: Tensor  # [M] bool, whether neither was judged the better
    prompt_of: Tensor  # [A] which prompt of the batch each answers
    rating: Tensor  # [A] float32, NaN: unknown
    rank: Tensor  # [A] 1 is the best, 0: unknown
    voted: Tensor  # [V] which answer each vote judges
    good: Tensor  # [V] bool, whether it judges it good
    rows: tuple[int, ...]
    parts: tuple[tuple[int, ...] | None, ...]  # of each group, which of its answers are here; None: all
    tokens: int
    weight: float = 1.0

    def sum_per_answer(self, values_N: Tensor) -> Tensor:
        """Return the sum over each answer's tokens in float32, [A]."""
        sums = values_N.new_zeros(len(self.answer_ends) + 1, dtype=torch.float32)
        return sums.index_add(0, self.answer_of, values_N.float())[:-1]

    def to(self, device: torch.device | str) -> Batch:
        """Return the batch with its tensors on `device`."""
        if torch.device(device).type == "cpu":
            return self
        moved = {name: v.to(device, non_blocking=True) for name, v in vars(self).items() if isinstance(v, Tensor)}
        return dataclasses.replace(self, **moved)


def collate(groups: Sequence[Group], rows: Sequence[int] = (), packed: bool = True, weight: float = 1.0) -> Batch:
    """Return one Batch. Everything that is a next-token shift happens here: a token at position p is predicted by the
    logits at p − 1, and the first token of every answer by the last token of the prompt.

    Args:
        groups: prompts with their answers.
        rows: the groups' numbers in their store.
        packed: one packed row, or right-padded rows.
        weight: 0 for a batch that only fills a rank's turn.
    """
    lay_out = _packed if packed else _padded
    ids, positions, columns = lay_out(groups)
    logit_positions, logit_rows = np.unique(_joined(columns.predicted_by), return_inverse=True)
    tokens = sum(g.tokens for g in groups)
    layout = None
    if packed:
        lengths = [(len(g.prompt), tuple(map(len, g.answers))) for g in groups]
        if ids.size > tokens:
            lengths.append((ids.size - tokens, ()))
        layout = Layout(tuple(lengths))
    answer_tokens, chosen, rejected, prompt_of = [], [], [], []
    for number, g in enumerate(groups):
        first = len(answer_tokens)
        for better, worse in g.pairs:
            chosen.append(first + better)
            rejected.append(first + worse)
        answer_tokens += map(len, g.answers)
        prompt_of += [number] * len(g.answers)
    goods, bads = _known(groups, "good", 0), _known(groups, "bad", 0)
    votes = goods + bads
    voted = np.repeat(np.arange(len(votes)), votes)
    # of each answer the good votes come first
    good = np.arange(len(voted)) - (np.cumsum(votes) - votes)[voted] < goods[voted]
    return Batch(
        input_ids=_tensor(ids),
        position_ids=_tensor(positions) if packed else None,
        attention_mask=None if packed else _tensor(positions),
        layout=layout,
        logit_positions=_tensor(np.resize(logit_positions, len(logit_positions) + _filling(len(logit_positions)))),
        logit_rows=_tensor(logit_rows),
        targets=_tensor(_joined(columns.targets)),
        answer_of=_tensor(_joined(columns.answer_of)),
        answer_ends=_tensor(columns.ends),
        answer_tokens=_tensor(answer_tokens),
        chosen=_tensor(chosen),
        rejected=_tensor(rejected),
        confidence=torch.from_numpy(_known(groups, "confidence", np.float32(1))),
        tie=torch.from_numpy(_known(groups, "tie", np.False_)),
        prompt_of=_tensor(prompt_of),
        rating=torch.from_numpy(_known(groups, "rating", np.float32(np.nan))),
        rank=_tensor(_known(groups, "rank", 0)),
        voted=_tensor(voted),
        good=torch.from_numpy(good),
        rows=tuple(rows),
        parts=tuple(g.part for g in groups),
        tokens=tokens,
        weight=weight,
    )


def _tensor(values: np.ndarray | Sequence[int]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, np.int64))


def _joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.zeros(0, np.int64), *parts])


def _known(groups: Sequence[Group], name: str, unknown: np.generic | int) -> np.ndarray:
    """Return one thing of the groups' feedback, group by group: of each answer, or of each pair."""
    parts = [np.zeros(0, np.asarray(unknown).dtype)]
    for g in groups:
        values = getattr(g.feedback, name)
        if values is None:
            values = np.full(len(g.pairs if name in OF_PAIRS else g.answers), unknown)
        parts.append(values)
    return np.concatenate(parts)


def _filling(length: int) -> int:
    """Return how many positions are missing to a multiple of MULTIPLE."""
    return -length % MULTIPLE


@dataclass
class _Columns:
    """The trained tokens of a batch, gathered answer by answer: an array of each."""

    targets: list[np.ndarray] = dataclasses.field(default_factory=list)
    predicted_by: list[np.ndarray] = dataclasses.field(default_factory=list)  # positions of their logits
    answer_of: list[np.ndarray] = dataclasses.field(default_factory=list)
    ends: list[int] = dataclasses.field(default_factory=list)  # position of each answer's last token

    def add_answer(self, answer: np.ndarray, start: int, prompt_end: int) -> None:
        """Add the next answer. `start` is the position of its first token, `prompt_end` that of its prompt's last."""
        self.targets.append(answer)
        self.predicted_by.append(np.r_[prompt_end, np.arange(start, start + len(answer) - 1)])
        self.answer_of.append(np.full(len(answer), len(self.ends)))
        self.ends.append(start + len(answer) - 1)

    def add_inside_prompt(self, group: Group, start: int, answers: int) -> None:
        """Add a prompt's own trained tokens. `start` is the position of its first token; `answers`, how many answers
        the batch has, is the number of none."""
        if group.prompt_trained is None:
            return
        at = np.flatnonzero(group.prompt_trained[1:]) + 1  # nothing predicts a prompt's first token
        self.targets.append(group.prompt[at])
        self.predicted_by.append(start + at - 1)
        self.answer_of.append(np.full(len(at), answers))


def _packed(groups: Sequence[Group]) -> tuple[np.ndarray, np.ndarray, _Columns]:
    """Return (ids [1, T], positions [1, T], columns) of one row: every prompt with its answers behind it."""
    total = sum(len(g.answers) for g in groups)
    ids, positions, columns, at = [], [], _Columns(), 0
    for g in groups:
        prompt = len(g.prompt)
        ids.append(g.prompt)
        positions.append(np.arange(prompt))
        columns.add_inside_prompt(g, at, total)
        start, prompt_end = at + prompt, at + prompt - 1
        for answer in g.answers:
            ids.append(answer)
            # as if each answer came first behind the prompt
            positions.append(np.arange(prompt, prompt + len(answer)))
            columns.add_answer(answer, start, prompt_end)
            start += len(answer)
        at = start
    ids.append(np.zeros(_filling(at), np.int64))
    positions.append(np.arange(_filling(at)))
    return np.concatenate(ids)[None], np.concatenate(positions)[None], columns


def _padded(groups: Sequence[Group]) -> tuple[np.ndarray, np.ndarray, _Columns]:
    """Return (ids [A, longest], mask [A, longest], columns): every answer behind a copy of its prompt."""
    total = sum(len(g.answers) for g in groups)
    longest = max(len(g.prompt) + len(answer) for g in groups for answer in g.answers)
    ids, mask, columns = np.zeros((total, longest), np.int64), np.zeros((total, longest), np.int64), _Columns()
    number = 0
    for g in groups:
        for k, answer in enumerate(g.answers):
            prompt, start = len(g.prompt), number * longest
            if k == 0:
                columns.add_inside_prompt(g, start, total)
            ids[number, :prompt] = g.prompt
            ids[number, prompt : prompt + len(answer)] = answer
            mask[number, : prompt + len(answer)] = 1
            columns.add_answer(answer, start + prompt, start + prompt - 1)
            number += 1
    return ids, mask, columns
