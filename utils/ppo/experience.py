"""What a rollout leaves to learn from: answers of the policy with numbers for their tokens, of all ranks together.

Legend: N answer tokens of several answers laid end to end, A answers, k answers of a prompt.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from utils.arguments.ppo import PPOArguments
from utils.model.batch import Batch
from utils.tokens.group import Group


@dataclass
class Rollout:
    """One prompt, its k answers, and numbers of their tokens [N] or of the answers [k]."""

    slot: int
    row: int
    group: Group
    texts: list[str]
    finished: list[bool]  # ended by the end token, not by a limit
    old: np.ndarray  # log π of each token, of the policy that drew it
    reference: np.ndarray | None = None  # log ρ
    values: np.ndarray | None = None
    scores: np.ndarray | None = None  # [k]
    truth: np.ndarray | None = None  # [k]


@dataclass
class Experience:
    """All ranks' rollouts of one iteration, as float32 tensors on the CPU; advantages, returns and weights are made of
    the rest by the algorithm."""

    rollouts: list[Rollout]
    advantages: Tensor = field(init=False)
    returns: Tensor = field(init=False)
    weights: Tensor = field(init=False)  # [N] of each token in a loss; 0 for tokens that are not learned from

    def __post_init__(self) -> None:
        self.lengths = [len(answer) for r in self.rollouts for answer in r.group.answers]
        self.sizes = [len(r.group.answers) for r in self.rollouts]
        self.finished = torch.tensor([f for r in self.rollouts for f in r.finished])
        for name in ("old", "reference", "values", "scores", "truth"):
            parts = [getattr(rollout, name) for rollout in self.rollouts]
            setattr(self, name, None if parts[0] is None else torch.from_numpy(np.concatenate(parts)).float())
        ends = np.cumsum([sum(map(len, r.group.answers)) for r in self.rollouts])
        self._spans = list(zip([0, *ends[:-1].tolist()], ends.tolist(), strict=True))

    @property
    def learned(self) -> Tensor:
        """[N] True for tokens that are learned from."""
        return self.weights > 0

    @property
    def units(self) -> list[int]:
        """What a loss is averaged over: of each rollout the sum of its weights, a number of tokens or of answers."""
        return [round(float(self.of_rollout(i, self.weights).sum())) for i in range(len(self.rollouts))]

    @property
    def ends(self) -> Tensor:
        """Place of each answer's last token, [A]."""
        return torch.tensor(self.lengths).cumsum(0) - 1

    def sums(self, values_N: Tensor) -> Tensor:
        """Sum over each answer's tokens, [A]."""
        return torch.stack([part.sum() for part in values_N.split(self.lengths)])

    def of_tokens(self, values_A: Tensor) -> Tensor:
        """An answer's number at each of its tokens, [N]."""
        return values_A.repeat_interleave(torch.tensor(self.lengths))

    def of_rollout(self, number: int, values_N: Tensor) -> Tensor:
        return values_N[slice(*self._spans[number])]

    def of(self, batch: Batch, values_N: Tensor) -> Tensor:
        """The numbers of a batch's tokens, in the order of its targets; batch.rows are numbers of rollouts."""
        found: list[Tensor] = []
        for row, part in zip(batch.rows, batch.parts, strict=True):
            of_answers = self.of_rollout(row, values_N).split([len(a) for a in self.rollouts[row].group.answers])
            found += of_answers if part is None else [of_answers[k] for k in part]
        return torch.cat(found).to(batch.targets.device)

    def where_learned(self, batch: Batch, values_N: Tensor, rollout_N: Tensor) -> Tensor:
        """The model's numbers of tokens that are learned from, the rollout's of the others: no gradient flows through
        those, whatever a loss makes of them (0 times an infinite ratio is NaN)."""
        return torch.where(self.of(batch, self.learned), values_N, rollout_N)


def facts_of(experience: Experience) -> dict[str, float]:
    """What can be said of answers before anything is learned from them."""
    log_ratio_N = experience.old - experience.reference
    facts = {
        "score": experience.scores.mean(), "kl": experience.sums(log_ratio_N).mean(), "entropy": -experience.old.mean(),
        "length": torch.tensor(experience.lengths).float().mean(), "finished": experience.finished.float().mean(),
    }  # fmt: skip
    if experience.truth is not None:
        facts["true_score"] = experience.truth.mean()
    return {name: float(value) for name, value in facts.items()}


class Running:
    """Mean and variance of all scores so far (Chan, Golub and LeVeque 1983); part of a resume."""

    def __init__(self) -> None:
        self.count, self.mean, self.squares = 0, 0.0, 0.0

    def normalised(self, scores_A: Tensor) -> Tensor:
        """Take the scores in, then give them minus the mean, over the standard deviation."""
        count, values = len(scores_A), scores_A.double()
        delta, total = float(values.mean()) - self.mean, self.count + count
        self.squares += float((values - values.mean()).square().sum()) + delta**2 * self.count * count / total
        self.mean, self.count = self.mean + delta * count / total, total
        return (scores_A - self.mean) / (math.sqrt(self.squares / total) + 1e-6)


def rewards_of(x: Experience, options: PPOArguments, running: Running) -> Tensor:
    """What an answer's score becomes: sigmoid, normalised, scaled, clipped, less the penalty of the unfinished. [A]"""
    rewards_A = x.scores
    if options.sigmoid_scores:
        rewards_A = rewards_A.sigmoid()
    if options.normalize_scores:
        rewards_A = running.normalised(rewards_A)
    rewards_A = rewards_A * options.score_scale
    if options.score_clip:
        rewards_A = rewards_A.clamp(-options.score_clip, options.score_clip)
    if options.unfinished == "penalty":
        rewards_A = rewards_A - options.unfinished_penalty * (~x.finished)
    return rewards_A


def weights_of(x: Experience, options: PPOArguments) -> Tensor:
    """Weight of each token in a loss, [N]: 1, or 1 over the length of its answer; 0 in answers not learned from."""
    learned_A = x.finished.float() if options.unfinished == "mask" else torch.ones(len(x.lengths))
    if options.loss_average == "answer":
        learned_A = learned_A / torch.tensor(x.lengths)
    return x.of_tokens(learned_A)
