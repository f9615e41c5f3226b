"""Losses that learn from a preferred and a dispreferred answer, against a reference (step 3, DPO and its relatives).

Legend: M pairs. Δ = (log π(y_w) − log ρ(y_w)) − (log π(y_l) − log ρ(y_l)): how much more than the reference ρ the
policy π prefers the chosen answer y_w to the rejected y_l. Sums over answer tokens, in float32.

A new loss is one function with the decorator, one line naming its source, one hand-worked number in the test.
"""

from __future__ import annotations

import math
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from utils.losses.inputs import PairInputs
from utils.losses.registry import Loss, loss_of

LARGEST_EXPONENT = 80.0  # of exp in float32
LOSSES: dict[str, Loss] = {}  # every loss of a policy; the other modules of this folder add theirs


def preference_loss(**needs: Any):
    """Make `--loss <function name>` use this function of pairs; `needs` are fields of Loss."""
    return loss_of(LOSSES, **{"unit": "pair", "data": "comparisons"} | needs)


@preference_loss(at_start=math.log(2))
def sigmoid(pairs: PairInputs, beta: float) -> Tensor:
    """DPO: −log σ(βΔ). Rafailov et al. 2023, arXiv:2305.18290, eq. 7."""
    return -F.logsigmoid(beta * pairs.delta)


@preference_loss(at_start=math.log(2))
def cdpo(pairs: PairInputs, beta: float, label_smoothing: float) -> Tensor:
    """Conservative DPO: −(1−ε) log σ(βΔ) − ε log σ(−βΔ). Mitchell 2023, A note on DPO with noisy preferences, eq. 3."""
    logit, eps = beta * pairs.delta, label_smoothing
    return -(1 - eps) * F.logsigmoid(logit) - eps * F.logsigmoid(-logit)


@preference_loss(at_start=lambda beta: 1 / (4 * beta**2))
def ipo(pairs: PairInputs, beta: float) -> Tensor:
    """IPO: (Δ − 1/(2β))², Δ of summed log-probs. Azar et al. 2023, arXiv:2310.12036, eq. 17."""
    return (pairs.delta - 1 / (2 * beta)) ** 2


@preference_loss(at_start=lambda beta: 1 / (4 * beta**2))
def ipo_mean(pairs: PairInputs, beta: float) -> Tensor:
    """IPO with Δ of log-probs averaged over each answer's tokens: what TRL since 0.8 calls `ipo`."""
    delta = pairs.chosen / pairs.chosen_tokens - pairs.rejected / pairs.rejected_tokens
    return (delta - 1 / (2 * beta)) ** 2


@preference_loss(at_start=math.log(2))
def robust(pairs: PairInputs, beta: float, label_smoothing: float) -> Tensor:
    """Robust DPO: (−(1−ε) log σ(βΔ) + ε log σ(−βΔ)) / (1−2ε), DPO's loss without bias where a share ε of the labels is
    wrong. Chowdhury et al. 2024, arXiv:2403.00409."""
    logit, eps = beta * pairs.delta, label_smoothing
    return (-(1 - eps) * F.logsigmoid(logit) + eps * F.logsigmoid(-logit)) / (1 - 2 * eps)


@preference_loss(at_start=lambda beta: math.log(2) / beta)
def cdpo_over_beta(pairs: PairInputs, beta: float, label_smoothing: float) -> Tensor:
    """Return (−(1−ε) log σ(βΔ) − ε log σ(−βΔ)) / β: robust in dpo-rlaif, Sharma et al. 2024, arXiv:2402.12366."""
    return cdpo(pairs, beta, label_smoothing) / beta


@preference_loss(at_start=1.0)
def hinge(pairs: PairInputs, beta: float) -> Tensor:
    """Hinge: max(0, 1 − βΔ). RSO's hinge-norm, Liu et al. 2023, arXiv:2309.06657; SLiC's with a reference."""
    return (1 - beta * pairs.delta).clamp(min=0)


@preference_loss(at_start=math.log(2))
def importance_correction(pairs: PairInputs, beta: float) -> Tensor:
    """Return −w log σ(βΔ) with w = π(y_l|x) / ρ(y_l|x), no gradient through w: dpo-rlaif, Sharma et al. 2024,
    arXiv:2402.12366."""
    return -pairs.rejected.detach().exp() * F.logsigmoid(beta * pairs.delta)


@preference_loss(at_start=math.log(2))
def sigmoid_norm(pairs: PairInputs, beta: float) -> Tensor:
    """Length-normalised DPO: −log σ(β(r_w/|y_w| − r_l/|y_l|)), r the log-ratios. Tülu 3, Lambert et al. 2024,
    arXiv:2411.15124."""
    delta = pairs.chosen / pairs.chosen_tokens - pairs.rejected / pairs.rejected_tokens
    return -F.logsigmoid(beta * delta)


@preference_loss(at_start=math.log(2), tokens=True)
def ld_dpo(pairs: PairInputs, beta: float, ld_alpha: float) -> Tensor:
    """Length-desensitised DPO: −log σ(βΔ') where log-probs of tokens behind the first min(|y_w|, |y_l|) count α times.
    Liu et al. 2024, arXiv:2409.06411. α = 1 is DPO."""
    chosen = ld_alpha * pairs.chosen + (1 - ld_alpha) * pairs.chosen_shared
    rejected = ld_alpha * pairs.rejected + (1 - ld_alpha) * pairs.rejected_shared
    return -F.logsigmoid(beta * (chosen - rejected))


@preference_loss(data="rated_comparisons")
def margin(pairs: PairInputs, beta: float, margin_scale: float) -> Tensor:
    """Return −log σ(βΔ − s(R_w − R_l)): the better its rating R, the farther the chosen answer must be ahead. DPO with
    an offset, Amini et al. 2024, arXiv:2402.10571, with the gap itself as offset."""
    return -F.logsigmoid(beta * pairs.delta - margin_scale * (pairs.chosen_rating - pairs.rejected_rating))


@preference_loss(at_start=lambda label_smoothing: -math.log(2) - math.log(label_smoothing * (1 - label_smoothing)) / 2)
def exo_pair(pairs: PairInputs, beta: float, label_smoothing: float) -> Tensor:
    """EXO: KL(p‖q) with p = (σ(βΔ), σ(−βΔ)) and q = (1−ε, ε), ε above 0. Ji et al. 2024, arXiv:2402.00856, eq. 16."""
    logit = beta * pairs.delta
    wins, loses = F.logsigmoid(logit), F.logsigmoid(-logit)
    return wins.exp() * (wins - math.log1p(-label_smoothing)) + loses.exp() * (loses - math.log(label_smoothing))


@preference_loss(at_start=2 * math.log(2))
def nca_pair(pairs: PairInputs, beta: float) -> Tensor:
    """NCA of pairs: −log σ(βr_w) − ½ log σ(−βr_w) − ½ log σ(−βr_l), r the log-ratios. Noise contrastive alignment, Chen
    et al. 2024, arXiv:2402.05369."""
    chosen, rejected = beta * pairs.chosen, beta * pairs.rejected
    return -F.logsigmoid(chosen) - 0.5 * F.logsigmoid(-chosen) - 0.5 * F.logsigmoid(-rejected)


@preference_loss(at_start=lambda beta: 1 / (2 * beta**2))
def sppo_hard(pairs: PairInputs, beta: float) -> Tensor:
    """SPPO: (r_w − 1/(2β))² + (r_l + 1/(2β))², r the log-ratios: self-play preference optimisation with verdicts as
    win rates of 1 and 0. Wu et al. 2024, arXiv:2405.00675, eq. 4.7."""
    return (pairs.chosen - 0.5 / beta) ** 2 + (pairs.rejected + 0.5 / beta) ** 2


@preference_loss(at_start=1.0)
def apo_zero(pairs: PairInputs, beta: float) -> Tensor:
    """APO-zero: 1 − σ(βr_w) + σ(βr_l), chosen likelier, rejected less, for answers better than the policy's own.
    D'Oosterlinck et al. 2024, arXiv:2408.06266, eq. 7."""
    return (-beta * pairs.chosen).sigmoid() + (beta * pairs.rejected).sigmoid()


@preference_loss(at_start=1.0)
def apo_down(pairs: PairInputs, beta: float) -> Tensor:
    """APO-down: σ(βr_w) + 1 − σ(βΔ), both less likely, the rejected more so, for answers worse than the policy's own.
    D'Oosterlinck et al. 2024, arXiv:2408.06266, eq. 8."""
    return (beta * pairs.chosen).sigmoid() + (-beta * pairs.delta).sigmoid()


@preference_loss(at_start=math.log(2) / 2 + 0.5)
def discopop(pairs: PairInputs, beta: float, discopop_tau: float) -> Tensor:
    """DiscoPOP: −(1 − m) log σ(βΔ) + m exp(−βΔ) with m = σ(βΔ/τ). Lu et al. 2024, arXiv:2406.08414, eq. 5."""
    logit = beta * pairs.delta
    mixed = (logit / discopop_tau).sigmoid()
    # exp overflows where m is 0 in float32, and 0 times infinity is no number
    return -(1 - mixed) * F.logsigmoid(logit) + mixed * (-logit).clamp(max=LARGEST_EXPONENT).exp()


@preference_loss(at_start=math.log(2))
def f_dpo(pairs: PairInputs, beta: float, f_divergence: str, f_alpha: float) -> Tensor:
    """Return −log σ(β(f'(u_w) − f'(u_l))), u = π/ρ: held to ρ by another divergence than the reverse KL. Wang et al.
    2023, arXiv:2309.16240, table 1.

    Args:
        pairs: the pairs.
        beta: β.
        f_divergence: reverse_kl (DPO), forward_kl, js or alpha.
        f_alpha: α of the α-divergence.
    """
    delta = f_derivative(pairs.chosen, f_divergence, f_alpha) - f_derivative(pairs.rejected, f_divergence, f_alpha)
    return -F.logsigmoid(beta * delta)


def f_derivative(log_ratio_M: Tensor, divergence: str, alpha: float) -> Tensor:
    """Return f'(u) of log u, but for a constant: log u (reverse_kl), −1/u (forward_kl), log(u/(1 + u)) (js), or
    (1 − u^−α)/α (alpha). Exponents above 80 are cut, so that float32 stays finite."""
    if divergence == "reverse_kl":
        return log_ratio_M
    if divergence == "forward_kl":
        return -(-log_ratio_M).clamp(max=LARGEST_EXPONENT).exp()
    if divergence == "js":
        return F.logsigmoid(log_ratio_M)
    return (1 - (-alpha * log_ratio_M).clamp(max=LARGEST_EXPONENT).exp()) / alpha
