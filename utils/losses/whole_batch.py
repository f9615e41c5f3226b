"""Losses of pairs that look at the whole global batch before the first backward: `seen` is what all its pairs gave.

Legend: M pairs of this forward pass, G pairs of the global batch; r_w and r_l are log-ratios of chosen and rejected.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from utils.losses.inputs import PairInputs
from utils.losses.objective import Running
from utils.losses.preference import preference_loss


def _ratios(pairs: PairInputs) -> Tensor:
    """Return [M, 2], the log-ratios of chosen and of rejected."""
    return torch.stack((pairs.chosen, pairs.rejected), dim=1)


def _policy_and_reference(pairs: PairInputs) -> Tensor:
    """Return [M, 2], log p(y_w) − log p(y_l) by the policy and by the reference."""
    policy = pairs.chosen_logprob - pairs.rejected_logprob
    return torch.stack((policy, policy - pairs.delta), dim=1)


@preference_loss(at_start=2 * math.log(2), look=_ratios, state=Running)
def bco_pair(pairs: PairInputs, beta: float, state: Running) -> Tensor:
    """BCO: −log σ(βr_w − δ) − log σ(−(βr_l − δ)), δ the mean of β times the log-ratios of all pairs so far. Jung et al.
    2024, arXiv:2404.04656."""
    delta = beta * state.mean
    return -F.logsigmoid(beta * pairs.chosen - delta) - F.logsigmoid(delta - beta * pairs.rejected)


@preference_loss(at_start=0.5, look=_ratios)
def kto_pair(pairs: PairInputs, beta: float, seen: Tensor) -> Tensor:
    """KTO of pairs: ½(1 − σ(β(r_w − z_l))) + ½(1 − σ(β(z_w − r_l))); z_w and z_l, at least 0, are the batch's mean r_w
    and r_l, without gradient. The first form of KTO, Ethayarajh et al. 2023, Human-centered loss functions."""
    of_chosen, of_rejected = seen.double().mean(dim=0).clamp(min=0).tolist()
    good, bad = pairs.chosen - of_rejected, of_chosen - pairs.rejected
    return ((-beta * good).sigmoid() + (-beta * bad).sigmoid()) / 2


@preference_loss(at_start=math.log(2), look=_policy_and_reference)
def aot(pairs: PairInputs, beta: float, label_smoothing: float, seen: Tensor) -> Tensor:
    """Return cdpo of u₍ᵢ₎ − v₍ᵢ₎: the batch's i-th smallest log π(y_w) − log π(y_l) less the i-th smallest of the same
    by ρ, so that the policy's preferences dominate the reference's as a whole. Melnyk et al. 2024, arXiv:2406.05882.

    Args:
        pairs: the pairs of this forward pass.
        beta: β.
        label_smoothing: ε.
        seen: u and v of the global batch, [G, 2].
    """
    policy = pairs.chosen_logprob - pairs.rejected_logprob
    return _smoothed(policy - _opposite(policy, seen[:, 0], seen[:, 1]), beta, label_smoothing)


@preference_loss(at_start=math.log(2), look=_ratios)
def aot_unpaired(pairs: PairInputs, beta: float, label_smoothing: float, seen: Tensor) -> Tensor:
    """Return cdpo of the i-th smallest r_w of the batch less the i-th smallest r_l. Melnyk et al. 2024,
    arXiv:2406.05882.

    Args:
        pairs: the pairs of this forward pass.
        beta: β.
        label_smoothing: ε.
        seen: r_w and r_l of the global batch, [G, 2].
    """
    losses = _smoothed(pairs.chosen - _opposite(pairs.chosen, seen[:, 0], seen[:, 1]), beta, label_smoothing)
    # Its opposite among the rejected may be in another forward pass, so that each side brings its own gradient; of the
    # value only the first counts.
    opposite = _opposite(pairs.rejected, seen[:, 1], seen[:, 0])
    other = _smoothed(opposite - pairs.rejected, beta, label_smoothing)
    return losses + (other - other.detach())


def _smoothed(delta: Tensor, beta: float, eps: float) -> Tensor:
    return -(1 - eps) * F.logsigmoid(beta * delta) - eps * F.logsigmoid(-beta * delta)


def _opposite(mine_M: Tensor, all_G: Tensor, others_G: Tensor) -> Tensor:
    """Return [M] the values of `others_G` that have the same place in order as `mine_M` have in `all_G`. That holds
    them too, but for last bits: a pass without gradients may round in another way."""
    mine_M, ordered_G = mine_M.detach(), all_G.sort().values
    above = torch.searchsorted(ordered_G, mine_M).clamp(max=len(ordered_G) - 1)
    below = (above - 1).clamp(min=0)
    nearest = torch.where(mine_M - ordered_G[below] < ordered_G[above] - mine_M, below, above)
    first = torch.searchsorted(ordered_G, ordered_G[nearest])
    # equal values, such as those of a pair that was judged twice, take places one after the other
    repeated = (mine_M[:, None] == mine_M).tril(diagonal=-1).sum(dim=1)
    return others_G.sort().values[(first + repeated).clamp(max=len(ordered_G) - 1)]
