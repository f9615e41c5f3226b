"""The win rate at equal answer lengths: what is left of a win rate when a judge's liking for length is taken out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from utils.statistics import Z95, Estimate

# Two prompts are added, one where the model's answer is a standard deviation longer, one where it is as much shorter,
# each with half a win and half a loss: where length alone decides every verdict, slope and interval stay finite.
ADDED_LENGTHS, ADDED_OUTCOMES, ADDED_WEIGHT = (1.0, 1.0, -1.0, -1.0), (1.0, 0.0, 1.0, 0.0), 0.5
STEPS, LONGEST_STEP = 100, 2.0  # of Newton's method; a step in the logit beyond 2 can overshoot into saturation


@dataclass(frozen=True)
class LengthControl:
    """What a logistic regression on the answers' length difference says.

    Args:
        rate: the win rate at equal lengths, with its 95 % interval.
        slope: change of the log-odds of a win where tanh of the difference in standard deviations grows by 1.
        longer: share of judgements on a longer answer of the model.
    """

    rate: Estimate
    slope: float
    longer: float

    def to_json(self) -> dict[str, float | int | None]:
        """Return the rate's fields, slope and longer as one object."""
        return {**self.rate.to_json(), "slope": self.slope, "longer": self.longer}


def length_controlled(outcomes: Sequence[Sequence[float]], differences: Sequence[Sequence[float]]) -> LengthControl:
    """Return the win rate that would be seen if both answers were equally long.

    Fits P(win) = sigmoid(a + b * tanh(d / sd(d))), d = length of the model's answer - length of the reference's, to
    these very outcomes, and reports sigmoid(a): the length term of Dubois et al. 2024 (arXiv:2404.04475, equation 2)
    without their model and instruction terms, which need many models' annotations. Ties are outcomes of 1/2 (fractional
    logit, Papke & Wooldridge 1996). The interval is that of a, +- 1.96 sandwich standard errors over prompts (Liang &
    Zeger 1986), mapped by the sigmoid. It is a correction for a judge that likes length, not a proof: where the better
    answers are the longer ones for good reasons, it takes too much away.

    Args:
        outcomes: for each prompt its outcomes, at least one; each prompt weighs the same.
        differences: for each outcome its d, in characters or tokens.
    """
    prompts = len(outcomes)
    counts_P = np.array([len(each) for each in outcomes])
    outcomes_J = np.concatenate([*map(np.asarray, outcomes), ADDED_OUTCOMES])
    differences_J = np.concatenate(list(map(np.asarray, differences))).astype(np.float64)
    longer = float((differences_J > 0).mean())
    scale = float(differences_J.std()) or 1.0
    feature_J = np.tanh(np.concatenate([differences_J / scale, ADDED_LENGTHS]))
    weights_J = np.concatenate([np.repeat(1 / counts_P, counts_P), np.full(len(ADDED_LENGTHS), ADDED_WEIGHT)])
    # Of the added outcomes each is a cluster of its own, after those of the prompts.
    cluster_J = np.concatenate([np.repeat(np.arange(prompts), counts_P), prompts + np.arange(len(ADDED_LENGTHS))])
    design_JF = np.stack([np.ones_like(feature_J), feature_J], axis=1)
    coefficients_F, covariance_FF = _logistic(design_JF, outcomes_J, weights_J, cluster_J)
    intercept, slope = coefficients_F.tolist()
    half = Z95 * math.sqrt(covariance_FF[0, 0])
    low, high = _sigmoid(intercept - half), _sigmoid(intercept + half)
    if prompts < 2:
        low = high = math.nan
    return LengthControl(Estimate(_sigmoid(intercept), low=low, high=high, n=prompts), slope, longer)


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def _logistic(
    design_JF: np.ndarray, outcomes_J: np.ndarray, weights_J: np.ndarray, cluster_J: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the coefficients of a weighted logistic regression, by Newton's method, and their covariance over
    clusters.

    Args:
        design_JF: the features of each judgement.
        outcomes_J: 0 to 1.
        weights_J: of the judgements.
        cluster_J: number of each judgement's cluster.
    """
    coefficients_F = np.zeros(design_JF.shape[1])
    for _ in range(STEPS):
        expected_J = 1 / (1 + np.exp(-design_JF @ coefficients_F))
        scores_JF = design_JF * (weights_J * (outcomes_J - expected_J))[:, None]
        curvature_FF = (design_JF.T * (weights_J * expected_J * (1 - expected_J))) @ design_JF
        change_F = np.linalg.solve(curvature_FF, scores_JF.sum(0))
        largest = float(np.abs(change_F).max())
        if largest < 1e-9:
            break
        coefficients_F = coefficients_F + change_F * min(1.0, LONGEST_STEP / largest)
    clusters = int(cluster_J.max()) + 1
    scores_CF = np.stack([np.bincount(cluster_J, column, clusters) for column in scores_JF.T], axis=1)
    # Of each residual the fit has taken a part: C / (C - F) gives it back, as n / (n - 1) does for a mean.
    spread_FF = scores_CF.T @ scores_CF * clusters / (clusters - len(coefficients_F))
    inverse_FF = np.linalg.inv(curvature_FF)
    return coefficients_F, inverse_FF @ spread_FF @ inverse_FF
