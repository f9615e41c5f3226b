"""How fast, how often and how dearly may be asked."""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from utils.arguments.options import NOT_NEGATIVE, expect, option
from utils.llm.providers import Price, Provider, Reply, Request, Trouble, parse_prices

LONGEST_BACKOFF = 60.0  # seconds
BATCH_SHARE = 0.5  # of the list price


@dataclass
class Limits:
    """Options of every program that asks."""

    concurrency: int = option(32, help="requests in flight at once", title="Limits and retries")
    max_requests: int | None = option(help="requests to send at most, retries included; the rest stays planned")
    max_usd: float | None = option(
        help="US dollars to spend at most; by all runs on the ledger, a request at its worst until it is answered",
        first=True,
    )
    price: list[str] = option(
        [], help="price as [MODEL=]IN,OUT, USD per million tokens; None: that of utils/llm/providers/prices.json"
    )
    requests_per_minute: float | None = option(help="requests to send at most in a minute")
    tokens_per_minute: float | None = option(help="tokens, in and out, at most in a minute")
    max_retries: int = option(6, help="further attempts after a time-out, a lost connection, HTTP 429 or 5xx")
    backoff: float = option(0.5, help="seconds before the first of them, doubled for each further one up to 60")
    timeout: float = option(120.0, help="seconds that an answer may take")
    batch: bool = option(
        False, help="ask through OpenAI's batch API; half the list price, answers within a day", first=True
    )
    dry_run: bool = option(False, help="count and price, ask nothing; what would be asked", first=True)

    def __post_init__(self) -> None:
        expect(self, "1 or more", "concurrency", "max_requests")
        expect(self, NOT_NEGATIVE, "max_usd", "max_retries")
        expect(self, "above 0", "requests_per_minute", "tokens_per_minute", "timeout", "backoff")
        self._prices = parse_prices(self.price)

    def given_price(self, model: str) -> Price | None:
        return self._prices.get(model) or self._prices.get("")

    def price_of(self, model: str, provider: Provider) -> Price | None:
        """--price before the price list; None: not known."""
        listed = provider.price(model)
        if listed and self.batch:
            listed = Price(BATCH_SHARE * listed.input, BATCH_SHARE * listed.output)
        return self.given_price(model) or listed


class Pace:
    """When the next request may go out. `pause(seconds)` sleeps; it returns True when everything stops."""

    def __init__(self, limits: Limits, pause: Callable[[float], Awaitable[bool]]) -> None:
        self._pause = pause
        self._per_request = 60 / limits.requests_per_minute if limits.requests_per_minute else 0.0
        self._per_token = 60 / limits.tokens_per_minute if limits.tokens_per_minute else 0.0
        self._free_for_request = self._free_for_tokens = self._held_until = 0.0

    async def admit(self, request: Request) -> None:
        """Wait for this request's turn."""
        now = time.monotonic()
        turn = max(now, self._free_for_request, self._free_for_tokens)
        self._free_for_request = turn + self._per_request
        self._free_for_tokens = max(now, self._free_for_tokens) + self._per_token * likely_tokens(request)
        await self._pause(turn - now)
        while (wait := self._held_until - time.monotonic()) > 0 and not await self._pause(wait):
            pass

    def hold(self, seconds: float) -> None:
        """The server has too many requests: nobody sends for a while."""
        self._held_until = max(self._held_until, time.monotonic() + seconds)

    def correct(self, request: Request, reply: Reply) -> None:
        """The tokens that were used, in place of those that were reckoned with."""
        if reply.input_tokens is not None and reply.output_tokens is not None:
            used = reply.input_tokens + reply.output_tokens
            self._free_for_tokens += self._per_token * (used - likely_tokens(request))


def seconds_before_retry(limits: Limits, request: Request, trouble: Trouble, tries: int) -> float:
    """Exponential, with jitter that the request's key seeds; or what the server asked for, and a little more."""
    jitter = random.Random(f"{request.key} {tries}").uniform(0.5, 1.0)
    if trouble.wait is not None:
        return trouble.wait * (1 + 0.1 * jitter)
    return jitter * min(LONGEST_BACKOFF, limits.backoff * 2.0 ** min(max(tries - 1, 0), 30))


def likely_tokens(request: Request) -> int:
    """About four bytes a token, and the longest answer, as rate limits count it."""
    return request.most_input_tokens // 4 + (request.most_output_tokens or 0)
