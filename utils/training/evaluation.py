"""What a batch would teach, measured on held-out groups."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from utils.arguments.options import TrainingArguments
from utils.engine import ranks
from utils.engine.deepspeed_engine import Engine
from utils.model.batch import Batch
from utils.model.passes import Passes, limits_of
from utils.reporting import progress
from utils.tokens.group import Group, Unit
from utils.training.steps import Learn, Look


def evaluate(
    engine: Engine, groups: Sequence[Group], learn: Learn, args: TrainingArguments, unit: Unit = "pair",
    look: Look | None = None,
) -> dict[str, np.ndarray]:  # fmt: skip
    """Call `learn` with all groups, without training. A collective.

    Args:
        engine: the model in training.
        groups: the held-out prompts with their answers.
        learn: what a batch teaches: losses, and metrics by name.
        args: the most groups and tokens of a forward pass.
        unit: of the loss, so that a split group keeps together what the loss needs together.
        look: for losses that look at the whole batch first: here, at all groups.

    Returns:
        Every number of `loss` and of each metric, in the order of the groups, of all ranks together.
    """
    passes = Passes(groups, **limits_of(args), packed=engine.module.packed, unit=unit)
    world, last = ranks.world_size(), len(passes) - 1
    turns = -(-len(passes) // world)
    if look:
        look.take(engine, _in_turn(passes, turns), training=False)
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


def _in_turn(passes: Passes, turns: int) -> Iterator[Batch]:
    """Yield this rank's passes; where it has fewer than others, the last one again, with weight 0."""
    for turn in range(turns):
        number = turn * ranks.world_size() + ranks.rank()
        batch = passes[min(number, len(passes) - 1)]
        yield batch if number < len(passes) else dataclasses.replace(batch, weight=0.0)
