"""What a loss declares of itself, and the decorator that makes it known by its name.

A loss is a function of its inputs (utils/losses/inputs.py) and of the options that it names as parameters; it returns
one number per unit, float32. Which options it uses is read from its parameters, so that any other is refused.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from utils.tokens.group import Unit
from utils.tokens.templates import Kind

OFFERED = ("seen", "state")  # parameters of a loss that are no options


@dataclass(frozen=True)
class Loss:
    """A loss and what it needs.

    Args:
        name: its function's, and that of the option.
        function: (inputs, its options by name) -> one loss per unit.
        unit: what it is averaged over, and what must stay together in a forward pass.
        data: the kind of data it reads.
        reference: whether it compares with a reference model; without it the log-ratios are plain log-probs.
        at_start: its value where policy and reference agree: a number, or a function of its options; None: it has no
            such value, or only with other options.
        look: what has to be known of every unit of the step before its first backward: inputs -> [units, numbers].
            The loss is given them as `seen`, of the whole global batch.
        look_at_mismatched: whether it is given `seen`, log-ratios of answers to other prompts, [answers, 1].
        state: makes an object that runs along with the training, given to the loss as `state`; its method `update`
            takes what was seen of each step, and checkpoints keep its attributes.
        tokens: whether it reads the log-probs of single tokens.
    """

    name: str
    function: Callable[..., Tensor]
    unit: Unit
    data: Kind
    reference: bool = True
    at_start: float | Callable[..., float | None] | None = None
    look: Callable[[Any], Tensor] | None = None
    look_at_mismatched: bool = False
    state: Callable[[], Any] | None = None
    tokens: bool = False

    @property
    def options(self) -> tuple[str, ...]:
        """Return the options that it uses."""
        _, *names = inspect.signature(self.function).parameters
        return tuple(name for name in names if name not in OFFERED)

    def value_at_start(self, options: Mapping[str, Any]) -> float | None:
        """Return the loss where policy and reference agree, if it has such a value."""
        if callable(self.at_start):
            return self.at_start(**{name: options[name] for name in inspect.signature(self.at_start).parameters})
        return self.at_start

    def __call__(self, inputs: Any, **given: Any) -> Tensor:
        """Return the losses; of `given` (options, `seen`, `state`) it takes what it names."""
        _, *names = inspect.signature(self.function).parameters
        return self.function(inputs, **{name: given[name] for name in names})


def loss_of(table: dict[str, Loss], **needs: Any) -> Callable[[Callable[..., Tensor]], Callable[..., Tensor]]:
    """Return a decorator that enters a function in `table` by its name; `needs` are fields of Loss."""

    def register(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        table[function.__name__] = Loss(name=function.__name__, function=function, **needs)
        return function

    return register
