"""What is known of models: prices, limits and short names in prices.json with its date, in a person's own file, and
in --price. A model that none of them names has no price, never a guess."""

from __future__ import annotations

import functools
import json
import math
import re
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Any

from utils.errors import UserError

FILE = Path(__file__).with_name("prices.json")
OLD = 90  # days after which a price should be looked up again
# A dated snapshot of a model takes the same options as the model: gpt-5.5-2026-04-23, claude-sonnet-4-5-20250929.
_SNAPSHOT = re.compile(r"-(\d{4}-\d{2}-\d{2}|\d{8})$")
FIELDS = ("usd", "longest", "effort", "temperature", "until")
REFUSED, EFFORT_NONE = "refused", "effort none"


@dataclass(frozen=True)
class Price:
    """USD per million tokens."""

    input: float
    output: float

    def of(self, input_tokens: int, output_tokens: int) -> float:
        """Return the cost of these tokens in USD."""
        return (input_tokens * self.input + output_tokens * self.output) / 1e6


@dataclass(frozen=True)
class ModelFacts:
    """What is known of a model.

    Args:
        price: its price, or None where the list has none.
        longest: tokens of its longest reply, thinking included; None where that is not known.
        effort: the reasoning effort of a request that names none; None for a model that does not think unless asked.
        temperature: "refused", or "effort none" where only a request with that effort may set it; None: it is taken.
        until: the day on which the provider stops (or stopped) serving it.
        listed: the day of the list that names it.
        file: that list.
    """

    price: Price | None = None
    longest: int | None = None
    effort: str | None = None
    temperature: str | None = None
    until: date | None = None
    listed: date | None = None
    file: str = ""

    def thinks(self, effort: str | None) -> bool:
        """Tell whether it thinks before it answers, at the --reasoning_effort given."""
        return (effort or self.effort or "none") != "none"

    def takes_temperature(self, effort: str | None) -> bool:
        """Tell whether a request may set the temperature, at the --reasoning_effort given."""
        if self.temperature == EFFORT_NONE:
            return not self.thinks(effort)
        return self.temperature != REFUSED


@dataclass(frozen=True)
class PriceList:
    """Models by name, and short names of some of them."""

    models: dict[str, ModelFacts] = field(default_factory=dict)
    short_names: dict[str, str] = field(default_factory=dict)

    def name_of(self, name: str) -> str:
        """Return the full name of a model for a short one, and any other name as it is."""
        return self.short_names.get(name, name)

    def price(self, model: str) -> Price | None:
        """Return the price of the model of exactly this name, or None."""
        return self.models.get(model, ModelFacts()).price

    def model(self, name: str) -> ModelFacts:
        """Return what is known of a model; of a dated snapshot, what is known of the model, without its price."""
        if name in self.models:
            return self.models[name]
        return replace(self.models.get(_SNAPSHOT.sub("", name), ModelFacts()), price=None)

    def warnings(self, name: str, today: date) -> list[str]:
        """Return what a person should know before asking a model: that it is no longer served, or its price is old."""
        found, told = self.model(name), []
        if found.until and found.until <= today:
            told.append(f"{name} is served until {found.until} according to {found.file}; give another --api_type")
        if found.price and (today - found.listed).days > OLD:
            age = f"of {found.listed}, {(today - found.listed).days} days old"
            told.append(f"the price of {name} in {found.file} is {age}; check it, and give --price or --prices")
        return told


@functools.cache
def price_list() -> PriceList:
    """Return the list that comes with the project: the providers' own servers, models by their exact names."""
    found = read_prices(FILE)
    models = {name: replace(model, file="utils/llm/providers/prices.json") for name, model in found.models.items()}
    return replace(found, models=models)


def with_own(file: Path | None) -> PriceList:
    """Return the project's list; what a person's own file (or None) says of a model takes the place of its own."""
    built_in = price_list()
    if file is None:
        return built_in
    own, models = read_prices(file), dict(built_in.models)
    for name, facts in own.models.items():
        given = {field: value for field, value in vars(facts).items() if value is not None}
        models[name] = replace(models.get(name, facts), **given)
    return PriceList(models, {**built_in.short_names, **own.short_names})


def read_prices(file: Path) -> PriceList:
    """Read a file in the form of prices.json. A model may be just its price, [input, output]. Raises UserError."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: cannot be read as JSON: {getattr(error, 'strerror', None) or error}") from None
    expected = 'expected {"date": "2026-11-22", "models": {"NAME": {"usd": [IN, OUT]}}} with USD per million tokens'
    if not isinstance(content, dict) or not isinstance(content.get("models", {}), dict):
        raise UserError(f"{file}: found {str(content)[:60]!r}; {expected}")
    listed, short_names = _date(file, "date", content.get("date")), content.get("short_names", {})
    if listed is None:
        raise UserError(f"{file}: no date; {expected}")
    if not isinstance(short_names, dict) or not all(isinstance(name, str) for name in short_names.values()):
        raise UserError(f"{file}: short_names is {str(short_names)[:60]!r}; expected an object of names of models")
    models = {}
    for name, entry in content.get("models", {}).items():
        if isinstance(entry, list):
            entry = {"usd": entry}
        models[name] = replace(_model(file, name, entry), listed=listed, file=str(file))
    return PriceList(models, short_names)


def _model(file: Path, name: str, entry: Any) -> ModelFacts:
    if not isinstance(entry, dict) or entry.keys() - set(FIELDS):
        raise UserError(f"{file}: {name} is {str(entry)[:60]!r}; expected an object of {', '.join(FIELDS)}")
    longest, effort, temperature = (entry.get(field) for field in ("longest", "effort", "temperature"))
    price = None
    if "usd" in entry:
        price = _price(entry["usd"])
        if price is None:
            raise UserError(f"{file}: {name}: usd is {str(entry['usd'])[:60]!r}; expected [IN, OUT], as [2.5, 10]")
    if longest is not None and (not isinstance(longest, int) or isinstance(longest, bool) or longest < 1):
        raise UserError(f"{file}: {name}: longest is {longest!r}; expected a number of tokens")
    if effort is not None and not isinstance(effort, str):
        raise UserError(f"{file}: {name}: effort is {effort!r}; expected a word such as medium")
    if temperature not in (None, REFUSED, EFFORT_NONE):
        raise UserError(f"{file}: {name}: temperature is {temperature!r}; expected {REFUSED!r} or {EFFORT_NONE!r}")
    return ModelFacts(
        price, longest, effort, temperature=temperature, until=_date(file, f"{name}: until", entry.get("until"))
    )


def _date(file: Path, name: str, value: Any) -> date | None:
    if value is None:
        return None
    try:
        return date.fromisoformat(value)
    except (TypeError, ValueError):
        raise UserError(f"{file}: {name} is {str(value)[:60]!r}; expected a day, as 2026-11-22") from None


def _price(numbers: Any) -> Price | None:
    """Return the price of [input, output], or None for anything that is none."""
    try:
        price = Price(*(float(number) for number in numbers))
    except (ValueError, TypeError):
        return None
    if 0 <= price.input < math.inf and 0 <= price.output < math.inf:
        return price
    return None


def parse_prices(words: list[str]) -> dict[str, Price]:
    """Read [MODEL=]IN,OUT … into prices by model; one without a name is that of "", every other model.

    Raises UserError.
    """
    prices: dict[str, Price] = {}
    for word in words:
        model, _, numbers = word.rpartition("=")
        price = _price(numbers.split(","))
        if price is None:
            raise UserError(f"--price {word}: expected [MODEL=]IN,OUT in USD per million tokens, as 2.5,10")
        if model in prices:
            raise UserError(f"--price gives {model or 'the price of every model'} twice; give it once")
        prices[model] = price
    return prices
