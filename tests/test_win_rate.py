"""Win rates: worked values, and a judge that likes length. tests/test_win_rate_coverage.py has the simulations."""

import math

import numpy as np
import pytest

from utils.evaluation.length_control import length_controlled
from utils.evaluation.win_rate import difference_seen, prompts_needed, sign_test, simple_win_rate, win_rate


def test_prompts_weigh_the_same_and_ties_count_half():
    """Means 1, 1/2, 1/2, 0 and 1: the two outcomes of the third prompt disagree, the fourth has three judges."""
    found = win_rate([[1.0], [0.5], [1.0, 0.0], [0.0, 0.0, 0.0], [1.0, 1.0], []])
    assert (found.rate.value, found.rate.n) == (0.6, 5)
    assert (found.wins, found.ties, found.losses) == (2, 2, 1)
    assert found.spread == pytest.approx(math.sqrt(0.7 / 4))


@pytest.mark.parametrize(
    ("wins", "losses", "p"),
    [(8, 2, 112 / 1024), (2, 8, 112 / 1024), (0, 5, 2 / 32), (5, 5, 1.0), (0, 0, 1.0)],
)
def test_sign_test(wins, losses, p):
    """8 of 10: 2 * (1 + 10 + 45) / 1024."""
    assert sign_test(wins, losses) == pytest.approx(p, abs=1e-15)


def test_sign_test_of_more_prompts_than_a_float_can_count():
    """Against the normal approximation with continuity correction, which is good to a few per cent here."""
    z = (1100 - 1000 - 1) / math.sqrt(2100)
    assert sign_test(1100, 1000) == pytest.approx(math.erfc(z / math.sqrt(2)), rel=0.01)


def test_a_win_rate_of_independent_judgements():
    """Mean 0.625; sd of 1, 1, 1/2, 0 is sqrt(11/48) = 0.47871; 196 * 0.47871 / 2."""
    found = simple_win_rate([[1.0, 1.0], [0.5], [0.0]], independent=True)
    assert (found.percent, found.n, found.wins, found.ties, found.losses) == (62.5, 4, 2, 1, 1)
    assert found.half_width == pytest.approx(98 * math.sqrt(11 / 48))


def test_a_win_rate_of_prompts_with_several_judgements():
    """Residuals from 0.625 by prompt: 0.75, -0.125, -0.625, squared 0.96875; sqrt(3/2 * 0.96875) / 4."""
    found = simple_win_rate([[1.0, 1.0], [0.5], [0.0]], independent=False)
    assert found.half_width == pytest.approx(49 * math.sqrt(1.5 * 0.96875))
    once = [[1.0], [1.0], [0.5], [0.0]]
    assert simple_win_rate(once, True).half_width == pytest.approx(simple_win_rate(once, False).half_width)
    assert simple_win_rate([[1.0, 0.0]], independent=False).half_width is None


def test_prompts_needed():
    """(1.95996 + 0.84162)^2 * (0.4 / 0.05)^2 = 7.84888 * 64 = 502.33: what 503 prompts show is just below 5 points."""
    assert prompts_needed(0.4, 0.05) == 503
    assert difference_seen(0.4, 503) == pytest.approx(0.05, abs=5e-5) and difference_seen(0.4, 503) < 0.05


def differences(lengths):
    return [[ours - theirs] for ours, theirs in lengths]


def lengths_of(count: int, seed: int) -> list[tuple[int, int]]:
    """The model's answers are the longer ones on two thirds of the prompts."""
    rng = np.random.default_rng(seed)
    return [(int(rng.integers(100, 900)), int(rng.integers(50, 700))) for _ in range(count)]


LENGTH_JUDGES = {
    "smooth": lambda d, draw: float(draw < 1 / (1 + math.exp(-d / 100))),
    "noisy": lambda d, draw: float((d > 0) == (draw < 0.9)),
    "strict": lambda d, draw: 0.5 if d == 0 else float(d > 0),
}


@pytest.mark.parametrize("judge", LENGTH_JUDGES)
def test_a_judge_that_likes_length_alone_is_caught(judge):
    lengths, rng = lengths_of(800, seed=3), np.random.default_rng(4)
    outcomes = [[LENGTH_JUDGES[judge](ours - theirs, rng.random())] for ours, theirs in lengths]
    assert win_rate(outcomes).rate.low > 0.55
    found = length_controlled(outcomes, differences(lengths))
    assert found.rate.low <= 0.5 <= found.rate.high and found.slope > 1
    assert found.rate.high - found.rate.low < 0.25


def test_a_better_model_stays_better_at_equal_lengths():
    rng = np.random.default_rng(4)
    lengths = [(int(rng.integers(100, 900)), int(rng.integers(100, 900))) for _ in range(800)]
    outcomes = [[float(rng.random() < 0.7)] for _ in lengths]
    found = length_controlled(outcomes, differences(lengths))
    assert found.rate.low <= 0.7 <= found.rate.high and found.rate.low > 0.6
    assert abs(found.slope) < 0.3


def test_equal_lengths_change_nothing_but_the_added_prompts():
    """150 wins of 200, with two prompts of half a win each: (150 + 1) / 202. The two have lengths, so a slope of 0."""
    outcomes = [[1.0], [1.0], [0.0], [1.0]] * 50
    found = length_controlled(outcomes, [[0]] * 200)
    assert found.rate.value == pytest.approx(151 / 202, abs=2e-3) and abs(found.slope) < 1e-9 and found.longer == 0


def test_wins_alone_have_a_finite_rate_and_one_prompt_has_no_interval():
    found = length_controlled([[1.0]] * 30, [[n] for n in range(30)])
    assert 0.8 < found.rate.value < 1 and found.rate.high < 1
    assert math.isnan(length_controlled([[1.0]], [[3]]).rate.low)


def test_judgements_of_one_prompt_are_no_further_prompts():
    lengths, rng = lengths_of(200, seed=5), np.random.default_rng(6)
    outcomes = [[float(rng.random() < 0.6)] for _ in lengths]
    once = length_controlled(outcomes, differences(lengths))
    fourfold = length_controlled([each * 4 for each in outcomes], [each * 4 for each in differences(lengths)])
    assert fourfold.rate == pytest.approx(once.rate, rel=1e-9)
