"""What tokens cost: prices.json with its date, and --price. A model that is in neither has no price, never a guess."""

from __future__ import annotations

import functools
import json
import math
from dataclasses import dataclass
from pathlib import Path

from utils.errors import UserError

FILE = Path(__file__).with_name("prices.json")


@dataclass(frozen=True)
class Price:
    """USD per million tokens."""

    input: float
    output: float

    def of(self, input_tokens: int, output_tokens: int) -> float:
        """Return the cost of these tokens in USD."""
        return (input_tokens * self.input + output_tokens * self.output) / 1e6


@functools.cache
def price_list() -> dict[str, Price]:
    """Return the prices on the providers' own servers, by the exact name of the model."""
    models = json.loads(FILE.read_text(encoding="utf-8"))["models"]
    return {model: Price(*pair) for model, pair in models.items()}


def parse_prices(words: list[str]) -> dict[str, Price]:
    """Read [MODEL=]IN,OUT … into prices by model; one without a name is that of "", every other model.

    Raises UserError.
    """
    prices: dict[str, Price] = {}
    for word in words:
        model, _, numbers = word.rpartition("=")
        try:
            price = Price(*(float(number) for number in numbers.split(",")))
        except (ValueError, TypeError):
            price = Price(math.nan, math.nan)
        if not (0 <= price.input < math.inf and 0 <= price.output < math.inf):
            raise UserError(f"--price {word}: expected [MODEL=]IN,OUT in USD per million tokens, as 2.5,10")
        if model in prices:
            raise UserError(f"--price gives {model or 'the price of every model'} twice; give it once")
        prices[model] = price
    return prices
