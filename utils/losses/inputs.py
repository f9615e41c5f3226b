"""What a policy's loss may read of a batch.

Legend: M pairs, V votes (judgements of one answer as good or bad), A answers, P prompts. A log-ratio is log π(y|x) −
log ρ(y|x) of policy π and reference ρ, summed over the answer's tokens in float32; for losses without a reference it is
log π(y|x).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from utils.losses import accuracy


@dataclass(frozen=True)
class PairInputs:
    """Of M pairs the chosen answer y_w and the rejected answer y_l."""

    chosen: Tensor  # [M] log-ratios
    rejected: Tensor
    chosen_tokens: Tensor  # [M] lengths
    rejected_tokens: Tensor
    chosen_logprob: Tensor  # [M] log π, also where there is a reference
    rejected_logprob: Tensor
    chosen_rating: Tensor | None = None  # [M]
    rejected_rating: Tensor | None = None
    chosen_shared: Tensor | None = None  # [M] log-ratios of the first min(|y_w|, |y_l|) tokens
    rejected_shared: Tensor | None = None

    @classmethod
    def of(cls, batch: Any, logprobs_A: Tensor, log_ratio_A: Tensor) -> PairInputs:
        """Return the pairs of a Batch, whose answers have these log-probs and log-ratios."""
        return cls(
            chosen=log_ratio_A[batch.chosen], rejected=log_ratio_A[batch.rejected],
            chosen_tokens=batch.answer_tokens[batch.chosen], rejected_tokens=batch.answer_tokens[batch.rejected],
            chosen_logprob=logprobs_A[batch.chosen], rejected_logprob=logprobs_A[batch.rejected],
            chosen_rating=batch.rating[batch.chosen], rejected_rating=batch.rating[batch.rejected],
        )  # fmt: skip

    def with_tokens(self, batch: Any, log_ratio_N: Tensor) -> PairInputs:
        """Return the same pairs with the log-ratios of the first min(|y_w|, |y_l|) tokens, of those of all tokens."""
        before_N = F.pad(log_ratio_N.double().cumsum(0), (1, 0))  # the sum of all tokens in front of each
        starts_A = batch.answer_tokens.cumsum(0) - batch.answer_tokens
        shared = torch.minimum(self.chosen_tokens, self.rejected_tokens)
        sums = []
        for answers_M in (batch.chosen, batch.rejected):
            start = starts_A[answers_M]
            sums.append((before_N[start + shared] - before_N[start]).float())
        return dataclasses.replace(self, chosen_shared=sums[0], rejected_shared=sums[1])

    @property
    def delta(self) -> Tensor:
        """Return Δ = the log-ratio of y_w less that of y_l, [M]."""
        return self.chosen - self.rejected

    def metrics(self, beta: float) -> dict[str, Tensor]:
        """Return what is logged of each pair; β times a log-ratio is DPO's implicit reward."""
        return {
            "accuracy": accuracy(self.delta),
            "margin": beta * self.delta,
            "chosen_reward": beta * self.chosen,
            "rejected_reward": beta * self.rejected,
            "chosen_logprob": self.chosen_logprob,
            "rejected_logprob": self.rejected_logprob,
        }


@dataclass(frozen=True)
class VoteInputs:
    """Of V votes the answer that each judges."""

    ratios: Tensor  # [V] log-ratios
    good: Tensor  # [V] bool: the vote is that the answer is good
    logprobs: Tensor  # [V] log π

    @classmethod
    def of(cls, batch: Any, logprobs_A: Tensor, log_ratio_A: Tensor) -> VoteInputs:
        """Return the votes of a Batch, whose answers have these log-probs and log-ratios."""
        return cls(ratios=log_ratio_A[batch.voted], good=batch.good, logprobs=logprobs_A[batch.voted])

    def metrics(self, beta: float) -> dict[str, Tensor]:
        """Return what is logged of each vote; β times a log-ratio is DPO's implicit reward."""
        good, bad = self.good, ~self.good
        return {
            "good_reward": beta * self.ratios[good],
            "bad_reward": beta * self.ratios[bad],
            "good_logprob": self.logprobs[good],
            "bad_logprob": self.logprobs[bad],
        }


@dataclass(frozen=True)
class ListInputs:
    """Of P prompts all their answers, side by side, with what is known of each."""

    ratios: Tensor  # [A] log-ratios
    ratings: Tensor  # [A] NaN: unknown
    ranks: Tensor  # [A] 1 is the best, 0: unknown
    prompt_of: Tensor  # [A] from 0 to P − 1, ascending
    logprobs: Tensor | None = None  # [A] log π
    tokens: Tensor | None = None  # [A] lengths

    @classmethod
    def of(cls, batch: Any, logprobs_A: Tensor, log_ratio_A: Tensor) -> ListInputs:
        """Return the prompts of a Batch, whose answers have these log-probs and log-ratios."""
        return cls(
            log_ratio_A, batch.rating, batch.rank, batch.prompt_of, logprobs=logprobs_A, tokens=batch.answer_tokens
        )

    def rows(self, values_A: Tensor, fill: float) -> Tensor:
        """Return [P, K] of [A]: a row of each prompt's answers, `fill` behind those of prompts that have fewer."""
        counts = torch.bincount(self.prompt_of)
        return torch.nn.utils.rnn.pad_sequence(values_A.split(counts.tolist()), batch_first=True, padding_value=fill)

    def metrics(self, beta: float) -> dict[str, Tensor]:
        """Return the accuracy over every two answers of a prompt that are judged differently, the log-probs and
        lengths of the answers."""
        worth = torch.where(self.ranks > 0, -self.ranks.float(), self.ratings)
        same = self.prompt_of[:, None] == self.prompt_of
        better, worse = torch.nonzero(same & (worth[:, None] > worth), as_tuple=True)
        found = {"accuracy": accuracy(self.ratios[better] - self.ratios[worse])}
        found["margin"] = beta * (self.ratios[better] - self.ratios[worse])
        return found | {"logprob": self.logprobs}


INPUTS = {"pair": PairInputs, "vote": VoteInputs, "prompt": ListInputs}  # by the unit of a loss
