"""What a batch would teach, measured on held-out groups."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from utils.arguments.options import TrainingArguments
from utils.engine import ranks
from utils.engine.deepspeed_engine import Engine
from utils.model.passes import Passes, limits_of
from utils.reporting import progress
from utils.tokens.group import Group
from utils.training.steps import Learn


def evaluate(engine: Engine, groups: Sequence[Group], learn: Learn, args: TrainingArguments) -> dict[str, np.ndarray]:
    """Call `learn` with all groups, without training. A collective.

    Args:
        engine: the model in training.
        groups: the held-out prompts with their answers.
        learn: what a batch teaches: losses, and metrics by name.
        args: the most groups and tokens of a forward pass.

    Returns:
        Every number of `loss` and of each metric, in the order of the groups, of all ranks together.
    """
    passes = Passes(groups, **limits_of(args), packed=engine.module.packed, keep_pairs=True)
    world, last = ranks.world_size(), len(passes) - 1
    turns = -(-len(passes) // world)
    mine: dict[int, dict[str, np.ndarray]] = {}
    with torch.no_grad(), progress("evaluation", turns) as advance:
        for turn in range(turns):
            number = turn * world + ranks.rank()
            # A rank without a pass repeats the last one: the collectives of a sharded forward pass must match.
            losses, metrics = learn(engine, passes[min(number, last)])
            if number <= last:
                mine[number] = {n: v.double().cpu().numpy() for n, v in {"loss": losses, **metrics}.items()}
            advance()
    found: dict[int, dict[str, np.ndarray]] = {}
    for part in ranks.gather_objects(mine):
        found |= part
    ordered = [found[number] for number in range(len(passes))]
    return {name: np.concatenate([part[name] for part in ordered]) for name in ordered[0]}
