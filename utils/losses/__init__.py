"""Losses: functions of tensors, the paper's equation beside the line. No model, no tokenizer, no rank."""

from torch import Tensor


def accuracy(margin_M: Tensor) -> Tensor:
    """Return [M] 1 for a pair whose chosen answer is ahead, 0 where it is behind, and 1/2 for a tie.

    Ties count half in AlpacaEval's win rate (Li et al. 2023) and in the area under a ROC curve too: a policy that
    equals its reference does no better than chance.
    """
    return (margin_M > 0).float() + 0.5 * (margin_M == 0)
