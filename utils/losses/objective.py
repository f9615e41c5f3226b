"""The loss of a run: one loss or a mixture, with its options, its state, and what it saw of the step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from utils.errors import UserError
from utils.losses.registry import Loss
from utils.tokens.group import Unit
from utils.tokens.templates import Kind


@dataclass(frozen=True)
class WeightedLoss:
    """A loss and its weight in the sum."""

    loss: Loss
    weight: float = 1.0


def parts_of(text: str, table: Mapping[str, Loss], option: str = "loss") -> list[WeightedLoss]:
    """Return the losses that the value of an option names: `sigmoid`, or `sigmoid:0.8,bco_pair:0.2`. Raises UserError
    for an unknown name, a weight that is not above 0, or losses that are not averaged over the same unit."""
    parts: list[WeightedLoss] = []
    for word in text.split(","):
        name, colon, weight = word.strip().partition(":")
        if name not in table:
            raise UserError(f"--{option} {name or text} is unknown; known: {', '.join(sorted(table))}")
        if name in [part.loss.name for part in parts]:
            raise UserError(f"--{option} {text} names {name} twice; expected each loss once, with its weight")
        try:
            number = float(weight) if colon else 1.0
        except ValueError:
            number = 0.0
        if not 0 < number < float("inf"):
            raise UserError(f"--{option} {text}: {name} has the weight {weight!r}; expected a number above 0")
        parts.append(WeightedLoss(table[name], number))
    first = parts[0].loss
    for part in parts:
        if part.loss.unit != first.unit:
            raise UserError(
                f"--{option} {text}: {first.name} is averaged over each {first.unit}, {part.loss.name} over each "
                f"{part.loss.unit}; expected losses of one unit"
            )
    kinds = sorted({part.loss.data for part in parts})
    if len(kinds) > 1 and kinds != ["comparisons", "rated_comparisons"]:
        raise UserError(f"--{option} {text} reads {' and '.join(kinds)} data; expected losses of one kind of data")
    return parts


class Objective:
    """A weighted sum of losses as a function of a batch's inputs.

    Args:
        parts: the losses, all of one unit.
        options: the values of the options that losses may name.
    """

    def __init__(self, parts: list[WeightedLoss], options: Mapping[str, Any]) -> None:
        self.parts, self.options = parts, options
        # a checkpoint keeps them, by the names of the losses
        self.states = {part.loss.name: part.loss.state() for part in parts if part.loss.state}
        self._seen: dict[str, Tensor] = {}

    @property
    def unit(self) -> Unit:
        """Return what the losses are averaged over."""
        return self.parts[0].loss.unit

    @property
    def names(self) -> list[str]:
        """Return the names of the losses."""
        return [part.loss.name for part in self.parts]

    @property
    def data(self) -> Kind:
        """Return the kind of data that the losses read; comparisons with ratings serve for plain ones, too."""
        kinds = [part.loss.data for part in self.parts]
        return "rated_comparisons" if "rated_comparisons" in kinds else kinds[0]

    @property
    def reference(self) -> bool:
        """Return whether any of the losses compares with a reference model."""
        return any(part.loss.reference for part in self.parts)

    @property
    def tokens(self) -> bool:
        """Return whether any of the losses reads the log-probs of single tokens."""
        return any(part.loss.tokens for part in self.parts)

    @property
    def looks_at_units(self) -> bool:
        """Return whether any of the losses looks at every unit of the global batch before the first backward."""
        return any(part.loss.look for part in self.parts)

    @property
    def looks(self) -> bool:
        """Return whether any of the losses has to know anything of the whole global batch before that."""
        return self.looks_at_units or self.mismatched

    @property
    def mismatched(self) -> bool:
        """Return whether any of the losses looks at answers to other prompts."""
        return any(part.loss.look_at_mismatched for part in self.parts)

    def at_start(self) -> float | None:
        """Return the loss where policy and reference agree, if it has such a value."""
        total = 0.0
        for part in self.parts:
            value = part.loss.value_at_start(self.options)
            if value is None:
                return None
            total += part.weight * value
        return total

    def see(self, inputs: Any, mismatched: Tensor | None = None) -> dict[str, Tensor]:
        """Return what the losses have to know of every unit before the step, [units, numbers] by their names.
        mismatched: log-ratios of answers to other prompts, [answers], for losses that look at them."""
        seen = {}
        for part in self.parts:
            if part.loss.look_at_mismatched:
                seen[part.loss.name] = mismatched[:, None].detach()
            elif part.loss.look:
                seen[part.loss.name] = part.loss.look(inputs).detach()
        return seen

    def settle(self, seen: dict[str, Tensor], training: bool = True) -> None:
        """Take what was seen of the whole global batch, or of all held-out data: `see` of each batch, joined.
        `training` lets the states run on."""
        self._seen = seen
        if training:
            for name, state in self.states.items():
                state.update(seen[name])

    def __call__(self, inputs: Any) -> Tensor:
        """Return one loss per unit."""
        losses = None
        for part in self.parts:
            name = part.loss.name
            found = part.loss(inputs, **self.options, seen=self._seen.get(name), state=self.states.get(name))
            if part.weight != 1.0:
                found = part.weight * found
            losses = found if losses is None else losses + found
        return losses


class Running:
    """Running means of what was seen, over all steps so far: numbers, and how many went into them."""

    def __init__(self) -> None:
        self.count, self.mean = 0, 0.0

    def update(self, seen: Tensor) -> None:
        """Take in the values of a step."""
        values = seen.double().flatten()
        self.count += len(values)
        self.mean += float((values - self.mean).sum()) / self.count if len(values) else 0.0
