"""Losses of pairs that read log-probs of the policy alone, or add a term of them to another loss.

Legend: M pairs; y_w is the chosen answer, y_l the rejected one; |y| is an answer's number of tokens.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from utils.losses.inputs import PairInputs
from utils.losses.preference import preference_loss, sigmoid


@preference_loss(reference=False)
def reference_free(pairs: PairInputs, beta: float) -> Tensor:
    """DPO with a uniform reference: −log σ(β(log π(y_w) − log π(y_l))). Rafailov et al. 2023, arXiv:2305.18290, in
    their code and in dpo-rlaif."""
    return -F.logsigmoid(beta * (pairs.chosen_logprob - pairs.rejected_logprob))


@preference_loss(reference=False)
def sft(pairs: PairInputs) -> Tensor:
    """Return −log π(y_w), summed over its tokens: the term that --sft_weight adds, as sft_reg of dpo-rlaif does."""
    return -pairs.chosen_logprob


@preference_loss()
def rpo(pairs: PairInputs, beta: float, rpo_alpha: float) -> Tensor:
    """RPO: −log σ(βΔ) − α log π(y_w)/|y_w|. Iterative reasoning preference optimisation, Pang et al. 2024,
    arXiv:2404.19733."""
    return sigmoid(pairs, beta) - rpo_alpha * pairs.chosen_logprob / pairs.chosen_tokens


@preference_loss(reference=False)
def orpo(pairs: PairInputs, orpo_lambda: float) -> Tensor:
    """ORPO: −m_w − λ log σ(log odds(y_w) − log odds(y_l)) with m = log π(y)/|y| and odds = e^m / (1 − e^m). Hong et al.
    2024, arXiv:2403.07691, eq. 4 and 7."""
    chosen = pairs.chosen_logprob / pairs.chosen_tokens
    log_odds = _log_odds(chosen) - _log_odds(pairs.rejected_logprob / pairs.rejected_tokens)
    return -chosen - orpo_lambda * F.logsigmoid(log_odds)


def _log_odds(mean_logprob_M: Tensor) -> Tensor:
    # an answer of probability 1 in float32 would have infinite odds
    mean_logprob_M = mean_logprob_M.clamp(max=-1e-6)
    return mean_logprob_M - torch.log(-torch.expm1(mean_logprob_M))


@preference_loss(reference=False)
def simpo(pairs: PairInputs, beta: float, simpo_gamma: float) -> Tensor:
    """SimPO: −log σ(β log π(y_w)/|y_w| − β log π(y_l)/|y_l| − γ). Meng et al. 2024, arXiv:2405.14734, eq. 6."""
    chosen = pairs.chosen_logprob / pairs.chosen_tokens
    rejected = pairs.rejected_logprob / pairs.rejected_tokens
    return -F.logsigmoid(beta * (chosen - rejected) - simpo_gamma)


@preference_loss(reference=False)
def cpo(pairs: PairInputs, beta: float, cpo_alpha: float) -> Tensor:
    """CPO: −log σ(β(log π(y_w) − log π(y_l))) − α log π(y_w)/|y_w|. Xu et al. 2024, arXiv:2401.08417, with a mean over
    tokens as second term."""
    return reference_free(pairs, beta) - cpo_alpha * pairs.chosen_logprob / pairs.chosen_tokens
