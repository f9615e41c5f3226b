"""What a step of PPO learns from: answers of the policy with numbers for their tokens, of all ranks together.

Legend: N answer tokens of several answers laid end to end, A answers, k answers of a prompt.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from utils.arguments.ppo import PPOArguments
from utils.model.batch import Batch
from utils.tokens.group import Group


@dataclass
class Rollout:
    """One prompt, its k answers, and numbers of their tokens [N] or of the answers [k]."""

    slot: int  # number of the prompt in the run
    row: int  # number of the prompt in its store
    group: Group
    texts: list[str]
    finished: list[bool]  # ended by the end token, not by a limit
    old_logprobs: np.ndarray  # log π of each token, of the policy that drew it
    reference_logprobs: np.ndarray | None = None  # log ρ
    values: np.ndarray | None = None  # of the critic, before each token
    scores: np.ndarray | None = None  # [k], of the reward
    true_rewards: np.ndarray | None = None  # [k], of --true_reward_fn


@dataclass(frozen=True)
class Experience:
    """All ranks' rollouts of one step, as float32 tensors on the CPU."""

    rollouts: list[Rollout]
    finished: Tensor  # [A] bool
    old_logprobs: Tensor  # [N]
    reference_logprobs: Tensor | None  # [N]
    values: Tensor | None  # [N]; None without a critic
    scores: Tensor | None  # [A]
    true_rewards: Tensor | None  # [A]

    @cached_property
    def lengths(self) -> list[int]:
        """Tokens of each answer."""
        return [len(answer) for rollout in self.rollouts for answer in rollout.group.answers]

    @cached_property
    def answers_per_prompt(self) -> list[int]:
        """Answers of each prompt."""
        return [len(rollout.group.answers) for rollout in self.rollouts]

    @cached_property
    def _tokens_per_prompt(self) -> list[int]:
        return [sum(map(len, rollout.group.answers)) for rollout in self.rollouts]

    @cached_property
    def last_tokens(self) -> Tensor:
        """Place of each answer's last token, [A]."""
        return torch.tensor(self.lengths).cumsum(0) - 1

    def sums(self, values_N: Tensor) -> Tensor:
        """Return the sum over each answer's tokens, [A]."""
        return torch.stack([part.sum() for part in values_N.split(self.lengths)])

    def at_tokens(self, values_A: Tensor) -> Tensor:
        """Return an answer's number at each of its tokens, [N]."""
        return values_A.repeat_interleave(torch.tensor(self.lengths))

    def by_rollout(self, values_N: Tensor) -> tuple[Tensor, ...]:
        """Return the numbers of each rollout's tokens."""
        return values_N.split(self._tokens_per_prompt)

    def in_batch(self, batch: Batch, values_N: Tensor) -> Tensor:
        """Return the numbers of a batch's tokens, in the order of its targets; batch.rows are numbers of rollouts."""
        of_rollouts, found = self.by_rollout(values_N), []
        for row, part in zip(batch.rows, batch.parts, strict=True):
            if part is None:
                found.append(of_rollouts[row])
                continue
            of_answers = of_rollouts[row].split([len(answer) for answer in self.rollouts[row].group.answers])
            found += [of_answers[k] for k in part]
        return torch.cat(found).to(batch.targets.device)


@dataclass(frozen=True)
class Targets:
    """What the models learn of an experience: float32 tensors on the CPU."""

    weights: Tensor  # [N] of each token in a loss; 0 for tokens that are not learned from
    advantages: Tensor  # [N]
    returns: Tensor | None = None  # [N]; None without a critic
    metrics: dict[str, float] = dataclasses.field(default_factory=dict)

    @cached_property
    def learned(self) -> Tensor:
        """Return [N] True for tokens that are learned from."""
        return self.weights > 0


def experience_of(rollouts: list[Rollout]) -> Experience:
    """Return the rollouts' numbers, laid end to end."""

    def joined(name: str) -> Tensor | None:
        parts = [getattr(rollout, name) for rollout in rollouts]
        return None if parts[0] is None else torch.from_numpy(np.concatenate(parts)).float()

    finished = torch.tensor([ended for rollout in rollouts for ended in rollout.finished])
    names = ("old_logprobs", "reference_logprobs", "values", "scores", "true_rewards")
    return Experience(rollouts, finished, *map(joined, names))


def summary_of(experience: Experience) -> dict[str, float]:
    """Return means over the answers: score, KL to the reference (nats of an answer), entropy (nats of a token), length,
    and the share that is finished."""
    log_ratio_N = experience.old_logprobs - experience.reference_logprobs
    means = {
        "score": experience.scores.mean(),
        "kl": experience.sums(log_ratio_N).mean(),
        "entropy": -experience.old_logprobs.mean(),
        "length": torch.tensor(experience.lengths).float().mean(),
        "finished": experience.finished.float().mean(),
    }
    if experience.true_rewards is not None:
        means["true_score"] = experience.true_rewards.mean()
    return {name: float(value) for name, value in means.items()}


class RunningMoments:
    """Mean and variance of all scores so far (Chan, Golub and LeVeque 1983); part of a resume."""

    # A checkpoint keeps vars() of this object: another name of an attribute is another format.

    def __init__(self) -> None:
        self.count, self.mean, self.squares = 0, 0.0, 0.0

    def normalised(self, scores_A: Tensor) -> Tensor:
        """Take the scores in, then return them minus the mean, over the standard deviation."""
        count, values = len(scores_A), scores_A.double()
        delta, total = float(values.mean()) - self.mean, self.count + count
        self.squares += float((values - values.mean()).square().sum()) + delta**2 * self.count * count / total
        self.mean, self.count = self.mean + delta * count / total, total
        # 1e-6: all scores so far may be equal.
        return (scores_A - self.mean) / (math.sqrt(self.squares / total) + 1e-6)


def rewards_of(experience: Experience, options: PPOArguments, moments: RunningMoments) -> Tensor:
    """Return what each answer's score becomes, [A]: sigmoid, normalised, scaled, clipped, less the penalty of the
    unfinished."""
    rewards_A = experience.scores
    if options.sigmoid_scores:
        rewards_A = rewards_A.sigmoid()
    if options.normalize_scores:
        rewards_A = moments.normalised(rewards_A)
    rewards_A = rewards_A * options.score_scale
    if options.score_clip:
        rewards_A = rewards_A.clamp(-options.score_clip, options.score_clip)
    # After the clip, which would take the penalty from the lowest scores.
    if options.unfinished == "penalty":
        rewards_A = rewards_A - options.unfinished_penalty * (~experience.finished)
    return rewards_A


def weights_of(experience: Experience, options: PPOArguments) -> Tensor:
    """Return the weight of each token in a loss, [N]: 1, or 1 over the length of its answer; 0 in answers that are not
    learned from."""
    weights_A = torch.ones(len(experience.lengths))
    if options.unfinished == "mask":
        weights_A = experience.finished.float()
    if options.loss_average == "answer":
        weights_A = weights_A / torch.tensor(experience.lengths)
    return experience.at_tokens(weights_A)


def units_of(experience: Experience, weights_N: Tensor) -> Sequence[int]:
    """Return what a loss is averaged over: of each rollout the sum of its weights, a number of tokens or of answers."""
    return [round(float(weights.sum())) for weights in experience.by_rollout(weights_N)]
