"""Losses of reward models (step 2). Legend: M pairs."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def bradley_terry(chosen_M: Tensor, rejected_M: Tensor) -> Tensor:
    """Return [M] −log P(chosen beats rejected) = −log σ(r_w − r_l). Bradley & Terry 1952; Ouyang et al. 2022, eq. 1."""
    return -F.logsigmoid(chosen_M - rejected_M)
