"""The options of losses that learn from feedback on given answers (step 3)."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal

from utils.arguments.declarations import NOT_NEGATIVE, expect, option
from utils.errors import UserError
from utils.losses import listwise, unpaired, whole_batch, without_reference  # noqa: F401 (each enters its losses)
from utils.losses.objective import Objective, WeightedLoss, parts_of
from utils.losses.preference import LOSSES


@dataclass
class DPOArguments:
    """Options of the loss. Most are used by some losses only, and refused with others (docs/losses.md)."""

    AT_THE_TOP: ClassVar[bool] = True

    loss: str = option(
        "sigmoid",
        help="loss by its name in docs/losses.md; or a mixture, as sigmoid:0.8,bco_pair:0.2",
        title="Loss",
        first=True,
    )
    beta: float = option(0.1, help="how strongly the policy is held to the reference", first=True)
    label_smoothing: float = option(0.0, help="assumed share of wrong labels")
    sft_weight: float = option(0.0, help="add this times -log-prob of the chosen answer to a loss of pairs")
    rpo_alpha: float = option(1.0, help="rpo: weight of -log-prob per token of the chosen answer")
    orpo_lambda: float = option(0.1, help="orpo: weight of the odds ratio")
    simpo_gamma: float = option(1.0, help="simpo: margin by which the chosen answer must be ahead")
    cpo_alpha: float = option(1.0, help="cpo: weight of -log-prob per token of the chosen answer")
    margin_scale: float = option(1.0, help="margin: how much farther ahead for each point of rating")
    ld_alpha: float = option(0.5, help="ld_dpo: weight of tokens behind the length of the shorter answer; 1 is sigmoid")
    discopop_tau: float = option(0.05, help="discopop: temperature of the mixing")
    f_divergence: Literal["reverse_kl", "forward_kl", "js", "alpha"] = option(
        "forward_kl", help="f_dpo: divergence from the reference"
    )
    f_alpha: float = option(0.5, help="f_dpo: alpha of the alpha divergence")
    exo_scale: float = option(1.0, help="exo: times the log-ratio, before the softmax")
    desirable_weight: float = option(1.0, help="kto: weight of good answers")
    undesirable_weight: float = option(1.0, help="kto: weight of bad answers")
    pairs_from_ratings: bool = option(False, help="make pairs of ratings and ranks, too; for losses of pairs")
    reference_model_name_or_path: str | None = option(
        help="reference model; None: the model that training starts from", first=True
    )
    ref_update_every: int = option(0, help="steps after which the reference moves towards the policy; 0: it stays")
    ref_mixup: float = option(0.6, help="how far it then moves; 1: it becomes the policy")

    def __post_init__(self) -> None:
        expect(self, "above 0", "beta", "discopop_tau", "f_alpha")
        expect(self, "above 0", "exo_scale")
        expect(self, NOT_NEGATIVE, "sft_weight", "rpo_alpha", "cpo_alpha")
        expect(self, NOT_NEGATIVE, "orpo_lambda")
        expect(self, NOT_NEGATIVE, "simpo_gamma", "margin_scale", "desirable_weight")
        expect(self, NOT_NEGATIVE, "undesirable_weight")
        expect(self, "0 to 1", "ld_alpha")
        if not 0 <= self.label_smoothing < 0.5:
            raise UserError(f"--label_smoothing is {self.label_smoothing}; expected 0 or more and below 0.5")
        objective = self.objective()
        self._refuse_unused(objective)
        self._refuse_reference(objective)
        if "exo_pair" in objective.names and not self.label_smoothing:
            raise UserError("--loss exo_pair needs --label_smoothing above 0, as 0.001: with 0 it is infinite")
        if self.pairs_from_ratings and objective.unit != "pair":
            raise UserError(f"--pairs_from_ratings is for losses of pairs; {self.loss} is of each {objective.unit}")

    def _refuse_reference(self, objective: Objective) -> None:
        expect(self, NOT_NEGATIVE, "ref_update_every")
        expect(self, "above 0 and at most 1", "ref_mixup")
        if self.ref_mixup != 0.6 and not self.ref_update_every:
            raise UserError(f"--ref_mixup {self.ref_mixup} needs --ref_update_every above 0")
        if self.ref_update_every and (self.reference_model_name_or_path or not objective.reference):
            raise UserError("--ref_update_every needs a loss with a reference, which starts as the policy")
        if self.reference_model_name_or_path and not objective.reference:
            raise UserError(f"--loss {self.loss} has no reference; leave out --reference_model_name_or_path")

    def _refuse_unused(self, objective: Objective) -> None:
        used = {name for part in objective.parts for name in part.loss.options}
        for known in fields(self):
            name, users = known.name, [loss.name for loss in LOSSES.values() if known.name in loss.options]
            if users and name not in used and getattr(self, name) != known.default:
                raise UserError(f"--loss {self.loss} does not use --{name}; {', '.join(sorted(users))} would")

    def objective(self) -> Objective:
        """Return the loss that the options name."""
        parts: list[WeightedLoss] = parts_of(self.loss, LOSSES)
        if self.sft_weight:
            if parts[0].loss.unit != "pair":
                raise UserError(f"--sft_weight is for losses of pairs; {self.loss} is of each {parts[0].loss.unit}")
            parts.append(WeightedLoss(LOSSES["sft"], self.sft_weight))
        options: dict[str, Any] = {known.name: getattr(self, known.name) for known in fields(self)}
        return Objective(parts, options)
