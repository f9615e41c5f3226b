"""The options of losses of reward models (step 2)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import ClassVar

import numpy as np

from utils.arguments.declarations import NOT_NEGATIVE, expect, option
from utils.errors import UserError
from utils.losses.objective import Objective, WeightedLoss, parts_of
from utils.losses.reward import REWARD_LOSSES
from utils.tokens.group import Group

OF_RATINGS = ("sigmoid_regression", "ordinal_regression")


@dataclass
class RewardLossArguments:
    """Options of the loss. Most are used by some losses only, and refused with others (docs/reward_losses.md)."""

    AT_THE_TOP: ClassVar[bool] = True

    loss: str = option(
        "bradley_terry", help="a name in docs/reward_losses.md, or a mixture, as bradley_terry:0.9,token_wise:0.1",
        title="Loss", first=True,
    )  # fmt: skip
    center_coef: float = option(0.0, help="add this times (chosen + rejected score) squared to a loss of pairs")
    margin_scale: float = option(1.0, help="margin: how much farther apart for each point of rating")
    tie_theta: float = option(2.0, help="rao_kupper: equal scores tie with probability (theta - 1)/(theta + 1)")
    tie_nu: float = option(1.0, help="davidson: equal scores tie with probability nu/(2 + nu)")
    rating_scale: int = option(7, help="losses of ratings: the best rating; the worst is 1")
    num_layers_unfrozen: int | None = option(help="train only the last so many blocks and the head; None: every weight")
    pairs_from_ratings: bool = option(False, help="make pairs of ratings and ranks, too; for losses of pairs")

    def __post_init__(self) -> None:
        expect(self, NOT_NEGATIVE, "center_coef", "margin_scale")
        expect(self, NOT_NEGATIVE, "num_layers_unfrozen")
        expect(self, "above 0", "tie_nu")
        if not self.tie_theta > 1:
            raise UserError(f"--tie_theta is {self.tie_theta}; expected a number above 1")
        if self.rating_scale < 2:
            raise UserError(f"--rating_scale is {self.rating_scale}; expected 2 or more")
        objective = self.objective()
        self._refuse_unused(objective)
        if self.pairs_from_ratings and objective.unit != "pair":
            raise UserError(f"--pairs_from_ratings is for losses of pairs; {self.loss} is of each {objective.unit}")

    def _refuse_unused(self, objective: Objective) -> None:
        used = {name for part in objective.parts for name in part.loss.options}
        for known in fields(self):
            users = [loss.name for loss in REWARD_LOSSES.values() if known.name in loss.options]
            if users and known.name not in used and getattr(self, known.name) != known.default:
                raise UserError(f"--loss {self.loss} does not use --{known.name}; {', '.join(sorted(users))} would")

    def objective(self) -> Objective:
        """Return the loss that the options name."""
        parts = parts_of(self.loss, REWARD_LOSSES)
        kinds = {part.loss.data for part in parts if part.loss.name != "center"}
        if len(kinds) > 1:
            # One of them would read pairs of which it does not know what it needs, or ties as if they were decided.
            raise UserError(
                f"--loss {self.loss} mixes losses that read {' and '.join(sorted(kinds))}; expected one kind"
            )
        if self.center_coef:
            if parts[0].loss.unit != "pair":
                raise UserError(f"--center_coef is for losses of pairs; {self.loss} is of each {parts[0].loss.unit}")
            parts.append(WeightedLoss(REWARD_LOSSES["center"], self.center_coef))
        return Objective(parts, {known.name: getattr(self, known.name) for known in fields(self)})

    def check_ratings(self, groups: Iterable[Group]) -> None:
        """Raise UserError where a loss of ratings would read one outside its scale, or between its steps."""
        names = [name for name in self.objective().names if name in OF_RATINGS]
        if not names:
            return
        for group in groups:
            ratings, top = group.feedback.rating, self.rating_scale
            strange = ~((ratings >= 1) & (ratings <= top))
            expected = f"ratings from 1 to {top} (--rating_scale)"
            if "ordinal_regression" in names:
                strange |= ratings != np.round(ratings)
                expected = f"whole {expected}"
            if strange.any():
                raise UserError(f"the data has a rating of {ratings[strange][0]:g}; --loss {names[0]} reads {expected}")
