"""What a reward model's loss may read of a batch, and what is logged of it.

Legend: T positions of the flattened batch, M pairs, V votes (judgements of one answer as good or bad), A answers, P
prompts, L the longest answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from utils.losses import accuracy


@dataclass(frozen=True)
class ScoredPairs:
    """Of M pairs the scores of the chosen and of the rejected answer."""

    chosen: Tensor  # [M]
    rejected: Tensor
    confidence: Tensor | None = None  # [M] share of the verdicts that prefer the chosen answer, ties one half
    tie: Tensor | None = None  # [M] bool: more verdicts are ties than prefer either, or as many prefer each
    chosen_rating: Tensor | None = None  # [M]
    rejected_rating: Tensor | None = None
    token_gap: Tensor | None = None  # [M, L] score of the chosen answer's token less that of the rejected one's
    token_counts: Tensor | None = None  # [M, L] bool: whether the place counts

    @classmethod
    def of(cls, batch: Any, scores: Tensor, tokens: bool = False) -> ScoredPairs:
        """Return the pairs of a Batch. scores: of its answers, [A]; with `tokens` of all its positions, [T]."""
        gap = counts = None
        if tokens:
            gap, counts = _token_gaps(batch, scores)
            scores = scores[batch.answer_ends]
        return cls(
            scores[batch.chosen], scores[batch.rejected], confidence=batch.confidence,
            tie=batch.tie | (batch.confidence == 0.5), chosen_rating=batch.rating[batch.chosen],
            rejected_rating=batch.rating[batch.rejected], token_gap=gap, token_counts=counts,
        )  # fmt: skip

    def metrics(self) -> dict[str, Tensor]:
        """Return what is logged of each pair; accuracy and margin of those that are no ties."""
        gap, decided = self.chosen - self.rejected, ~self.tie
        return {
            "accuracy": accuracy(gap[decided]),
            "margin": gap[decided],
            "chosen_score": self.chosen,
            "rejected_score": self.rejected,
        }


def _token_gaps(batch: Any, scores_T: Tensor) -> tuple[Tensor, Tensor]:
    """Return of each pair the gaps between its tokens' scores, and which places count, both [M, L]: from the first that
    differs (of equal answers the last) to the end of the longer answer."""
    ends, lengths = (
        torch.stack((t[batch.chosen], t[batch.rejected])) for t in (batch.answer_ends, batch.answer_tokens)
    )
    places_L = torch.arange(int(lengths.max()) if lengths.numel() else 0, device=scores_T.device)
    # behind its end an answer keeps its last token
    at_2ML = (ends - lengths + 1)[:, :, None] + torch.minimum(places_L, lengths[:, :, None] - 1)
    chosen, rejected = batch.input_ids.flatten()[at_2ML]
    shorter, longer = lengths.amin(dim=0)[:, None], lengths.amax(dim=0)[:, None]
    differ = (chosen != rejected) | (places_L >= shorter) | (places_L == longer - 1)
    begun = differ.cumsum(dim=1) > 0
    of_chosen, of_rejected = scores_T[at_2ML]
    return of_chosen - of_rejected, begun & (places_L < longer)


@dataclass(frozen=True)
class ScoredAnswers:
    """Of A answers the scores and ratings, and which prompt each answers."""

    scores: Tensor  # [A]
    ratings: Tensor  # [A]
    prompt_of: Tensor  # [A]

    @classmethod
    def of(cls, batch: Any, scores_A: Tensor, tokens: bool = False) -> ScoredAnswers:
        """Return the answers of a Batch."""
        return cls(scores_A, batch.rating, batch.prompt_of)

    def metrics(self) -> dict[str, Tensor]:
        """Return the scores, and accuracy and margin over every two answers to a prompt whose ratings differ."""
        return _ordered(self.scores, self.ratings, self.prompt_of) | {"score": self.scores}


@dataclass(frozen=True)
class ScoredVotes:
    """Of V votes the score of the answer that each judges."""

    scores: Tensor  # [V]
    good: Tensor  # [V] bool: the vote is that the answer is good

    @classmethod
    def of(cls, batch: Any, scores_A: Tensor, tokens: bool = False) -> ScoredVotes:
        """Return the votes of a Batch."""
        return cls(scores_A[batch.voted], batch.good)

    @property
    def margin(self) -> Tensor:
        """Return the score of a good answer, less the score of a bad one, [V]."""
        return torch.where(self.good, self.scores, -self.scores)

    def metrics(self) -> dict[str, Tensor]:
        """Return the scores of good and of bad answers; an answer is right whose score has the sign of its vote."""
        scores, good = self.scores, self.good
        found = {"accuracy": accuracy(self.margin), "margin": self.margin}
        return found | {"good_score": scores[good], "bad_score": scores[~good]}


@dataclass(frozen=True)
class ScoredLists:
    """Of P prompts the scores of all their answers, side by side, and their ranks."""

    scores: Tensor  # [A]
    ranks: Tensor  # [A] 1 is the best, 0: unknown
    prompt_of: Tensor  # [A] from 0 to P − 1, ascending

    @classmethod
    def of(cls, batch: Any, scores_A: Tensor, tokens: bool = False) -> ScoredLists:
        """Return the prompts of a Batch."""
        return cls(scores_A, batch.rank, batch.prompt_of)

    def rows(self, values_A: Tensor, fill: float) -> Tensor:
        """Return [P, K] of [A]: a row of each prompt's answers, `fill` behind those of prompts that have fewer."""
        counts = torch.bincount(self.prompt_of)
        return torch.nn.utils.rnn.pad_sequence(values_A.split(counts.tolist()), batch_first=True, padding_value=fill)

    def metrics(self) -> dict[str, Tensor]:
        """Return the scores, and accuracy and margin over every two answers to a prompt whose ranks differ."""
        worth = torch.where(self.ranks > 0, -self.ranks.float(), torch.nan)
        return _ordered(self.scores, worth, self.prompt_of) | {"score": self.scores}


def _ordered(scores_A: Tensor, worth_A: Tensor, prompt_of_A: Tensor) -> dict[str, Tensor]:
    """Return accuracy and margin of every two answers to a prompt of which one is worth more; NaN is unknown."""
    same = prompt_of_A[:, None] == prompt_of_A
    better, worse = torch.nonzero(same & (worth_A[:, None] > worth_A), as_tuple=True)
    gap = scores_A[better] - scores_A[worse]
    return {"accuracy": accuracy(gap), "margin": gap}


SCORED = {"pair": ScoredPairs, "answer": ScoredAnswers, "vote": ScoredVotes, "prompt": ScoredLists}  # by a loss's unit
