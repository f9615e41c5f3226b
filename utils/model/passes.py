"""Forward passes over many groups, without learning: how they are formed, and a model's numbers for every group."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from utils.arguments.options import TrainingArguments
from utils.engine import ranks
from utils.model.batch import Batch, collate
from utils.tokens.group import Group


def limits_of(args: TrainingArguments) -> dict[str, int]:
    """The most groups and tokens of a forward pass that learns nothing, as keywords of measure() and Passes."""
    return {"count": args.per_device_eval_batch_size, "budget": args.tokens_per_eval_batch}


class Passes(Sequence[Batch]):
    """Groups as batches of at most `count` groups and `budget` tokens (0: any number), in order.

    A group that exceeds the budget is split, its prompt repeated; keep_pairs: so that no pair is divided (Group.split).
    """

    def __init__(
        self, groups: Sequence[Group], count: int, budget: int, *, packed: bool, keep_pairs: bool = False
    ) -> None:
        self.groups, self.budget, self.packed, self.keep_pairs = groups, budget, packed, keep_pairs
        self._passes: list[list[tuple[int, int | None]]] = []  # (row, number of its part or None) in each pass
        used, rows = 0, set()
        for row in range(len(groups)):
            parts = groups[row].split(budget, keep_pairs)
            for number, part in enumerate(parts):
                full = len(rows | {row}) > count or (budget and used + part.tokens > budget)
                if full or not self._passes:
                    self._passes.append([])
                    used, rows = 0, set()
                self._passes[-1].append((row, number if len(parts) > 1 else None))
                used, rows = used + part.tokens, rows | {row}

    def rows(self, i: int) -> list[int]:
        """The numbers of the groups in pass i, ascending; a group that was split is in several passes."""
        return [row for row, _ in self._passes[i]]

    def __len__(self) -> int:
        return len(self._passes)

    def __getitem__(self, i: int) -> Batch:
        groups = [
            self.groups[row] if number is None else self.groups[row].split(self.budget, self.keep_pairs)[number]
            for row, number in self._passes[i]
        ]
        return collate(groups, self.rows(i), self.packed).to(ranks.device())


def measure(
    model: Any, groups: Sequence[Group], *, packed: bool, count: int, budget: int, per_answer: bool = False
) -> list[np.ndarray]:
    """For each group the float32 numbers that `model(batch)` gives: one a trained token, or (per_answer) one an answer.

    count, budget: the most groups and tokens of a forward pass. A collective: ranks may hold different numbers of
    groups, but each at least one.
    """
    passes = Passes(groups, count, budget, packed=packed)
    found: list[np.ndarray] = []
    with torch.no_grad():
        for turn in range(max(ranks.gather_objects(len(passes)))):
            values = model(passes[min(turn, len(passes) - 1)])  # a rank without one repeats its last: collectives match
            if turn < len(passes):
                found.append(values.cpu().numpy())
    sizes = [len(g.answers) if per_answer else sum(map(len, g.answers)) for g in groups]
    return np.split(np.concatenate(found), np.cumsum(sizes)[:-1])
