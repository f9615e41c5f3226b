"""What learns from rollouts, and the minibatch of one update.

Legend: N answer tokens of several answers laid end to end.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from utils.engine import ranks
from utils.engine.deepspeed_engine import Engine
from utils.model.batch import Batch
from utils.ppo.experience import Experience, Targets
from utils.training.plan import Plan, Step

Learn = Callable[[Engine, Batch, Experience, Targets], tuple[Tensor, dict[str, Tensor]]]


@dataclass
class Learner:
    """An engine, and what a batch teaches it."""

    engine: Engine
    learn: Learn
    first_step: int = 1  # the first step that it learns in
    aside: Callable[[int], dict[str, float]] | None = None  # number of the update -> metrics; runs its own backward
    prefix: str = ""  # of the names of its loss, gradient norm and learning rate


@dataclass(frozen=True)
class Minibatch:
    """What one update learns from: this rank's share of a plan's step."""

    plan: Plan
    share: Step
    experience: Experience
    targets: Targets

    def backward(self, learner: Learner, batch: Batch) -> dict[str, Tensor]:
        """Run a forward and a backward pass of one learner; return (sum, count) of its loss and each metric."""
        experience, targets = self.experience, self.targets
        learned_N = experience.in_batch(batch, targets.learned)
        weights_N = experience.in_batch(batch, targets.weights)
        losses_N, metrics = learner.learn(learner.engine, batch, experience, targets)
        # not losses times 0: an infinite loss of a token that is not learned from would be NaN
        losses_N = torch.where(learned_N, losses_N * weights_N, 0.0)
        # DeepSpeed averages over ranks: x world turns its mean of local sums into the global sum.
        learner.engine.backward(losses_N.sum() * (batch.weight * ranks.world_size() / self.share.units))
        found = {}
        for name, values_N in metrics.items():
            found[name] = batch.weight * _sum_and_count(torch.where(learned_N, values_N, 0.0), learned_N)
        found[f"{learner.prefix}loss"] = batch.weight * _sum_and_count(losses_N, weights_N)
        return found


def _sum_and_count(values_N: Tensor, counts_N: Tensor) -> Tensor:
    return torch.stack((values_N.detach().double().sum(), counts_N.double().sum()))
