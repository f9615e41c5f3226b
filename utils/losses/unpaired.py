"""Losses of single answers that were judged good or bad.

Legend: V votes; r is the log-ratio of the answer that a vote judges.
"""

from __future__ import annotations

import torch
from torch import Tensor

from utils.losses.inputs import VoteInputs
from utils.losses.preference import LOSSES
from utils.losses.registry import loss_of


def _half_of_equal_weights(desirable_weight: float, undesirable_weight: float) -> float | None:
    return desirable_weight / 2 if desirable_weight == undesirable_weight else None


@loss_of(LOSSES, unit="vote", data="unpaired", look_at_mismatched=True, at_start=_half_of_equal_weights)
def kto(
    votes: VoteInputs, beta: float, desirable_weight: float, undesirable_weight: float, seen: Tensor
) -> Tensor:  # fmt: skip
    """Return λ_D(1 − σ(β(r − z))) of a good answer, λ_U(1 − σ(β(z − r))) of a bad one. z = max(0, mean log-ratio of
    answers to other prompts), without gradient, estimates KL(π‖ρ). Ethayarajh et al. 2024, arXiv:2402.01306, eq. 7.

    Args:
        votes: the votes.
        beta: β.
        desirable_weight: λ_D.
        undesirable_weight: λ_U.
        seen: log-ratios of answers to other prompts, of the global batch, [answers, 1].
    """
    z = seen.double().mean().clamp(min=0).to(votes.ratios.dtype)
    good = desirable_weight * (beta * (z - votes.ratios)).sigmoid()
    return torch.where(votes.good, good, undesirable_weight * (beta * (votes.ratios - z)).sigmoid())


@loss_of(LOSSES, unit="vote", data="unpaired", at_start=0.5)
def apo_zero_unpaired(votes: VoteInputs, beta: float) -> Tensor:
    """Return 1 − σ(βr) of a good answer, σ(βr) of a bad one: the terms of apo_zero. D'Oosterlinck et al. 2024,
    arXiv:2408.06266, eq. 7."""
    return torch.where(votes.good, (-beta * votes.ratios).sigmoid(), (beta * votes.ratios).sigmoid())
