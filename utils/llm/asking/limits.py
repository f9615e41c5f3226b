"""Limits of speed, number and cost, and the pace that follows from them."""

from __future__ import annotations

import asyncio
import math
import random
import time
from contextlib import suppress
from dataclasses import dataclass

from utils.arguments.options import NOT_NEGATIVE, expect, option
from utils.llm.asking.throttle import Release, Throttle
from utils.llm.providers import FailedAttempt, Price, Provider, Reply, Request, parse_prices

LONGEST_BACKOFF = 60.0  # seconds
# Requests that may wait, as the server asked them to, beside those in flight.
WAITING = 16
# OpenAI bills batches at half the list price.
BATCH_SHARE = 0.5


@dataclass
class RateLimits:
    """Options of every program that asks."""

    concurrency: int = option(
        32, help="requests in flight at most; begins with 8 and adapts to the server", title="Limits and retries"
    )
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
    max_retries: int = option(6, help="further attempts after a lost connection or HTTP 5xx; at most 2 after time-outs")
    max_wait: float = option(
        600.0, help="seconds to go on while every request is refused for a rate limit (HTTP 429); then the run ends"
    )
    backoff: float = option(0.5, help="seconds before the first of them, doubled for each further one up to 60")
    max_unparsed: int = option(
        20, help="answers in a row, cut or without a clear value, at which the run stops; 0: it goes on"
    )
    timeout: float = option(120.0, help="seconds that an answer may take")
    batch: bool = option(
        False, help="ask through OpenAI's batch API; half the list price, answers within a day", first=True
    )
    retry_unparsed: bool = option(False, help="ask again where an answer in the ledger could not be read")
    dry_run: bool = option(False, help="count and price, ask nothing; what would be asked", first=True)

    def __post_init__(self) -> None:
        expect(self, "1 or more", "concurrency", "max_requests")
        expect(self, NOT_NEGATIVE, "max_usd", "max_retries", "max_unparsed")
        expect(self, "above 0", "requests_per_minute", "tokens_per_minute")
        expect(self, "above 0", "timeout", "backoff", "max_wait")
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
    """The moments at which requests may go out, one at a time: within the user's limits and what the server takes.

    Args:
        limits: what the user allows.
        stop: set when the run ends; `wake` then releases all requests that wait.
    """

    def __init__(self, limits: RateLimits, stop: asyncio.Event) -> None:
        self._stop, self._moved, self._turn = stop, asyncio.Event(), asyncio.Lock()
        self._throttle, self._in_flight = Throttle(limits.concurrency, time.monotonic()), 0
        # Seconds that each request and each token takes of the minute; a rate without a limit takes none.
        self._per_request = self._per_token = 0.0
        if limits.requests_per_minute:
            self._per_request = 60 / limits.requests_per_minute
        if limits.tokens_per_minute:
            self._per_token = 60 / limits.tokens_per_minute
        self._free_for_request = self._free_for_tokens = 0.0

    async def admit(self, request: Request) -> Release:
        """Wait for this request's turn, or for the end of the run. What is returned goes to `land`."""
        # The lock is first come, first served: a request that waits here holds up those behind it for its turn only.
        async with self._turn:
            while not self._stop.is_set() and (wait := self._seconds(time.monotonic())) > 0:
                await self._wait(wait)
        now = time.monotonic()
        self._free_for_request = max(now, self._free_for_request) + self._per_request
        self._free_for_tokens = max(now, self._free_for_tokens) + self._per_token * likely_tokens(request)
        self._in_flight += 1
        return self._throttle.release(now)

    def _seconds(self, now: float) -> float:
        allowed = max(self._free_for_request, self._free_for_tokens) - now
        return max(allowed, self._throttle.wait(now, self._in_flight))

    async def _wait(self, seconds: float) -> None:
        """Sleep, at most until a request comes back."""
        self._moved.clear()
        timeout = None
        if seconds < math.inf:
            timeout = seconds
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._moved.wait(), timeout)

    def land(self, release: Release, refused: bool) -> None:
        """Note that a request came back; `refused`: the server has too many."""
        self._in_flight -= 1
        if refused:
            self._throttle.refuse(release, time.monotonic())
        self.wake()

    def wake(self) -> None:
        """Look again whether the next request may go out."""
        self._moved.set()

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


def told_of_nothing(replies: list[Reply]) -> str:
    """Return what to tell of answers in a row that were paid for and hold no value."""
    cut = sum(reply.finish_reason == "length" for reply in replies)
    silent = sum(not (reply.text or "").strip() for reply in replies)
    told = f"the last {len(replies)} answers hold no value: {cut} were cut at their longest length, {silent} are empty"
    if cut:
        return f"{told}; raise --max_tokens (thinking counts, too), or lower --reasoning_effort"
    return f"{told}; read some with `ledger.py list --state unparsed`, or go on with --max_unparsed 0"


def likely_tokens(request: Request) -> int:
    """Estimate the tokens of a request and its reply."""
    # About four bytes a token; rate limits count the longest answer that the request allows.
    return request.most_input_tokens // 4 + (request.most_output_tokens or 0)
