"""Learning from rewards: KL estimates, advantages and the clipped losses, on flat token arrays.

Legend: N answer tokens of a batch laid end to end, A answers, T the longest answer; `lengths` are the answers' tokens.
Schulman et al. 2015 (GAE), arXiv:1506.02438; Schulman et al. 2017 (PPO), arXiv:1707.06347; Ziegler et al. 2019,
arXiv:1909.08593; Huang et al. 2024 (the details), arXiv:2403.17031.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

KL_ESTIMATES = ("k1", "k2", "k3")


def kl_estimate(log_ratio_N: Tensor, kind: str) -> Tensor:
    """Return KL(π‖ρ) at each token that π drew, from log π − log ρ. Schulman 2020, joschu.net/blog/kl-approx.html: k1
    is unbiased, k2 has less variance, k3 is unbiased and never negative."""
    if kind == "k1":
        return log_ratio_N
    if kind == "k2":
        return log_ratio_N.square() / 2
    return torch.expm1(-log_ratio_N) + log_ratio_N  # k3


def answer_rows(values_N: Tensor, lengths: Sequence[int]) -> Tensor:
    """Return [A, T] of [N], zeros behind short answers."""
    return torch.nn.utils.rnn.pad_sequence(values_N.split(list(lengths)), batch_first=True)


def flat(values_AT: Tensor, lengths: Sequence[int]) -> Tensor:
    """Return [N] of [A, T]."""
    return torch.cat([row[:length] for row, length in zip(values_AT, lengths, strict=True)])


def generalised_advantages(
    rewards_N: Tensor, values_N: Tensor, lengths: Sequence[int], gamma: float, lam: float
) -> Tensor:
    """Return GAE (eq. 11–16): A_t = δ_t + γλ A_{t+1} with δ_t = r_t + γ V_{t+1} − V_t; V is 0 after an
    answer's last token.

    Args:
        rewards_N: r of each token.
        values_N: V before each token.
        lengths: tokens of each answer.
        gamma: discount γ.
        lam: λ: 0 trusts the values, 1 the rewards that came.

    Returns:
        The advantage of each token, [N].
    """
    rewards_AT, values_AT = answer_rows(rewards_N, lengths), answer_rows(values_N, lengths)
    deltas_AT = rewards_AT + gamma * F.pad(values_AT, (0, 1))[:, 1:] - values_AT
    last = torch.tensor(list(lengths), device=values_N.device) - 1
    advantages_AT, running_A = torch.zeros_like(deltas_AT), deltas_AT.new_zeros(len(deltas_AT))
    for t in reversed(range(deltas_AT.shape[1])):
        running_A = torch.where(last >= t, deltas_AT[:, t] + gamma * lam * running_A, 0.0)
        advantages_AT[:, t] = running_A
    return flat(advantages_AT, lengths)


def leave_one_out(scores_K: Tensor) -> Tensor:
    """Return an answer's score minus the mean of the prompt's others. Kool et al. 2019; Ahmadian et al. 2024,
    arXiv:2402.14740, eq. 8. [K], K ≥ 2."""
    # s_k less the mean of the others is (s_k − mean of all) K / (K − 1).
    return (scores_K - scores_K.mean()) * (len(scores_K) / (len(scores_K) - 1))


def relative_to_group(scores_K: Tensor) -> Tensor:
    """Return (score − mean) / standard deviation over the prompt's answers: GRPO, Shao et al. 2024, arXiv:2402.03300,
    §4.1.2. Zero where all scores are equal."""
    centred_K = scores_K - scores_K.mean()
    # 1e-4 as in TRL: without it equal scores would be divided by zero
    return centred_K / (scores_K.std() + 1e-4)


# Advantages without a critic, by their option: an answer's total reward against those of the prompt's other answers.
COMPARISONS = {"rloo": leave_one_out, "group": relative_to_group}


def whitened(values_N: Tensor, weights_N: Tensor, keep_mean: bool = False) -> Tensor:
    """Return values of mean 0 (or kept) and variance 1 over the tokens of weight above 0; zeros if there is none."""
    kept_N = weights_N > 0
    total = kept_N.sum()
    if not total:
        return torch.zeros_like(values_N)
    mean = torch.where(kept_N, values_N, 0.0).sum() / total
    variance = torch.where(kept_N, (values_N - mean).square(), 0.0).sum() / total
    # 1e-8 as in Ziegler et al.'s code
    scaled = (values_N - mean) * torch.rsqrt(variance + 1e-8)
    return scaled + mean if keep_mean else scaled


def clipped_policy_losses(logprobs_N: Tensor, old_logprobs_N: Tensor, advantages_N: Tensor, clip: float) -> Tensor:
    """Return −min(ratio·A, clip(ratio, 1 − ε, 1 + ε)·A) of each token (PPO, eq. 7).

    Args:
        logprobs_N: log π of the policy in training.
        old_logprobs_N: log π of the policy that drew the tokens.
        advantages_N: A.
        clip: ε.
    """
    ratio_N = (logprobs_N - old_logprobs_N).exp()
    # The larger of two losses is the smaller of two gains: the pessimistic bound of eq. 7.
    return torch.maximum(-advantages_N * ratio_N, -advantages_N * ratio_N.clamp(1 - clip, 1 + clip))


def ratio_metrics(log_ratio_N: Tensor, clip: float) -> dict[str, Tensor]:
    """Return the ratios of an update, their distance from 1, which of them are beyond 1 ± `clip`, and KL(π_old‖π), how
    far the policy has moved from the one that drew the answers."""
    log_ratio_N = log_ratio_N.detach()
    ratio_N = log_ratio_N.exp()
    gap_N = (ratio_N - 1).abs()
    return {
        "ratio": ratio_N,
        "ratio_gap": gap_N,
        "clip_fraction": (gap_N > clip).float(),
        "update_kl": kl_estimate(-log_ratio_N, "k3"),
    }


def clipped_value_losses(values_N: Tensor, old_values_N: Tensor, returns_N: Tensor, clip: float) -> Tensor:
    """Return ½ max((V − R)², (clip(V, V_old ± ε) − R)²) of each token.

    Args:
        values_N: V of the critic in training.
        old_values_N: V of the critic before the rollout's updates.
        returns_N: R.
        clip: ε; 0 does not clip.
    """
    squared_N = (values_N - returns_N).square()
    if clip:
        near_N = old_values_N + (values_N - old_values_N).clamp(-clip, clip)
        squared_N = torch.maximum(squared_N, (near_N - returns_N).square())
    return squared_N / 2


def explained_variance(values_N: Tensor, returns_N: Tensor) -> float:
    """Return 1 − Var(R − V) / Var(R): 1 is a perfect critic, 0 one that says the mean; 0 where returns are constant."""
    spread = returns_N.var(correction=0)
    if spread == 0:
        return 0.0
    return float(1 - (returns_N - values_N).var(correction=0) / spread)


def standard_deviation(values_N: Tensor) -> float:
    """Return the unbiased estimate; 0 of a single value."""
    return float(values_N.std()) if len(values_N) > 1 else 0.0


class KLController:
    """The coefficient of the KL penalty: fixed, or led towards `target` (nats of an answer): Ziegler et al. 2019, §2.2,
    c ← c (1 + clip(KL/target − 1, ±0.2) n / horizon)."""

    def __init__(self, coefficient: float, target: float | None, horizon: int = 10_000) -> None:
        self.coefficient, self.target, self.horizon = coefficient, target, horizon

    def update(self, kl: float, answers: int) -> None:
        """Adapt the coefficient after a rollout of `answers` answers whose mean KL was `kl`."""
        if self.target is not None:
            error = min(0.2, max(-0.2, kl / self.target - 1))
            self.coefficient *= 1 + error * answers / self.horizon
