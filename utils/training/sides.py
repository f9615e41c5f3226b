"""The training and the held-out groups, each with its reference and with what a loss sees of it before a step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from utils.arguments.options import ModelArguments
from utils.losses.objective import Objective
from utils.losses.options import DPOArguments
from utils.model import loading
from utils.model.batch import Batch
from utils.tokens.group import Group
from utils.training.mismatched import Mismatched
from utils.training.moving_reference import MovingReference
from utils.training.reference import NoReference, Reference, ReferenceModel, references
from utils.training.stage import Stage
from utils.training.steps import Look

Read = Callable[[Any, Batch, Reference], Any]  # (model, batch, reference) -> the inputs of a loss


@dataclass(frozen=True)
class Side:
    """Groups with their reference; `mismatched` are the same prompts with other prompts' answers, and their reference,
    for losses that look at such."""

    reference: Reference
    mismatched: tuple[Mismatched, Reference] | None = None

    def look(self, objective: Objective, read: Read) -> Look | None:
        """Return what the losses have to know of every unit before a step; None if nothing."""
        if not objective.looks:
            return None

        def see(model: Any, batch: Batch) -> dict[str, Tensor]:
            inputs, ratios = None, None
            if objective.looks_at_units:
                inputs = read(model, batch, self.reference)
            if self.mismatched:
                groups, reference = self.mismatched
                ratios = groups.log_ratios(model, batch, reference)
            return objective.see(inputs, ratios)

        return Look(see, objective.settle)


@dataclass(frozen=True)
class Sides:
    """Both sides of a run, and the reference that moves during the run, if it does."""

    train: Side
    held_out: Side
    moving: MovingReference | None = None

    def states(self) -> dict[str, Any]:
        """Return what a checkpoint keeps of them, by name."""
        return {"reference": self.moving.state} if self.moving else {}

    def after_update(self) -> None:
        """Let the reference follow the policy, if it moves."""
        if self.moving:
            self.moving.after_update()


def begin_sides(stage: Stage, objective: Objective, train: Sequence[Group], model_hash: str) -> Sides:
    """Return both sides, with the log-probs of a fixed reference computed, or read from the cache. A collective.

    Args:
        stage: the policy before its first step, the options, and the held-out groups.
        objective: says whether it needs a reference, and which groups besides.
        train: the training groups.
        model_hash: of the starting model.
    """
    engine, stores = stage.engine, [train, stage.held_out]
    args, options = stage.run.args, stage.options(DPOArguments)
    if objective.mismatched:
        stores += [Mismatched(store, args.seed, engine.module.packed) for store in stores]
        loading.check_length(engine.module.model, max(store.longest for store in stores))
    moving = None
    if options.ref_update_every:
        moving = MovingReference(engine, options.ref_update_every, options.ref_mixup)
        found: list[Reference] = [moving] * len(stores)
    elif objective.reference:
        which = ReferenceModel(model_hash, options.reference_model_name_or_path, tokens=objective.tokens)
        found = references(engine, stores, stage.options(ModelArguments), args, which)
    else:
        found = [NoReference()] * len(stores)
    sides = []
    for number in range(2):
        mismatched = (stores[number + 2], found[number + 2]) if objective.mismatched else None
        sides.append(Side(found[number], mismatched))
    return Sides(*sides, moving=moving)
