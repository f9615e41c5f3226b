"""Losses against numbers worked by hand (test_trl.py holds them against TRL's trainer)."""

import math

import pytest
import torch

from utils.losses import accuracy
from utils.losses.preference import LOSSES, LogRatios
from utils.losses.reward import bradley_terry

# log π(chosen) − log ρ(chosen) = −10 − (−11) = 1, rejected −12 − (−11.5) = −0.5: Δ = 1.5; β = 0.1: βΔ = 0.15
HAND = LogRatios(torch.tensor([1.0]), torch.tensor([-0.5]), torch.tensor([4]), torch.tensor([2]), beta=0.1)


@pytest.mark.parametrize(
    "name, smoothing, expected",
    [
        ("sigmoid", 0.0, 0.6209570),  # log(1 + exp(−0.15))
        ("cdpo", 0.0, 0.6209570),
        ("cdpo", 0.1, 0.6359570),  # 0.9 log(1 + e^−0.15) + 0.1 log(1 + e^0.15)
        ("ipo", 0.0, 12.25),  # (1.5 − 5)²
        ("ipo_mean", 0.0, 20.25),  # (1/4 + 0.5/2 − 5)² = (0.5 − 5)²
    ],
)
def test_by_hand(name, smoothing, expected):
    pairs = LogRatios(HAND.chosen, HAND.rejected, HAND.chosen_tokens, HAND.rejected_tokens, 0.1, smoothing)
    assert LOSSES[name].losses(pairs).tolist() == pytest.approx([expected], abs=1e-6)


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_the_value_at_the_start(name):
    zero = torch.zeros(1)
    pairs = LogRatios(zero, zero, torch.tensor([3]), torch.tensor([5]), 0.25, 0.1 if LOSSES[name].smooths else 0.0)
    assert LOSSES[name].losses(pairs).item() == pytest.approx(LOSSES[name].at_start(0.25, 0.1), abs=1e-6)


def test_extreme_margins_stay_finite():
    far = LogRatios(torch.tensor([-1e4, 1e4]), torch.tensor([1e4, -1e4]), torch.ones(2), torch.ones(2), 1.0, 0.1)
    for loss in LOSSES.values():
        assert loss.losses(far).isfinite().all()


def test_bradley_terry_by_hand():
    # difference 0.5: log(1 + e^−0.5); difference log 3: P = 3/4
    found = bradley_terry(torch.tensor([1.2, math.log(3)]), torch.tensor([0.7, 0.0]))
    assert found.tolist() == pytest.approx([0.4740770, -math.log(0.75)], abs=1e-6)


def test_a_tie_counts_half():
    assert accuracy(torch.tensor([0.3, -1e-9, 0.0, -0.0, 2.0])).tolist() == [1.0, 0.0, 0.5, 0.5, 1.0]
