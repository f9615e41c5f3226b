"""Intervals and calibration against numbers worked by hand."""

import math
import random

import pytest

from utils.statistics import calibration, cluster_bootstrap, mean_interval, wilson_interval


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


def test_calibration():
    # bins [0.2, 0.3) and [0.9, 1]: |0.2 + 0.2 - 0 - 1| = 0.6 and |0.9 + 1.0 - 1 - 0| = 0.9; over 4 -> 0.375
    # Brier: (0.04 + 0.64 + 0.01 + 1) / 4
    result = calibration([0.2, 0.2, 0.9, 1.0], [0, 1, 1, 0])
    assert result.ece == pytest.approx(0.375)
    assert result.brier == pytest.approx(1.69 / 4)
    assert calibration([0.5, 0.5], [0, 1]) == (0.25, 0.0)
