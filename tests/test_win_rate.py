"""Win rates: worked values, intervals that cover the truth in simulated experiments, a judge that likes length."""

import math

import numpy as np
import pytest

from utils.evaluation.win_rate import length_controlled, prompts_needed, sign_test, win_rate

EXPERIMENTS = 2000  # the share covered then has a standard error of half a percentage point


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


def experiment(rng: np.random.Generator, prompts: int, share: float) -> list[np.ndarray]:
    """Two judgements of each prompt: a tie in a fifth of them, else a win with the prompt's own probability."""
    chances_P = rng.beta(3 * share, 3 * (1 - share), size=prompts)
    wins_PJ = (rng.random((prompts, 2)) < chances_P[:, None]).astype(float)
    ties_PJ = rng.random((prompts, 2)) < 0.2
    return list(np.where(ties_PJ, 0.5, wins_PJ))


@pytest.mark.parametrize(
    "share", [0.6, pytest.param(0.5, marks=pytest.mark.full), pytest.param(0.85, marks=pytest.mark.full)]
)
def test_intervals_cover_the_truth(share):
    rng = np.random.default_rng(int(100 * share))
    truth = 0.2 * 0.5 + 0.8 * share
    covered = 0
    for number in range(EXPERIMENTS):
        rate = win_rate(experiment(rng, 200, share), seed=number).rate
        covered += rate.low <= truth <= rate.high
    assert abs(covered / EXPERIMENTS - 0.95) <= 0.015


def test_as_many_prompts_as_needed_show_the_difference_in_80_percent_of_the_experiments():
    rng = np.random.default_rng(7)
    share = 0.5 + 0.08 / 0.8
    spread = float(np.std([each.mean() for each in experiment(rng, 100_000, share)], ddof=1))
    needed = prompts_needed(spread, 0.08)
    seen = 0
    for _ in range(EXPERIMENTS):
        means_P = np.array([each.mean() for each in experiment(rng, needed, share)])
        error = means_P.std(ddof=1) / math.sqrt(needed)
        seen += means_P.mean() - 1.96 * error > 0.5
    assert abs(seen / EXPERIMENTS - 0.8) <= 0.03


def test_a_judge_that_likes_length_alone_is_caught():
    rng = np.random.default_rng(3)
    lengths, outcomes = [], []
    for _ in range(800):
        ours, theirs = int(rng.integers(100, 900)), int(rng.integers(50, 700))
        likes_longer = 1 / (1 + math.exp(-(ours - theirs) / 100))
        lengths.append((ours, theirs))
        outcomes.append([float(rng.random() < likes_longer)])
    assert win_rate(outcomes).rate.low > 0.55
    found = length_controlled(outcomes, lengths)
    assert found.rate.low <= 0.5 <= found.rate.high and found.slope > 1
    assert found.rate.high - found.rate.low < 0.15


def test_a_better_model_stays_better_at_equal_lengths():
    rng = np.random.default_rng(4)
    lengths = [(int(rng.integers(100, 900)), int(rng.integers(100, 900))) for _ in range(800)]
    outcomes = [[float(rng.random() < 0.7)] for _ in lengths]
    found = length_controlled(outcomes, lengths)
    assert found.rate.low <= 0.7 <= found.rate.high and found.rate.low > 0.6
    assert abs(found.slope) < 0.3


def test_equal_lengths_change_nothing():
    outcomes = [[1.0], [1.0], [0.0], [1.0]] * 50
    found = length_controlled(outcomes, [(10, 10)] * 200)
    assert found.rate.value == pytest.approx(0.75, abs=1e-3) and found.slope == 0
