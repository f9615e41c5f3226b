"""A reference that follows the policy (--ref_update_every): TR-DPO, Gorbatovski et al. 2024, arXiv:2404.09656."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor

from utils.engine.deepspeed_engine import Engine
from utils.errors import UserError
from utils.model.batch import Batch
from utils.training.reference import Reference


class Copies:
    """The reference's weights, float32, by name, and the updates of the policy so far. A checkpoint keeps them."""

    def __init__(self, weights: dict[str, Tensor]) -> None:
        self.weights, self.updates = weights, 0


class MovingReference(Reference):
    """The policy as it was, moved towards it every few updates: ρ ← απ + (1 − α)ρ of every trained weight (the soft
    update; with α = 1 the hard one). Its log-probs are computed with each batch: the policy's module holds ρ's weights
    for that long.

    Args:
        engine: the policy, which is the reference at first.
        every: updates of the policy between two of the reference.
        mixup: α.
    """

    def __init__(self, engine: Engine, every: int, mixup: float) -> None:
        if engine.stage == 3:
            raise UserError("--ref_update_every needs --zero_stage 0, 1 or 2: at stage 3 no rank has whole weights")
        super().__init__([])
        self.engine, self.every, self.mixup = engine, every, mixup
        self._trained = {name: p for name, p in engine.module.named_parameters() if p.requires_grad}
        self.state = Copies({name: p.detach().float().clone() for name, p in self._trained.items()})

    def of(self, batch: Batch) -> Tensor:
        """Return log ρ of each answer of the batch, float32 [A]."""
        return batch.sum_per_answer(self.tokens_of(batch))

    def tokens_of(self, batch: Batch) -> Tensor:
        """Return log ρ of each token of the batch's answers, float32 [N]."""
        with torch.no_grad(), self._in_the_policy():
            return self.engine(batch)

    @contextlib.contextmanager
    def _in_the_policy(self) -> Iterator[None]:
        """Put the reference's weights into the policy's module, and the policy's back at the end."""
        own = {name: p.data for name, p in self._trained.items()}
        try:
            for name, p in self._trained.items():
                # a checkpoint gives them back on the CPU
                self.state.weights[name] = self.state.weights[name].to(p.device)
                p.data = self.state.weights[name].to(p.dtype)
            yield
        finally:
            for name, p in self._trained.items():
                p.data = own[name]

    def after_update(self) -> None:
        """Count an update of the policy, and move the reference when it is time."""
        self.state.updates += 1
        if self.state.updates % self.every == 0:
            for name, p in self._trained.items():
                mine = self.state.weights[name].to(p.device)
                self.state.weights[name] = mine.lerp(p.detach().float(), self.mixup)
