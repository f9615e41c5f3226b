"""The model that is asked: its full name, its provider, what is known of it."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

from utils.errors import UserError
from utils.feedback.cases import Asker, Case, questions_of
from utils.feedback.options import RequestArguments
from utils.feedback.requests import RequestSettings, SettledQuestions
from utils.llm.asking import RateLimits
from utils.llm.providers import Provider, is_loopback, is_served_by_its_maker
from utils.llm.providers.prices import PriceList
from utils.reporting import say, warn

OWN_PRICES = "prices.json"  # beside the ledger
# The models that the short names stood for before the list of models had them.
FORMER_NAMES = {"gpt4": "gpt-4o", "chatgpt": "gpt-4o-mini", "claude": "claude-sonnet-4-20250514"}
FIRST = 20  # rows that are looked up under a former name


@dataclass(frozen=True)
class AskedModel:
    """The model that is asked.

    Args:
        name: its full name.
        provider: openai, anthropic or replay.
        prices: what is known of models.
        short: the short name that a person gave, or None.
    """

    name: str
    provider: str
    prices: PriceList
    short: str | None = None

    @classmethod
    def of(cls, args: RequestArguments, prices: PriceList) -> AskedModel:
        """Return the model that the options name."""
        name, short = prices.name_of(args.api_type), None
        if name != args.api_type:
            short = args.api_type
        return cls(name, args.provider or ("anthropic" if name.startswith("claude") else "openai"), prices, short)

    def settings(self, args: RequestArguments, bounded: bool) -> RequestSettings:
        """Return what its requests have besides their words; `bounded` wants a limit for every reply. Raises
        UserError."""
        facts = self.prices.model(self.name)
        if args.temperature is not None and not facts.takes_temperature(args.reasoning_effort):
            remedy = "leave it out"
            if facts.takes_temperature("none"):
                remedy += ", or give --reasoning_effort none"
            raise UserError(f"--temperature: {self.name} refuses a request that sets it ({facts.file}); {remedy}")
        own = is_served_by_its_maker(self.name, self.provider, args.base_url, self.prices)
        return RequestSettings(
            temperature=args.temperature, max_tokens=args.max_tokens, bounded=bounded, own=own, facts=facts,
            reasoning_effort=args.reasoning_effort, extra_body=args.extra,
        )  # fmt: skip

    def refuse_former_answers(self, cases: Iterable[Case], asker: Asker, held: SettledQuestions) -> None:
        """Raise UserError where a short name stood for another model when the ledger's answers were asked for: they
        would be asked for and paid again, and two judges mixed."""
        former = FORMER_NAMES.get(self.short or "")
        if former is None or former == self.name:
            return
        earlier = replace(asker, model=former)
        for question in questions_of(itertools.islice(cases, FIRST), earlier, held.outcome_of):
            if held.has(question):
                raise UserError(
                    f"the ledger holds answers of {former}, which --api_type {self.short} was short for; give "
                    f"--api_type {former} to go on with them, or --api_type {self.name} to ask the newer model"
                )

    def announce(self, provider: Provider, limits: RateLimits) -> None:
        """Print which model a short name stands for, and what is unsure of its price."""
        facts = self.prices.model(self.name)
        if self.short:
            say(f"{self.short} is short for {self.name} since {facts.listed or 'the list'} ({facts.file or 'prices'})")
        for told in self.prices.warnings(self.name, date.today()):
            warn(told)
        if limits.price_of(self.name, provider) is None and not is_loopback(provider.where):
            unknown = f"the price of {self.name} at {provider.where} is not known"
            warn(f"{unknown}: no cost is counted; give --price IN,OUT, or a file of prices with --prices")


def prices_file(args: RequestArguments, ledger: str) -> Path | None:
    """Return the file of prices that a person gave or laid beside the ledger, or None."""
    if args.prices is not None:
        return Path(args.prices)
    beside = Path(ledger).parent / OWN_PRICES
    return beside if beside.is_file() else None
