"""A model's numbers for every group: log-probs, values or scores, without learning."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from utils.engine import ranks
from utils.model.passes import Passes
from utils.tokens.group import Group


def measure(
    model: Any, groups: Sequence[Group], *, packed: bool, count: int, budget: int, per_answer: bool = False
) -> list[np.ndarray]:
    """Call a model with all groups. A collective: ranks may hold different numbers of groups, but each at least one.

    Args:
        model: called with a Batch; gives a number for each trained token, or for each answer.
        groups: prompts with their answers.
        packed: whether it reads packed rows.
        count: the most groups of a forward pass.
        budget: the most tokens of a forward pass; 0: any number.
        per_answer: whether the model gives a number an answer.

    Returns:
        For each group its float32 numbers.
    """
    passes = Passes(groups, count, budget, packed=packed)
    found: list[np.ndarray] = []
    with torch.no_grad():
        for turn in range(max(ranks.gather_objects(len(passes)))):
            # a rank without a pass repeats its last: the collectives of a sharded forward pass must match
            values = model(passes[min(turn, len(passes) - 1)])
            if turn < len(passes):
                found.append(values.cpu().numpy())
    sizes = []
    for group in groups:
        sizes.append(len(group.answers) if per_answer else sum(map(len, group.answers)))
    return np.split(np.concatenate(found), np.cumsum(sizes)[:-1])
