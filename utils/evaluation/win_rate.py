"""Win rates of a model against a reference: an estimate with its interval, a test, and what answer lengths explain.

An *outcome* is what one judgement of one prompt says: 1 when the model's answer is better, 0 when the reference's is,
1/2 for a tie. A prompt may have several outcomes (both orders, several judges); they depend on one another, so the
prompt is the unit of every interval, and each prompt weighs the same.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from utils.statistics import Z95, Estimate, cluster_bootstrap

Z80 = 0.8416212335729143  # the normal distribution's 80 % point: the usual power of a comparison
RESAMPLES = 2000  # bootstrap samples: the 2.5 % point then has a standard error of 0.35 percentage points


@dataclass(frozen=True)
class WinRate:
    """A win rate between 0 and 1 over prompts.

    Args:
        rate: mean of the prompts' mean outcomes, with its 95 % interval; `rate.n` is the number of prompts.
        wins: prompts whose mean outcome is above 1/2; losses: below; ties: exactly 1/2.
        sign_test: two-sided p-value of as many wins as losses.
        spread: standard deviation of the prompts' mean outcomes; see prompts_needed().
    """

    rate: Estimate
    wins: int
    ties: int
    losses: int
    sign_test: float
    spread: float


@dataclass(frozen=True)
class SimpleWinRate:
    """A win rate in per cent over judgements that are taken to be independent.

    Args:
        percent: 100 x the mean outcome.
        half_width: of the 95 % interval in percentage points: 196 x the standard error (sd with n - 1); None of one.
    """

    percent: float
    half_width: float | None
    n: int
    wins: int
    ties: int
    losses: int


def simple_win_rate(outcomes: Sequence[float]) -> SimpleWinRate:
    """Return the mean outcome and 1.96 standard errors, as Bansal et al. 2023 (arXiv:2308.15812) report it."""
    values = np.asarray(outcomes, np.float64)
    half_width = None
    if len(values) > 1:
        half_width = 196 * float(values.std(ddof=1)) / math.sqrt(len(values))
    return SimpleWinRate(
        percent=100 * float(values.mean()),
        half_width=half_width,
        n=len(values),
        wins=int((values == 1).sum()),
        ties=int((values == 0.5).sum()),
        losses=int((values == 0).sum()),
    )


def win_rate(outcomes: Sequence[Sequence[float]], seed: int = 0) -> WinRate:
    """Return the win rate of prompts' outcomes.

    Args:
        outcomes: for each prompt its outcomes; a prompt without any is left out.
        seed: of the bootstrap over prompts.

    Returns:
        The win rate; its interval is a percentile bootstrap over prompts (Efron & Tibshirani 1993, chapter 13).
    """
    means_P = np.array([np.mean(each) for each in outcomes if len(each)], np.float64)
    wins, losses = int((means_P > 0.5).sum()), int((means_P < 0.5).sum())
    spread = float(np.std(means_P, ddof=1)) if len(means_P) > 1 else math.nan
    return WinRate(
        rate=cluster_bootstrap(means_P[:, None], seed, RESAMPLES),
        wins=wins,
        ties=len(means_P) - wins - losses,
        losses=losses,
        sign_test=sign_test(wins, losses),
        spread=spread,
    )


def sign_test(wins: int, losses: int) -> float:
    """Return the exact two-sided p-value that wins and losses are equally likely; ties say nothing (Conover 1999, 3.4).

    Both tails of the binomial distribution with probability 1/2 together, at most 1.
    """
    decided = wins + losses
    if not decided:
        return 1.0
    # Python's integers are exact for any number of prompts, and the division at the end rounds once
    tail = sum(math.comb(decided, k) for k in range(min(wins, losses) + 1))
    return min(1.0, float(2 * tail / 2**decided)) if decided < 1000 else min(1.0, float(_ratio(2 * tail, decided)))


def _ratio(numerator: int, power: int) -> float:
    """Return numerator / 2**power where both exceed a float's range."""
    shift = max(0, numerator.bit_length() - 60)
    return math.ldexp(numerator >> shift, shift - power)


def prompts_needed(spread: float, difference: float) -> int:
    """Return how many prompts show a win rate that is `difference` away from 1/2, at the 5 % level.

    In 80 % of the experiments: ((z_0.975 + z_0.8) * spread / difference)^2 (Cohen 1988, section 2.4).

    Args:
        spread: standard deviation of the prompts' mean outcomes, as WinRate.spread.
        difference: of the win rate from 1/2, as 0.05.
    """
    return math.ceil(((Z95 + Z80) * spread / difference) ** 2)


@dataclass(frozen=True)
class LengthControl:
    """What a logistic regression on the answers' length difference says.

    Args:
        rate: the win rate at equal lengths, with its 95 % interval.
        slope: change of the log-odds of a win for one standard deviation of length difference.
        longer: share of prompts on which the model's answer is the longer one.
    """

    rate: Estimate
    slope: float
    longer: float

    def to_json(self) -> dict[str, float | int | None]:
        """Return the rate's fields, slope and longer as one object."""
        return {**self.rate.to_json(), "slope": self.slope, "longer": self.longer}


def length_controlled(
    outcomes: Sequence[Sequence[float]], lengths: Sequence[tuple[int, int]], seed: int = 0
) -> LengthControl:
    """Return the win rate that would be seen if both answers were equally long.

    Fits P(win) = sigmoid(a + b * tanh(d / sd(d))), d = length of the model's answer - length of the reference's, to
    these very outcomes, and reports sigmoid(a): the length term of Dubois et al. 2024 (arXiv:2404.04475, equation 2)
    without their model and instruction terms, which need many models' annotations. It is a correction for a judge that
    likes length, not a proof: where the better answers are the longer ones for good reasons, it takes too much away.

    Args:
        outcomes: for each prompt its outcomes, at least one.
        lengths: for each prompt (the model's, the reference's) answer length, in characters or tokens.
        seed: of the bootstrap over prompts.
    """
    means_P = np.array([np.mean(each) for each in outcomes], np.float64)
    differences_P = np.array([ours - theirs for ours, theirs in lengths], np.float64)
    longer = float((differences_P > 0).mean())
    scale = float(differences_P.std())
    feature_P = np.tanh(differences_P / scale) if scale else np.zeros_like(differences_P)
    intercept, slope = _logistic(feature_P, means_P)
    rng = np.random.default_rng(seed)
    rates = []
    # a quarter of the resamples of a mean: each is a fit of its own, and the interval needs no third digit
    for _ in range(RESAMPLES // 4):
        drawn = rng.integers(len(means_P), size=len(means_P))
        rates.append(_sigmoid(_logistic(feature_P[drawn], means_P[drawn])[0]))
    low, high = np.percentile(rates, [2.5, 97.5])
    return LengthControl(Estimate(_sigmoid(intercept), float(low), float(high), len(means_P)), slope, longer)


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def _logistic(feature_P: np.ndarray, outcomes_P: np.ndarray) -> tuple[float, float]:
    """Return (intercept, slope) of a logistic regression, by Newton's method.

    A ridge of one pseudo-observation on the slope keeps it finite where length alone decides every outcome; the
    intercept gets a thousandth of one, for outcomes that are all equal.
    """
    design_PF = np.stack([np.ones_like(feature_P), feature_P], axis=1)
    ridge_F = np.array([1e-3, 1.0])
    weights_F = np.zeros(2)
    for _ in range(50):
        expected_P = 1 / (1 + np.exp(-design_PF @ weights_F))
        gradient_F = design_PF.T @ (outcomes_P - expected_P) - ridge_F * weights_F
        curvature_FF = (design_PF.T * (expected_P * (1 - expected_P))) @ design_PF + np.diag(ridge_F)
        change_F = np.linalg.solve(curvature_FF, gradient_F)
        weights_F = weights_F + change_F
        if np.abs(change_F).max() < 1e-10:
            break
    return float(weights_F[0]), float(weights_F[1])
