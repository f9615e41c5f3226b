"""Prompts with answers to other prompts: what the KL estimate of KTO is taken from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from utils.engine import ranks
from utils.errors import UserError
from utils.model.batch import Batch, collate
from utils.tokens.group import Group
from utils.training.reference import Reference


class Mismatched(Sequence[Group]):
    """Each prompt of `groups` with the answers of another group.

    Which one is drawn once for the whole data set, in a circle through all groups: so it depends neither on the batch
    nor on the epoch, and the reference reads each of them once, before training.
    """

    def __init__(self, groups: Sequence[Group], seed: int, packed: bool) -> None:
        if len(groups) < 2:
            raise UserError("a loss that looks at answers to other prompts needs at least 2 prompts; found 1")
        order = np.random.default_rng([seed, 1]).permutation(len(groups))
        self.groups, self.packed, self._partner = groups, packed, np.zeros(len(groups), np.int64)
        self._partner[order] = np.roll(order, -1)

    def __len__(self) -> int:
        return len(self.groups)

    def __getitem__(self, i: int) -> Group:
        return Group(self.groups[i].prompt, self.groups[int(self._partner[i])].answers)

    @property
    def longest(self) -> int:
        """Return the tokens of the longest prompt with one of its answers."""
        return max(len(group.prompt) + max(map(len, group.answers)) for group in self)

    def batch(self, of: Batch) -> tuple[Batch, Tensor]:
        """Return the batch of the same prompts, and which of its answers count, bool [A]: of a group that was split,
        those beside its first part, so that each counts once."""
        groups = [self[row] for row in of.rows]
        counts = [part is None or 0 in part for part in of.parts]
        counted = np.repeat(counts, [len(group.answers) for group in groups])
        return collate(groups, of.rows, self.packed).to(ranks.device()), torch.from_numpy(counted).to(ranks.device())

    def log_ratios(self, model: Any, of: Batch, reference: Reference) -> Tensor:
        """Return the log-ratios of the answers that count, float32."""
        batch, counted = self.batch(of)
        return (batch.sum_per_answer(model(batch)) - reference.of(batch))[counted]
