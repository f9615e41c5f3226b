"""Losses of all answers to a prompt, side by side: rated, rewarded or ranked.

Legend: P prompts, K the most answers of one, A answers of all; s is an answer's log-ratio, R its rating or reward.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from utils.losses.inputs import ListInputs
from utils.losses.preference import LOSSES
from utils.losses.registry import loss_of


@loss_of(LOSSES, unit="prompt", data="rated")
def mse(lists: ListInputs, beta: float) -> Tensor:
    """Return mean_i (s_i − R_i/β + log mean_j exp(R_j/β))²: log π aims at the optimal policy's. DAIF, Yu et al. 2025,
    arXiv:2310.06450 (its code, loss_type mse)."""
    return _mse(lists, lists.ratios, beta)


@loss_of(LOSSES, unit="prompt", data="rated")
def mse_mean(lists: ListInputs, beta: float) -> Tensor:
    """Return mse with s a mean over the answer's tokens: DAIF's code with use_average."""
    return _mse(lists, lists.ratios / lists.tokens, beta)


@loss_of(LOSSES, unit="prompt", data="rated")
def exo(lists: ListInputs, beta: float, exo_scale: float) -> Tensor:
    """Return KL(p‖q) with p = softmax(κs) and q = softmax(R/β). EXO, Ji et al. 2024, arXiv:2402.00856; DAIF's code,
    loss_type exo, whose kl_ctl_for_exo is κ."""
    return _exo(lists, lists.ratios, beta, exo_scale)


@loss_of(LOSSES, unit="prompt", data="rated")
def exo_mean(lists: ListInputs, beta: float, exo_scale: float) -> Tensor:
    """Return exo with s a mean over the answer's tokens: DAIF's code with use_average."""
    return _exo(lists, lists.ratios / lists.tokens, beta, exo_scale)


@loss_of(LOSSES, unit="prompt", data="ranked")
def plackett_luce(lists: ListInputs, beta: float) -> Tensor:
    """Return −Σ_i log(exp(βs_i) / Σ_j exp(βs_j)), j over the answers ranked no better than i. Rafailov et al. 2023,
    arXiv:2305.18290, eq. 20. Of equal ranks each competes with the others (Breslow 1974)."""
    scores_PK, ranks_PK = lists.rows(beta * lists.ratios, 0.0), lists.rows(lists.ranks, 0)
    rivals_PKK = (ranks_PK[:, None, :] >= ranks_PK[:, :, None]) & (ranks_PK > 0)[:, None, :]
    against_PK = torch.where(rivals_PKK, scores_PK[:, None, :], -math.inf).logsumexp(dim=2)
    return torch.where(ranks_PK > 0, against_PK - scores_PK, 0.0).sum(dim=1)


def _mse(lists: ListInputs, s_A: Tensor, beta: float) -> Tensor:
    goal_PK = F.log_softmax(lists.rows(lists.ratings / beta, -math.inf), dim=1)  # of every answer the log of its share
    counts_P = torch.bincount(lists.prompt_of)
    goal_A = goal_PK[goal_PK > -math.inf] + counts_P.log()[lists.prompt_of]
    squared_PK = lists.rows((s_A - goal_A).square(), 0.0)
    return squared_PK.sum(dim=1) / counts_P


def _exo(lists: ListInputs, s_A: Tensor, beta: float, scale: float) -> Tensor:
    goal_PK = F.log_softmax(lists.rows(lists.ratings / beta, -math.inf), dim=1)
    mine_PK = F.log_softmax(lists.rows(scale * s_A, -math.inf), dim=1)
    there_PK = lists.rows(torch.ones_like(s_A), 0.0) > 0
    gap_PK = mine_PK.where(there_PK, 0.0) - goal_PK.where(there_PK, 0.0)
    return (mine_PK.exp() * gap_PK).sum(dim=1)
