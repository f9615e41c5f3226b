"""What a model says of many groups, without learning: chunk by chunk, every rank as often as the others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from utils import ranks
from utils.batches import collate
from utils.groups import Group


def measure(
    model: Any, packed: bool, groups: Sequence[Group], batch_size: int, per_answer: bool = False
) -> list[np.ndarray]:
    """For each group the float32 numbers that `model(batch)` gives: one a trained token, or (per_answer) one an answer.
    A collective: ranks may hold different numbers of groups, but each at least one."""
    chunks = [range(i, min(i + batch_size, len(groups))) for i in range(0, len(groups), batch_size)]
    found: list[np.ndarray] = []
    with torch.no_grad():
        for turn in range(max(ranks.gather_objects(len(chunks)))):
            chunk = chunks[min(turn, len(chunks) - 1)]  # a rank without a chunk repeats its last: collectives match
            mine = [groups[i] for i in chunk]
            values = model(collate(mine, packed=packed).to(ranks.device())).cpu().numpy()
            if turn < len(chunks):
                sizes = [len(g.answers) if per_answer else sum(map(len, g.answers)) for g in mine]
                found += np.split(values, np.cumsum(sizes)[:-1])
    return found
