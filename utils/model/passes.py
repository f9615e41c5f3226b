"""Forward passes over many groups, without learning: how they are formed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from utils.arguments.options import TrainingArguments
from utils.engine import ranks
from utils.model.batch import Batch, collate
from utils.tokens.group import Group, Unit


def limits_of(args: TrainingArguments) -> dict[str, int]:
    """Return the most groups and tokens of a forward pass that learns nothing, as keywords of Passes."""
    return {"count": args.per_device_eval_batch_size, "budget": args.tokens_per_eval_batch}


class _Part(NamedTuple):
    """A group in a pass."""

    row: int
    number: int | None  # of the part, where the group was split


class Passes(Sequence[Batch]):
    """Groups as batches, in order.

    Args:
        groups: prompts with their answers.
        count: the most groups of a pass.
        budget: the most tokens of a pass; 0: any number. A group that exceeds it is split, its prompt repeated.
        packed: packed rows, or padded ones.
        unit: of the loss, so that nothing is divided which it needs together (Group.split).
    """

    def __init__(self, groups: Sequence[Group], count: int, budget: int, *, packed: bool, unit: Unit = "token") -> None:
        self.groups, self.budget, self.packed, self.unit = groups, budget, packed, unit
        self._passes: list[list[_Part]] = []
        used, rows = 0, set()
        for row in range(len(groups)):
            parts = groups[row].split(budget, unit)
            for number, part in enumerate(parts):
                full = len(rows | {row}) > count or (budget and used + part.tokens > budget)
                if full or not self._passes:
                    self._passes.append([])
                    used, rows = 0, set()
                whole = len(parts) == 1
                self._passes[-1].append(_Part(row, None if whole else number))
                used += part.tokens
                rows.add(row)

    def rows(self, i: int) -> list[int]:
        """Return the numbers of the groups in pass i, ascending; a group that was split is in several passes."""
        return [part.row for part in self._passes[i]]

    def __len__(self) -> int:
        return len(self._passes)

    def __getitem__(self, i: int) -> Batch:
        groups = []
        for row, number in self._passes[i]:
            group = self.groups[row]
            if number is not None:
                group = group.split(self.budget, self.unit)[number]
            groups.append(group)
        return collate(groups, self.rows(i), self.packed).to(ranks.device())
