"""Every interval that an evaluation prints, and the power calculation, against simulated experiments whose truth is
known: 2,000 experiments of 200 prompts with ties, so that the share covered has a standard error of 0.5 points."""

import math

import numpy as np
import pytest

from utils.evaluation.length_control import length_controlled
from utils.evaluation.tutoring import Coded, macro_f1
from utils.evaluation.win_rate import Z80, prompts_needed, sign_test, simple_win_rate, win_rate
from utils.statistics import Z95, best_of_n, cluster_bootstrap, cohens_kappa, mean_interval

EXPERIMENTS, PROMPTS, TIES = 2000, 200, 0.2


def judgements(rng: np.random.Generator, share: float, prompts: int = PROMPTS) -> np.ndarray:
    """Two judgements of each prompt: a tie in a fifth of them, else a win with the prompt's own probability."""
    chances_P = rng.beta(3 * share, 3 * (1 - share), size=prompts)
    wins_PJ = (rng.random((prompts, 2)) < chances_P[:, None]).astype(float)
    return np.where(rng.random((prompts, 2)) < TIES, 0.5, wins_PJ)


def truth_of(share: float) -> float:
    return TIES / 2 + (1 - TIES) * share


def covers(interval_of, experiments: int = EXPERIMENTS) -> float:
    """The share of the experiments whose interval, interval_of(number) -> (low, truth, high), holds the truth."""
    covered = 0
    for number in range(experiments):
        low, truth, high = interval_of(number)
        covered += low <= truth <= high
    return covered / experiments


def is_right(share: float) -> bool:
    return abs(share - 0.95) <= 0.015


@pytest.mark.parametrize(
    "share", [0.6, pytest.param(0.5, marks=pytest.mark.full), pytest.param(0.85, marks=pytest.mark.full)]
)
def test_the_bootstrap_over_prompts(share):
    rng = np.random.default_rng(int(100 * share))

    def interval(number):
        rate = win_rate(judgements(rng, share), seed=number).rate
        return rate.low, truth_of(share), rate.high

    assert is_right(covers(interval))


@pytest.mark.parametrize("share", [0.5, 0.6, 0.85])
@pytest.mark.parametrize("independent", [True, False])
def test_standard_errors_of_a_win_rate(share, independent):
    """One judgement of each prompt, as in ratings and rankings; or two that depend on one another."""
    rng = np.random.default_rng(int(100 * share) + independent)

    def interval(number):
        outcomes_PJ = judgements(rng, share)
        if independent:
            outcomes_PJ = outcomes_PJ[:, :1]
        found = simple_win_rate(outcomes_PJ, independent)
        return found.percent - found.half_width, 100 * truth_of(share), found.percent + found.half_width

    assert is_right(covers(interval))


def test_dependent_judgements_taken_as_independent_cover_too_little():
    rng = np.random.default_rng(1)

    def interval(number):
        found = simple_win_rate(judgements(rng, 0.6), independent=True)
        return found.percent - found.half_width, 100 * truth_of(0.6), found.percent + found.half_width

    assert covers(interval) < 0.935


def liking_length(rng: np.random.Generator, intercept: float, slope: float, ties: float):
    """Two judgements of each prompt by the model of length_controlled(), and the lengths: the model's answers are the
    longer ones on most prompts. A tie takes as much from the wins as from the losses."""
    differences_P = rng.normal(150, 300, size=PROMPTS).round()
    chances_P = 1 / (1 + np.exp(-intercept - slope * np.tanh(differences_P / 300)))
    ties_P = 2 * ties * np.minimum(chances_P, 1 - chances_P)
    drawn_PJ = rng.random((PROMPTS, 2))
    wins_PJ = (drawn_PJ < (chances_P - ties_P / 2)[:, None]).astype(float)
    outcomes_PJ = np.where(drawn_PJ > 1 - ties_P[:, None], 0.5, wins_PJ)
    # In a third of the prompts the second judgement repeats the first: the two depend on one another.
    again_P = rng.random(PROMPTS) < 1 / 3
    outcomes_PJ[again_P, 1] = outcomes_PJ[again_P, 0]
    return outcomes_PJ, np.stack([differences_P, differences_P], axis=1)


@pytest.mark.parametrize("intercept, slope", [(0.0, 0.0), (0.0, 2.0), (0.5, 1.0), (-1.0, 0.5)])
def test_the_length_controlled_rate(intercept, slope):
    rng = np.random.default_rng(int(10 * slope) + 7)
    truth = 1 / (1 + math.exp(-intercept))

    def interval(number):
        rate = length_controlled(*liking_length(rng, intercept, slope, ties=0.3)).rate
        return rate.low, truth, rate.high

    assert is_right(covers(interval))


@pytest.mark.full
def test_the_bootstrap_over_values_of_clusters_of_different_sizes():
    """Prompts with many answers have the lower values: every value counts the same."""
    rng = np.random.default_rng(2)
    sizes = np.array([1, 2, 5])
    truth = float(sizes @ (1.0 - 0.2 * sizes)) / sizes.sum()

    def interval(number):
        clusters = []
        for size in rng.choice(sizes, size=PROMPTS).tolist():
            of_prompt = 1.0 - 0.2 * size + rng.normal()
            clusters.append(of_prompt + rng.normal(size=size))
        found = cluster_bootstrap(clusters, seed=number)
        return found.low, truth, found.high

    assert is_right(covers(interval))


@pytest.mark.full
@pytest.mark.parametrize("n", [1, 4, 16])
def test_best_of_n(n):
    """16 answers of a prompt with uniform scores, which are the values: the best of n is worth n / (n + 1), and the
    prompts differ by a shift of their own, which is 0 in the mean."""
    rng = np.random.default_rng(n)

    def interval(number):
        scores_PN = rng.random((PROMPTS, 16))
        shifts_P = rng.normal(scale=0.3, size=PROMPTS)
        expected = [[best_of_n(scores, scores + shift, n)] for scores, shift in zip(scores_PN, shifts_P, strict=True)]
        found = cluster_bootstrap(expected, seed=number, resamples=500)
        return found.low, n / (n + 1), found.high

    assert is_right(covers(interval))


@pytest.mark.full
def test_kappa():
    """Two raters of four pairs a prompt: 60 % copied, the others drawn from the same three shares, so kappa is 0.6."""
    rng = np.random.default_rng(3)
    shares = [0.2, 0.5, 0.3]

    def interval(number):
        first_PJ = rng.choice(3, p=shares, size=(PROMPTS, 4))
        second_PJ = np.where(rng.random((PROMPTS, 4)) < 0.6, first_PJ, rng.choice(3, p=shares, size=(PROMPTS, 4)))
        tables_PKK = np.zeros((PROMPTS, 3, 3))
        np.add.at(tables_PKK, (np.arange(PROMPTS)[:, None], first_PJ, second_PJ), 1)
        found = cohens_kappa(tables_PKK, seed=number, resamples=500)
        return found.low, 0.6, found.high

    assert is_right(covers(interval))


def test_the_mean_over_prompts():
    rng = np.random.default_rng(4)

    def interval(number):
        found = mean_interval(judgements(rng, 0.6).mean(axis=1))
        return found.low, truth_of(0.6), found.high

    assert is_right(covers(interval))


@pytest.mark.parametrize("difference", [0.05, 0.08, 0.15])
def test_as_many_prompts_as_needed_show_the_difference_in_80_percent_of_the_experiments(difference):
    rng = np.random.default_rng(7)
    share = 0.5 + difference / (1 - TIES)
    spread = float(np.std(judgements(rng, share, prompts=100_000).mean(axis=1), ddof=1))
    needed = prompts_needed(spread, difference)
    seen = 0
    for _ in range(EXPERIMENTS):
        found = mean_interval(judgements(rng, share, prompts=needed).mean(axis=1))
        seen += found.low > 0.5 or found.high < 0.5
    assert abs(seen / EXPERIMENTS - 0.8) <= 0.025
    assert abs(Z80 - 0.84162) < 1e-5 and abs(Z95 - 1.95996) < 1e-5


def test_the_sign_test_is_wrong_in_at_most_5_percent_of_the_experiments_without_a_difference():
    rng = np.random.default_rng(8)
    found = 0
    for _ in range(EXPERIMENTS):
        outcomes_P = judgements(rng, 0.5)[:, 0]
        found += sign_test(int((outcomes_P == 1).sum()), int((outcomes_P == 0).sum())) < 0.05
    assert 0.025 <= found / EXPERIMENTS <= 0.06


@pytest.mark.full
def test_macro_f1():
    """Three turns of each conversation: 70 % of the predictions are copied, the others drawn from other shares."""
    rng = np.random.default_rng(9)
    actual_3, other_3 = np.array([0.2, 0.5, 0.3]), np.array([0.4, 0.3, 0.3])
    joint_33 = 0.7 * np.diag(actual_3) + 0.3 * np.outer(actual_3, other_3)
    truth = float((2 * np.diag(joint_33) / (joint_33.sum(0) + joint_33.sum(1))).mean())

    def interval(number):
        actual_PJ = rng.choice(3, p=actual_3, size=(PROMPTS, 3))
        copied_PJ = rng.random((PROMPTS, 3)) < 0.7
        predicted_PJ = np.where(copied_PJ, actual_PJ, rng.choice(3, p=other_3, size=(PROMPTS, 3)))
        codes = []
        for row, (actual, predicted) in enumerate(zip(actual_PJ.tolist(), predicted_PJ.tolist(), strict=True)):
            for pair in zip(actual, predicted, strict=True):
                codes.append(Coded(f"{row}", *(("abc"[code]) for code in pair)))
        found = macro_f1(codes, seed=number)
        return found.low, truth, found.high

    assert is_right(covers(interval))
