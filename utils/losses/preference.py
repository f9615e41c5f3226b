"""Losses that learn from a preferred and a dispreferred answer (step 3, DPO and its relatives).

Legend: M pairs. Δ = (log π(y_w) − log ρ(y_w)) − (log π(y_l) − log ρ(y_l)): how much more than the reference ρ the
policy π prefers the chosen answer y_w to the rejected y_l. Sums over answer tokens, in float32.

A new loss is one function with the decorator, one line naming its source, one hand-worked number in the test.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class LogRatios:
    """What a loss may look at of M pairs. `chosen` and `rejected` are log π − log ρ of the answers, [M], summed over
    their tokens in float32."""

    chosen: Tensor
    rejected: Tensor
    chosen_tokens: Tensor  # [M], answer lengths
    rejected_tokens: Tensor
    beta: float
    label_smoothing: float = 0.0  # the assumed share of wrong labels, ε

    @property
    def delta(self) -> Tensor:
        """Δ of each pair, [M]."""
        return self.chosen - self.rejected


@dataclass(frozen=True)
class PreferenceLoss:
    name: str
    losses: Callable[[LogRatios], Tensor]  # -> [M]
    at_start: Callable[[float, float], float]  # (beta, label smoothing) -> the loss at Δ = 0
    smooths: bool  # does it use label_smoothing?


LOSSES: dict[str, PreferenceLoss] = {}


def preference_loss(at_start: Callable[[float, float], float], smooths: bool = False):
    """Make `--loss <function name>` use this function; `at_start` is its value when policy and reference agree."""

    def register(losses: Callable[[LogRatios], Tensor]):
        LOSSES[losses.__name__] = PreferenceLoss(losses.__name__, losses, at_start, smooths)
        return losses

    return register


@preference_loss(at_start=lambda beta, eps: math.log(2))
def sigmoid(pairs: LogRatios) -> Tensor:
    """DPO: −log σ(βΔ). Rafailov et al. 2023, arXiv:2305.18290, eq. 7."""
    return -F.logsigmoid(pairs.beta * pairs.delta)


@preference_loss(at_start=lambda beta, eps: math.log(2), smooths=True)
def cdpo(pairs: LogRatios) -> Tensor:
    """Conservative DPO: −(1−ε) log σ(βΔ) − ε log σ(−βΔ). Mitchell 2023, A note on DPO with noisy preferences, eq. 3."""
    logit, eps = pairs.beta * pairs.delta, pairs.label_smoothing
    return -(1 - eps) * F.logsigmoid(logit) - eps * F.logsigmoid(-logit)


@preference_loss(at_start=lambda beta, eps: 1 / (4 * beta**2))
def ipo(pairs: LogRatios) -> Tensor:
    """IPO: (Δ − 1/(2β))², Δ of summed log-probs. Azar et al. 2023, arXiv:2310.12036, eq. 17."""
    return (pairs.delta - 1 / (2 * pairs.beta)) ** 2


@preference_loss(at_start=lambda beta, eps: 1 / (4 * beta**2))
def ipo_mean(pairs: LogRatios) -> Tensor:
    """IPO with Δ of log-probs averaged over each answer's tokens: what TRL since 0.8 calls `ipo`."""
    delta = pairs.chosen / pairs.chosen_tokens - pairs.rejected / pairs.rejected_tokens
    return (delta - 1 / (2 * pairs.beta)) ** 2
