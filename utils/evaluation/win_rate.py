"""Win rates of a model against a reference: an estimate with its interval, a test, and how many prompts are needed.

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
    """A win rate in per cent over judgements, each of the same weight.

    Args:
        percent: 100 x the mean outcome.
        half_width: of the 95 % interval in percentage points: 196 x the standard error; None where it is unknown.
    """

    percent: float
    half_width: float | None
    n: int
    wins: int
    ties: int
    losses: int


def simple_win_rate(outcomes: Sequence[Sequence[float]], independent: bool) -> SimpleWinRate:
    """Return the mean over judgements and 1.96 standard errors, as Bansal et al. 2023 (arXiv:2308.15812) report it.

    Args:
        outcomes: for each prompt its outcomes.
        independent: whether all judgements are taken to be independent, as in that paper: sd (with n - 1) / sqrt(n).
            Otherwise the prompts are: the standard error is then sqrt(C / (C - 1) sum_c (sum_j (x_cj - mean))^2) / n
            over C prompts (Liang & Zeger 1986), the same number where every prompt has one judgement.
    """
    filled = [each for each in outcomes if len(each)]
    values = np.concatenate(list(map(np.asarray, filled))).astype(np.float64)
    clusters, half_width = filled, None
    if independent:
        clusters = values[:, None]
    if len(clusters) > 1:
        sums_C = np.array([np.sum(np.asarray(each) - values.mean()) for each in clusters])
        spread = math.sqrt(len(clusters) / (len(clusters) - 1) * float(sums_C @ sums_C))
        half_width = 196 * spread / len(values)
    return SimpleWinRate(
        percent=100 * float(values.mean()),
        half_width=half_width,
        n=len(values),
        wins=int((values > 0.5).sum()),
        ties=int((values == 0.5).sum()),
        losses=int((values < 0.5).sum()),
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
        difference: of the win rate from 1/2, as 0.05, or of two win rates on the same prompts.
    """
    return math.ceil(((Z95 + Z80) * spread / difference) ** 2)


def difference_seen(spread: float, prompts: int) -> float:
    """Return the smallest difference that `prompts` show in 80 % of the experiments: prompts_needed() turned round."""
    return (Z95 + Z80) * spread / math.sqrt(prompts)
