"""Intervals and calibration against numbers worked by hand."""

import itertools
import math
import random

import numpy as np
import pytest

from utils.statistics import (
    best_of_n,
    calibration,
    calibration_bins,
    cluster_bootstrap,
    doublings,
    mean_interval,
    wilson_interval,
)


def test_mean_interval():
    # mean 3; sd of 1..5 is sqrt(10/4) = 1.5811; standard error 0.70711; 1.96 x that is 1.38590
    estimate = mean_interval([1, 2, 3, 4, 5])
    assert estimate.value == 3 and estimate.n == 5
    assert estimate.low == pytest.approx(3 - 1.38590, abs=1e-4)
    assert estimate.high == pytest.approx(3 + 1.38590, abs=1e-4)
    assert math.isnan(mean_interval([2.0]).low) and mean_interval([2.0]).value == 2
    assert mean_interval([]).to_json() == {"value": None, "low": None, "high": None, "n": 0}


def test_wilson_interval():
    # 8 of 10: centre (8 + 1.92073) / (10 + 3.84146) = 0.71674
    # half 1.95996 / 13.84146 x sqrt(10 x 0.8 x 0.2 + 0.96036) = 0.22659
    estimate = wilson_interval(8, 10)
    assert estimate.value == 0.8
    assert estimate.low == pytest.approx(0.71674 - 0.22659, abs=1e-4)
    assert estimate.high == pytest.approx(0.71674 + 0.22659, abs=1e-4)
    assert wilson_interval(0, 10).low == 0 and wilson_interval(10, 10).high == pytest.approx(1)


def test_bootstrap_weighs_values_and_draws_clusters():
    assert cluster_bootstrap([[1, 1, 1], [5]], seed=1).value == 2  # (1 + 1 + 1 + 5) / 4, not (1 + 5) / 2
    assert cluster_bootstrap([[2, 2], [2, 2, 2]]).low == 2
    rng = random.Random(0)
    values = [rng.gauss(0, 1) for _ in range(400)]
    single = cluster_bootstrap([[v] for v in values], seed=1)
    plain = mean_interval(values)
    assert single.high - single.low == pytest.approx(plain.high - plain.low, rel=0.1)
    fourfold = cluster_bootstrap([[v] * 4 for v in values], seed=1)  # four times the same says no more
    assert fourfold.high - fourfold.low == pytest.approx(single.high - single.low, rel=1e-9)
    assert cluster_bootstrap([[v] for v in values], seed=1) == single
    assert cluster_bootstrap([[], [3.0]]).n == 1


@pytest.mark.parametrize("clusters", [2, 129, 3000])  # 3,000 are drawn in seven chunks of up to 333
def test_bootstrap_draws_one_resample_after_the_other(clusters):
    """To the last bit what a loop over single resamples gives: chunks take the same draws, and add in the same
    order."""
    rng = np.random.default_rng(clusters)
    values = [rng.normal(size=rng.integers(1, 5)) for _ in range(clusters)]
    sums, sizes = np.array([each.sum() for each in values]), np.array([float(len(each)) for each in values])
    rng, means = np.random.default_rng(7), []
    for _ in range(2000):
        drawn = rng.integers(clusters, size=clusters)
        means.append(sums[drawn].sum() / sizes[drawn].sum())
    found = cluster_bootstrap(values, seed=7)
    assert (found.low, found.high) == tuple(np.percentile(means, [2.5, 97.5]))


def test_calibration():
    # bins [0.2, 0.3) and [0.9, 1]: |0.2 + 0.2 - 0 - 1| = 0.6 and |0.9 + 1.0 - 1 - 0| = 0.9; over 4 -> 0.375
    # Brier: (0.04 + 0.64 + 0.01 + 1) / 4
    result = calibration([0.2, 0.2, 0.9, 1.0], [0, 1, 1, 0])
    assert result.ece == pytest.approx(0.375)
    assert result.brier == pytest.approx(1.69 / 4)
    assert calibration([0.5, 0.5], [0, 1]) == (0.25, 0.0)


def test_calibration_bins_are_those_of_the_calibration_error():
    first, last = calibration_bins([0.2, 0.2, 0.9, 1.0], [0, 1, 1, 0])
    assert (first["low"], first["high"], first["n"], last["low"], last["high"], last["n"]) == (0.2, 0.3, 2, 0.9, 1.0, 2)
    assert first["predicted"] == pytest.approx(0.2) and last["predicted"] == pytest.approx(0.95)
    assert first["observed"] == wilson_interval(1, 2).to_json()
    rng = random.Random(0)
    p, y = [rng.random() for _ in range(500)], [rng.randrange(2) for _ in range(500)]
    bins = calibration_bins(p, y)
    ece = sum(b["n"] * abs(b["predicted"] - b["observed"]["value"]) for b in bins) / 500
    assert len(bins) == 10 and ece == pytest.approx(calibration(p, y).ece) and calibration_bins([], []) == []


def test_best_of_n_is_the_mean_over_all_subsets():
    # of (1, 3), (1, 2), (3, 2) the best are worth 30, 20, 30
    assert best_of_n([1, 3, 2], [10, 30, 20], 2) == pytest.approx(80 / 3)
    rng = random.Random(0)
    scores, values = [rng.randrange(4) for _ in range(7)], [rng.random() for _ in range(7)]
    for n in range(1, 8):  # max() keeps the earlier of two equals
        bests = [max(subset, key=lambda k: scores[k]) for subset in itertools.combinations(range(7), n)]
        assert best_of_n(scores, values, n) == pytest.approx(sum(values[k] for k in bests) / len(bests))


def test_doublings():
    assert [doublings(n) for n in (1, 2, 3, 16)] == [[1], [1, 2], [1, 2, 3], [1, 2, 4, 8, 16]]
