"""Losses of reward models (step 2), by the names of `--loss` there; docs/reward_losses.md has them in one table.

Legend: r is the score of an answer, r_w of the chosen one of a pair, r_l of the rejected one, d = r_w − r_l; M pairs, A
answers, V votes, P prompts. All in float32.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from utils.losses.registry import Loss, loss_of
from utils.losses.reward_inputs import ScoredAnswers, ScoredLists, ScoredPairs, ScoredVotes

REWARD_LOSSES: dict[str, Loss] = {}


@loss_of(REWARD_LOSSES, unit="pair", data="comparisons", reference=False)
def bradley_terry(pairs: ScoredPairs) -> Tensor:
    """Return −log P(chosen beats rejected) = −log σ(d). Bradley & Terry 1952; Ouyang et al. 2022, arXiv:2203.02155,
    eq. 1."""
    return -F.logsigmoid(pairs.chosen - pairs.rejected)


@loss_of(REWARD_LOSSES, unit="pair", data="comparisons", reference=False, tokens=True)
def token_wise(pairs: ScoredPairs) -> Tensor:
    """Return the mean of −log σ(r_w,t − r_l,t) over the places t from the first token that differs to the end of the
    longer answer. DeepSpeed-Chat, Yao et al. 2023, arXiv:2308.01320, and DAIF, arXiv:2310.06450.

    Its flaw: unfinished answers are trained to differ as whole ones do, although what decides the verdict may come
    later, and places are compared that have nothing in common but their number. Behind the end of the shorter answer
    its last score counts; DeepSpeed-Chat reads scores of padding there, which depend on the batch.
    """
    losses_MT = -F.logsigmoid(pairs.token_gap)
    return torch.where(pairs.token_counts, losses_MT, 0.0).sum(dim=1) / pairs.token_counts.sum(dim=1)


@loss_of(REWARD_LOSSES, unit="pair", data="rated_comparisons", reference=False)
def margin(pairs: ScoredPairs, margin_scale: float) -> Tensor:
    """Return −log σ(d − s(R_w − R_l)): the farther apart the ratings R, the farther apart the scores. Llama 2, Touvron
    et al. 2023, arXiv:2307.09288, eq. 2."""
    gap = margin_scale * (pairs.chosen_rating - pairs.rejected_rating)
    return -F.logsigmoid(pairs.chosen - pairs.rejected - gap)


@loss_of(REWARD_LOSSES, unit="pair", data="verdicts", reference=False)
def soft_labels(pairs: ScoredPairs) -> Tensor:
    """Return −c log σ(d) − (1 − c) log σ(−d), c the share of the verdicts that prefer the chosen answer, ties one half:
    cross-entropy of Bradley & Terry's model against several judges. Christiano et al. 2017, arXiv:1706.03741, eq. 1."""
    gap = pairs.chosen - pairs.rejected
    return -pairs.confidence * F.logsigmoid(gap) - (1 - pairs.confidence) * F.logsigmoid(-gap)


@loss_of(REWARD_LOSSES, unit="pair", data="verdicts", reference=False)
def rao_kupper(pairs: ScoredPairs, tie_theta: float) -> Tensor:
    """Return −log P of what was judged: P(chosen wins) = σ(d − η), P(tie) = (θ² − 1) σ(d − η) σ(−d − η), η = log θ. Rao
    & Kupper 1967, Ties in paired-comparison experiments, with a fixed θ above 1; equal scores tie with probability
    (θ − 1)/(θ + 1)."""
    gap, eta = pairs.chosen - pairs.rejected, math.log(tie_theta)
    won = -F.logsigmoid(gap - eta)
    return torch.where(pairs.tie, won - F.logsigmoid(-gap - eta) - math.log(tie_theta**2 - 1), won)


@loss_of(REWARD_LOSSES, unit="pair", data="verdicts", reference=False)
def davidson(pairs: ScoredPairs, tie_nu: float) -> Tensor:
    """Return −log P of what was judged: P(chosen wins) : P(rejected wins) : P(tie) = e^(d/2) : e^(−d/2) : ν. Davidson
    1970, On extending the Bradley–Terry model to accommodate ties, with a fixed ν above 0; equal scores tie with
    probability ν/(2 + ν)."""
    half = (pairs.chosen - pairs.rejected) / 2
    log_nu = torch.full_like(half, math.log(tie_nu))
    total = torch.stack((half, -half, log_nu)).logsumexp(dim=0)
    return total - torch.where(pairs.tie, log_nu, half)


@loss_of(REWARD_LOSSES, unit="pair", data="comparisons", reference=False)
def center(pairs: ScoredPairs) -> Tensor:
    """Return (r_w + r_l)²: the term that --center_coef adds, which fixes the constant that pairs leave open. Eisenstein
    et al. 2023, arXiv:2312.09244; TRL's center_rewards_coefficient."""
    return (pairs.chosen + pairs.rejected).square()


@loss_of(REWARD_LOSSES, unit="answer", data="rated_answers", reference=False)
def sigmoid_regression(answers: ScoredAnswers, rating_scale: int) -> Tensor:
    """Return (σ(r) − (R − 1)/(K − 1))² for ratings R from 1 to K. Bansal et al. 2023, Peering through preferences,
    arXiv:2308.15812."""
    return (answers.scores.sigmoid() - (answers.ratings - 1) / (rating_scale - 1)).square()


@loss_of(REWARD_LOSSES, unit="answer", data="rated_answers", reference=False)
def ordinal_regression(answers: ScoredAnswers, rating_scale: int) -> Tensor:
    """Return −log P(R) with P(rating ≤ j) = σ(b_j − r): proportional odds, McCullagh 1980, for whole ratings R from 1
    to K. The thresholds are fixed at b_j = log(j/(K − j)), so that r = 0 gives all ratings the same probability."""
    j = torch.arange(rating_scale + 1, device=answers.scores.device, dtype=answers.scores.dtype)
    thresholds = torch.log(j / (rating_scale - j))  # −∞ at 0 and ∞ at K
    place = answers.ratings.long()
    above, below = thresholds[place] - answers.scores, thresholds[place - 1] - answers.scores
    # σ(a) − σ(b) = σ(a) σ(−b) (1 − e^(b − a)), where nothing cancels; a − b does not depend on r
    width = (thresholds[place - 1] - thresholds[place]).exp()
    return -F.logsigmoid(above) - F.logsigmoid(-below) - torch.log1p(-width)


@loss_of(REWARD_LOSSES, unit="vote", data="unpaired", reference=False)
def thumbs(votes: ScoredVotes) -> Tensor:
    """Return −log σ(r) of an answer judged good, −log σ(−r) of one judged bad: logistic regression, Cox 1958."""
    return -F.logsigmoid(votes.margin)


@loss_of(REWARD_LOSSES, unit="prompt", data="ranked", reference=False)
def plackett_luce(lists: ScoredLists) -> Tensor:
    """Return −Σ_i log(exp(r_i) / Σ_j exp(r_j)), j over the answers ranked no better than i. Luce 1959; Plackett 1975,
    The analysis of permutations. Of equal ranks each competes with the others (Breslow 1974)."""
    scores_PK, ranks_PK = lists.rows(lists.scores, 0.0), lists.rows(lists.ranks, 0)
    rivals_PKK = (ranks_PK[:, None, :] >= ranks_PK[:, :, None]) & (ranks_PK > 0)[:, None, :]
    against_PK = torch.where(rivals_PKK, scores_PK[:, None, :], -math.inf).logsumexp(dim=2)
    return torch.where(ranks_PK > 0, against_PK - scores_PK, 0.0).sum(dim=1)
