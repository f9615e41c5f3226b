"""Limits of speed, number and cost, and the pace that follows from them."""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from utils.arguments.options import NOT_NEGATIVE, expect, option
from utils.llm.providers import FailedAttempt, Price, Provider, Reply, Request, parse_prices

LONGEST_BACKOFF = 60.0  # seconds
# OpenAI bills batches at half the list price.
BATCH_SHARE = 0.5


@dataclass
class RateLimits:
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
    retry_unparsed: bool = option(False, help="ask again where an answer in the ledger could not be read")
    dry_run: bool = option(False, help="count and price, ask nothing; what would be asked", first=True)

    def __post_init__(self) -> None:
        expect(self, "1 or more", "concurrency", "max_requests")
        expect(self, NOT_NEGATIVE, "max_usd", "max_retries")
        expect(self, "above 0", "requests_per_minute", "tokens_per_minute")
        expect(self, "above 0", "timeout", "backoff")
        self._prices = parse_prices(self.price)

    def given_price(self, model: str) -> Price | None:
        """Return the model's price in --price, or None."""
        return self._prices.get(model) or self._prices.get("")

    def price_of(self, model: str, provider: Provider) -> Price | None:
        """Return the price in --price, else that of the price list, else None."""
        listed = provider.price(model)
        if listed and self.batch:
            listed = Price(BATCH_SHARE * listed.input, BATCH_SHARE * listed.output)
        return self.given_price(model) or listed


class Pace:
    """The moments at which requests may go out. `pause(seconds)` sleeps, and returns True when the run stops."""

    def __init__(self, limits: RateLimits, pause: Callable[[float], Awaitable[bool]]) -> None:
        self._pause = pause
        # Seconds that each request and each token takes of the minute; a rate without a limit takes none.
        self._per_request = self._per_token = 0.0
        if limits.requests_per_minute:
            self._per_request = 60 / limits.requests_per_minute
        if limits.tokens_per_minute:
            self._per_token = 60 / limits.tokens_per_minute
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
        """Send nothing for a while, because the server has too many requests."""
        self._held_until = max(self._held_until, time.monotonic() + seconds)

    def correct(self, request: Request, reply: Reply) -> None:
        """Replace the tokens that a request was expected to use by those that it used."""
        if reply.input_tokens is not None and reply.output_tokens is not None:
            used = reply.input_tokens + reply.output_tokens
            self._free_for_tokens += self._per_token * (used - likely_tokens(request))


def seconds_before_retry(limits: RateLimits, request: Request, failure: FailedAttempt, tries: int) -> float:
    """Return the pause before the next attempt: exponential, or what the server asked for and a little more.

    Args:
        limits: where `backoff` is the first pause in seconds.
        request: the request, whose key seeds the jitter.
        failure: how the last attempt ended.
        tries: attempts so far.

    Returns:
        Seconds.
    """
    # Without jitter, requests that failed together would come back together and fail again.
    jitter = random.Random(f"{request.key} {tries}").uniform(0.5, 1.0)
    if failure.wait is not None:
        return failure.wait * (1 + 0.1 * jitter)
    # 2^30 is far beyond LONGEST_BACKOFF already; a larger power would overflow.
    return jitter * min(LONGEST_BACKOFF, limits.backoff * 2.0 ** min(max(tries - 1, 0), 30))


def likely_tokens(request: Request) -> int:
    """Estimate the tokens of a request and its reply."""
    # About four bytes a token; rate limits count the longest answer that the request allows.
    return request.most_input_tokens // 4 + (request.most_output_tokens or 0)
