"""Learning from AI feedback in a bandit of 100 actions: Sharma et al. 2024, A Critical Evaluation of AI Feedback,
arXiv:2402.12366, section 5.

Action i has the true reward i. A strong teacher acts around action 80, a weak student around 40. Supervised fine-tuning
(SFT) imitates the teacher's actions; reinforcement learning from AI feedback (RLAIF) lets a perfect judge compare pairs
of the student's actions, fits a reward to the verdicts and improves the student with it. Legend: I actions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class BanditSetting:
    """The experiment's numbers, by default those of the paper's notebook."""

    actions: int = 100
    teacher_centre: float = 80.0
    student_centre: float = 40.0
    width: float = 300.0  # p(i) is proportional to exp(-(i - centre)^2 / width)
    samples: int = 250_000  # of the teacher's actions for SFT, and of the student's pairs for RLAIF
    learning_rate: float = 0.01  # of plain gradient descent on means over all samples
    reward_steps: int = 7_500
    sft_steps: int = 15_000
    beta: float = 0.1  # strength of the KL penalty in RLAIF

    @property
    def true_reward(self) -> np.ndarray:
        """Return the true reward of each action."""
        return np.arange(self.actions, dtype=np.float64)

    @property
    def teacher(self) -> np.ndarray:
        """Return the teacher's probability of each action."""
        return self._bell(self.teacher_centre)

    @property
    def student(self) -> np.ndarray:
        """Return the student's probability of each action."""
        return self._bell(self.student_centre)

    def _bell(self, centre: float) -> np.ndarray:
        weights_I = np.exp(-((np.arange(self.actions) - centre) ** 2) / self.width)
        return weights_I / weights_I.sum()


@dataclass(frozen=True)
class BanditOutcome:
    """What one seed gives: three policies and the learned reward, one number per action each."""

    setting: BanditSetting
    sft_I: np.ndarray
    rlaif_I: np.ndarray
    reward_I: np.ndarray

    def expected(self) -> dict[str, float]:
        """Return the expected true reward of each policy."""
        policies = {"teacher": self.setting.teacher, "sft": self.sft_I, "rlaif": self.rlaif_I}
        policies["student"] = self.setting.student
        return {name: float(policy_I @ self.setting.true_reward) for name, policy_I in policies.items()}

    def fall(self) -> float:
        """Return how far the learned reward of the best action lies below the learned reward's peak; 0 when the reward
        grows up to the best action, as the true one does."""
        return float(self.reward_I.max() - self.reward_I[-1])


def run(setting: BanditSetting, seed: int) -> BanditOutcome:
    """Return the experiment's outcome for one seed."""
    rng = np.random.default_rng(seed)
    pairs = rng.choice(setting.actions, size=(setting.samples, 2), p=setting.student)
    taught = rng.choice(setting.actions, size=setting.samples, p=setting.teacher)
    reward_I = fit_reward(wins(pairs, setting.actions), setting)
    return BanditOutcome(
        setting=setting,
        sft_I=fit_policy(np.bincount(taught, minlength=setting.actions) / setting.samples, setting),
        rlaif_I=improve(setting.student, reward_I, setting.beta),
        reward_I=reward_I,
    )


def wins(pairs: np.ndarray, actions: int) -> np.ndarray:
    """Return which share of pairs action i wins against action j, [i, j]. The higher action wins; two equal ones are a
    tie, which teaches nothing and is only counted in the denominator.

    Args:
        pairs: two actions a row, [pairs, 2].
        actions: the number of actions.
    """
    high, low = pairs.max(axis=1), pairs.min(axis=1)
    counts = np.bincount(high * actions + low, minlength=actions * actions).reshape(actions, actions)
    np.fill_diagonal(counts, 0)
    return counts / len(pairs)


def fit_reward(wins_II: np.ndarray, setting: BanditSetting) -> np.ndarray:
    """Return a table of rewards after gradient descent from zeros on the Bradley-Terry loss, the mean of
    -log sigmoid(reward of the winner - reward of the loser)."""
    # Descent on all samples at once needs their counts alone: the same steps as on 250,000 rows, in 100 x 100 numbers.
    winner, loser = np.nonzero(wins_II)
    share, reward_I = wins_II[winner, loser], np.zeros(len(wins_II))
    for _ in range(setting.reward_steps):
        pull = share / (1 + np.exp(reward_I[winner] - reward_I[loser]))
        descent_I = np.bincount(winner, pull, len(reward_I)) - np.bincount(loser, pull, len(reward_I))
        reward_I = reward_I + setting.learning_rate * descent_I
    return reward_I


def fit_policy(frequency_I: np.ndarray, setting: BanditSetting) -> np.ndarray:
    """Return softmax(logits) after gradient descent from zero logits on the mean negative log-likelihood of the
    teacher's actions, whose frequencies are given."""
    logits_I = np.zeros(len(frequency_I))
    for _ in range(setting.sft_steps):
        logits_I = logits_I + setting.learning_rate * (frequency_I - softmax(logits_I))
    return softmax(logits_I)


def improve(student_I: np.ndarray, reward_I: np.ndarray, beta: float) -> np.ndarray:
    """Return the policy of highest expected reward - beta KL(policy | student): student x exp(reward / beta), made to
    sum to 1 (Rafailov et al. 2023, eq. 4)."""
    return softmax(np.log(student_I) + reward_I / beta)


def softmax(logits_I: np.ndarray) -> np.ndarray:
    """Return probabilities of logits."""
    weights_I = np.exp(logits_I - logits_I.max())
    return weights_I / weights_I.sum()
