"""Numbers with their uncertainty: means, shares and calibration, each with its formula and source."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

Z95 = 1.959963984540054  # the normal distribution's 97.5 % point


class Estimate(NamedTuple):
    """A value with its 95 % interval; n is the number of independent units. nan where n is too small."""

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"

    def to_json(self) -> dict[str, float | int | None]:
        """Return the fields; nan, which JSON has not, as null."""
        fields = self._asdict()
        for name, value in fields.items():
            if math.isnan(value):
                fields[name] = None
        return fields


def mean_interval(values: Sequence[float]) -> Estimate:
    """Return the mean of independent values, +- 1.96 standard errors (sd with n - 1). For n below 30 it is a little
    narrow: Student's t would be wider."""
    n = len(values)
    if n == 0:
        return _unknown(math.nan, n)
    mean = float(np.mean(values))
    if n == 1:
        return _unknown(mean, n)
    half = Z95 * float(np.std(values, ddof=1)) / math.sqrt(n)
    return Estimate(mean, low=mean - half, high=mean + half, n=n)


def _unknown(value: float, n: int) -> Estimate:
    """Return a value whose interval cannot be known."""
    return Estimate(value, low=math.nan, high=math.nan, n=n)


def cluster_bootstrap(clusters: Sequence[Sequence[float]], seed: int = 0, resamples: int = 2000) -> Estimate:
    """Return the mean over all values of clusters (the answers to one prompt, say), which are drawn whole, with
    replacement.

    Percentile interval (Efron & Tibshirani 1993, chapter 13); values of a cluster may depend on one another.
    """
    filled = [cluster for cluster in clusters if len(cluster)]
    if not filled:
        return _unknown(math.nan, 0)
    sums_C = np.array([np.sum(cluster) for cluster in filled], np.float64)
    sizes_C = np.array([len(cluster) for cluster in filled], np.float64)
    value = float(sums_C.sum() / sizes_C.sum())
    if len(filled) < 2:
        return _unknown(value, len(filled))
    rng = np.random.default_rng(seed)
    means: list[float] = []
    while len(means) < resamples:
        # In chunks: as many draws at once as fit in 8 MB of indices, whatever the number of clusters.
        at_once = min(max(1, 1_000_000 // len(filled)), resamples - len(means))
        drawn_RC = rng.integers(len(filled), size=(at_once, len(filled)))
        # Sum over sum, not a mean of means: clusters differ in size, and every value counts the same.
        means.extend(sums_C[drawn_RC].sum(axis=1) / sizes_C[drawn_RC].sum(axis=1))
    low, high = np.percentile(means, [2.5, 97.5])
    return Estimate(value, low=float(low), high=float(high), n=len(filled))


def wilson_interval(successes: float, n: int) -> Estimate:
    """Return a share and its interval (Wilson 1927): centre (s + z^2/2) / (n + z^2), sound near 0 and 1."""
    if n == 0:
        return _unknown(math.nan, 0)
    share = successes / n
    centre = (successes + Z95**2 / 2) / (n + Z95**2)
    half = Z95 / (n + Z95**2) * math.sqrt(n * share * (1 - share) + Z95**2 / 4)
    # The formula stays in [0, 1]: rounding alone leads a little beyond.
    return Estimate(share, low=max(0.0, centre - half), high=min(1.0, centre + half), n=n)


class Calibration(NamedTuple):
    """How well probabilities can be trusted."""

    brier: float  # mean (p - outcome)^2; 0.25 is what p = 1/2 everywhere gets
    ece: float  # expected calibration error: mean |confidence - share right|, weighted by bin


def calibration(probabilities: Sequence[float], outcomes: Sequence[float], bins: int = 10) -> Calibration:
    """Return the calibration of predicted probabilities against outcomes: 0, 1, or 1/2 for a tie. ECE over `bins` of
    equal width (Naeini et al. 2015)."""
    p_N, y_N = np.asarray(probabilities, np.float64), np.asarray(outcomes, np.float64)
    if not len(p_N):
        return Calibration(math.nan, math.nan)
    # p = 1 belongs to the last bin.
    bin_N = np.minimum((p_N * bins).astype(int), bins - 1)
    gaps = [abs(float(np.sum(p_N[bin_N == b] - y_N[bin_N == b]))) for b in range(bins)]
    return Calibration(float(np.mean((p_N - y_N) ** 2)), sum(gaps) / len(p_N))


def calibration_bins(probabilities: Sequence[float], outcomes: Sequence[float], bins: int = 10) -> list[dict[str, Any]]:
    """Return the filled bins of calibration(), for a reliability diagram (Naeini et al. 2015): mean prediction and
    observed share with its Wilson interval. The mean of |predicted - observed|, weighted by n, is calibration().ece."""
    p_N, y_N = np.asarray(probabilities, np.float64), np.asarray(outcomes, np.float64)
    bin_N = np.minimum((p_N * bins).astype(int), bins - 1)
    found = []
    for b in np.unique(bin_N).tolist():
        p_B, y_B = p_N[bin_N == b], y_N[bin_N == b]
        observed = wilson_interval(float(y_B.sum()), len(y_B)).to_json()
        edges = {"low": b / bins, "high": (b + 1) / bins}
        found.append({**edges, "n": len(p_B), "predicted": float(p_B.mean()), "observed": observed})
    return found


def best_of_n(scores: Sequence[float], values: Sequence[float], n: int) -> float:
    """Return the expected value of the answer with the highest score among n: the mean over all subsets of n of these N
    answers.

    sum_i C(i - 1, n - 1) / C(N, n) * v_(i), where v_(i) is the value of the answer with the i-th lowest score: the
    unbiased estimator of Nakano et al. 2021 (WebGPT, arXiv:2112.09332), used by Gao et al. 2022 (arXiv:2210.10760).
    Among equal scores the earlier answer wins. values = scores gives the expected highest score.
    """
    total = len(scores)
    ranked = sorted(range(total), key=lambda k: (scores[k], -k))
    wins = [math.comb(i, n - 1) for i in range(total)]  # subsets of n in which rank i + 1 is the highest
    return sum(w * values[k] for w, k in zip(wins, ranked, strict=True) if w) / math.comb(total, n)


def doublings(most: int) -> list[int]:
    """Return 1, 2, 4, ... up to `most`, which is always the last."""
    found, number = [], 1
    while number < most:
        found.append(number)
        number *= 2
    return [*found, most]


def cohens_kappa(tables: Sequence[np.ndarray], seed: int = 0, resamples: int = 2000) -> Estimate:
    """Return the agreement of two raters beyond chance, (p_o - p_e) / (1 - p_e) (Cohen 1960); nan where chance
    agrees always.

    `tables` are counts [first rater's category, second's] of clusters, which are summed; the interval draws clusters
    whole, with replacement, as cluster_bootstrap does.
    """
    counts_CKK = np.asarray([table for table in tables if np.sum(table)], np.float64)
    clusters = len(counts_CKK)
    if not clusters:
        return _unknown(math.nan, 0)
    value = _kappa(counts_CKK.sum(0))
    if clusters < 2:
        return _unknown(value, clusters)
    rng = np.random.default_rng(seed)
    kappas = []
    for _ in range(resamples):
        kappa = _kappa(counts_CKK[rng.integers(clusters, size=clusters)].sum(0))
        # A draw in which all agree by chance alone has none.
        if not math.isnan(kappa):
            kappas.append(kappa)
    low, high = np.percentile(kappas or [math.nan], [2.5, 97.5])
    return Estimate(value, low=float(low), high=float(high), n=clusters)


def _kappa(counts_KK: np.ndarray) -> float:
    share_KK = counts_KK / counts_KK.sum()
    chance = float(share_KK.sum(0) @ share_KK.sum(1))
    if math.isclose(chance, 1):
        return math.nan
    return (float(np.trace(share_KK)) - chance) / (1 - chance)
