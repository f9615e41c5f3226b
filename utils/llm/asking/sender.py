"""Send planned requests and store their answers, each of which is durable before it is used."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from contextlib import suppress
from functools import partial
from typing import Any

from utils.errors import TryAgainError, UserError
from utils.llm.asking.limits import WAITING, seconds_before_retry, told_of_nothing
from utils.llm.asking.run import AskingRun
from utils.llm.ledger import steps
from utils.llm.ledger.parsing import read_answer
from utils.llm.providers import FailedAttempt, Reply, Request, Send
from utils.reporting import say

POLL = 0.3  # seconds between looks at what another process does
# Requests that fail one after another before the run gives up: the next thousands would fail, too.
FAILURES = 50
# Further attempts of a request that took too long: each of them may have been made, and billed.
MOST_LATE = 2
# Retries while nothing listens at the address and nothing has been answered: it is probably a wrong --base_url.
FIRST_TRIES = 2


class Sender(AskingRun):
    """A run that sends requests one by one, many in flight at once."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self._claimed: deque[Request] = deque()
        self._in_flight = self._failed_in_a_row = 0
        self._without_value: list[Reply] = []  # the last answers, as far as no parser found a value in them
        self._refused_since: float | None = None  # when the server began to refuse all for a rate limit

    def _connect(self) -> Any:
        return self.provider.connect(self.limits.timeout)

    def _start(self, session: Send, total: int) -> list[asyncio.Task]:
        self._taking, self._landed = asyncio.Lock(), asyncio.Event()
        workers = min(self.limits.concurrency + WAITING, total)
        return [asyncio.create_task(self._work(session)) for _ in range(workers)]

    # ---- taking requests

    async def _work(self, send: Send) -> None:
        try:
            while (request := await self._take()) is not None:
                await self._settle(request, send)
        except UserError as error:
            self._give_up(error)

    async def _take(self) -> Request | None:
        """Return the next request, or None when there is none left or the run stops."""
        async with self._taking:
            while not self._claimed and not self._stop.is_set():
                self._claimed += await self._do(steps.claim, self.ledger.process, self.limits.concurrency)
                if not self._claimed and not await self._others():
                    return None
            return None if self._stop.is_set() else self._claimed.popleft()

    async def _others(self) -> bool:
        """Wait for requests that another process asks; those that it leaves when it dies are free again. Returns False
        when nothing is left."""
        settled, left = await self._do(steps.left)
        self._advance(settled)
        if left:
            if not self.counts["polls"]:
                say(f"another process asks {left} of these requests; waiting for its answers")
            self.counts["polls"] += 1
            await self._pause(POLL)
            await self._do(steps.take_over)
        return left > 0

    # ---- one request

    async def _settle(self, request: Request, send: Send) -> None:
        """Make as many attempts as it takes. When the run stops, the request stays planned."""
        tries = late = 0
        while True:
            release = await self._pace.admit(request)
            attempt = await self._mark_sent(request)
            if attempt is None:
                # Not sent: another request may go in its place.
                return self._pace.land(release, refused=False)
            failure = await self._attempt(request, attempt, send)
            if failure is None:
                return self._pace.land(release, refused=False)
            # A rate limit is no fault of the request, so that its refusals are no attempts.
            tries += not failure.busy
            late += failure.late
            if not failure.again or tries > self._most_tries(failure) or late > MOST_LATE:
                # First of all: it may end the run before the next request goes out.
                await self._fail(request, failure)
                return self._pace.land(release, refused=failure.busy)
            self._pace.land(release, refused=failure.busy)
            self.counts["retries"] += 1
            self._expect_answers(failure)
            # After a refusal that names no time, the common pace has been lowered, and is wait enough.
            if failure.wait is not None or not failure.busy:
                await self._back_off(request, failure, tries)

    async def _mark_sent(self, request: Request) -> int | None:
        """Return the attempt's number; None when the run stops, perhaps because a limit is reached, and for a request
        that another process has taken over."""
        most_usd = self._most_usd(request)
        while not self._stop.is_set():
            if self.limits.max_requests is not None and self._sent >= self.limits.max_requests:
                self._end("--max_requests")
                break
            self._sent, landed = self._sent + 1, self._landed
            attempt = await self._do(
                steps.send, self.ledger.process, request.key, most_usd=most_usd, max_usd=self.limits.max_usd
            )
            if attempt:
                self._in_flight += 1
                return attempt
            self._sent -= 1
            if attempt == steps.NOT_MINE:
                break
            if not self._in_flight:
                self._end("--max_usd")
            else:
                # Requests in flight count at their worst and will cost less: there may be money left once one lands.
                await landed.wait()
        return None

    def _most_usd(self, request: Request) -> float | None:
        """Return the most that the request can cost, or None. Raises UserError where --max_usd has to know it."""
        price, most = self.limits.price_of(request.model, self.provider), request.most_output_tokens
        if self.limits.max_usd is not None and most is None:
            raise UserError("--max_usd needs --max_tokens: a reply without a limit may cost anything")
        if price is None or most is None:
            return None
        return price.of(request.most_input_tokens, most)

    async def _attempt(self, request: Request, attempt: int, send: Send) -> FailedAttempt | None:
        """Send once and store the reply. Returns the failure, or None."""
        try:
            reply = await send(request)
            await self._store(request, attempt, reply)
            self._pace.correct(request, reply)
        except FailedAttempt as failure:
            await self._note(request, attempt, failure)
            return failure
        except UserError:
            # The ledger itself may be what failed.
            with suppress(UserError):
                await self._note(request, attempt, FailedAttempt("rejected by the server", again=False))
            raise
        finally:
            self._in_flight -= 1
            self._landed.set()
            self._landed = asyncio.Event()
        return None

    async def _note(self, request: Request, attempt: int, failure: FailedAttempt) -> None:
        """Store how an attempt failed."""
        price = self.limits.price_of(request.model, self.provider)
        usd = await self._do(
            steps.end, attempt, failure.reason, reply=failure.reply, price=price, free=not failure.billed
        )
        self.usd += usd or 0.0

    async def _store(self, request: Request, attempt: int, reply: Reply) -> None:
        """Store an answer, then read it."""
        # Stored first: reading may fail, or be cut short by a kill, and costs nothing to do again.
        price = self.limits.price_of(request.model, self.provider)
        usd, asked = await self._do(steps.store, attempt, request.key, reply=reply, price=price)
        self.usd += usd or 0.0
        self._count("refused" if reply.refused else "answered")
        self._parse(request, reply, asked)

    def _parse(self, request: Request, reply: Reply, asked: list[tuple[str, str]]) -> None:
        values = readings = 0
        for parser, args in asked:
            if parser in self.parsers:
                reading = read_answer(self.parsers[parser], reply.text or "", args)
                self.counts["unparsed"] += reading.reason is not None
                readings, values = readings + 1, values + (reading.reason is None)
                self._writer.post(partial(steps.parsed, key=request.key, parser=parser, args=args, reading=reading))
        if values:
            self._without_value.clear()
        elif readings:
            self._without_value.append(reply)
            if len(self._without_value) == self.limits.max_unparsed:
                self._give_up(UserError(told_of_nothing(self._without_value)))

    def _most_tries(self, failure: FailedAttempt) -> int:
        if failure.unreachable and not self.counts["answered"]:
            return min(self.limits.max_retries, FIRST_TRIES)
        return self.limits.max_retries

    def _expect_answers(self, failure: FailedAttempt) -> None:
        """Raise TryAgainError where the server has done nothing but refuse for --max_wait seconds."""
        now = time.monotonic()
        if not failure.busy:
            self._refused_since = None
        elif self._refused_since is None:
            self._refused_since = now
        elif now - self._refused_since > self.limits.max_wait:
            told = f"{self.provider.where} has refused every request for {now - self._refused_since:.0f} s"
            raise TryAgainError(f"{told}; run the same command again later, or raise --max_wait ({failure.reason})")

    async def _back_off(self, request: Request, failure: FailedAttempt, tries: int) -> None:
        wait = seconds_before_retry(self.limits, request, failure, tries)
        if wait > self.limits.max_wait:
            asked = f"{self.provider.where} asks to wait {failure.wait:.0f} s"
            raise TryAgainError(f"{asked}; run the same command again then, or raise --max_wait ({failure.reason})")
        await self._pause(wait)

    async def _fail(self, request: Request, failure: FailedAttempt) -> None:
        if failure.unreachable:
            raise UserError(f"{failure.reason}: does the server run, and is --base_url right?")
        state = "failed"
        if failure.refused:
            state = "refused"
        await self._do(steps.settle, request.key, state, failure.reason, failure.reply)
        self._count(state)
        if self._failed_in_a_row >= FAILURES:
            raise UserError(f"the last {FAILURES} requests all failed; the last one: {failure.reason}")

    def _count(self, state: str) -> None:
        self.counts[state] += 1
        self.counts["settled"] += 1
        self._refused_since = None
        self._failed_in_a_row += 1
        if state != "failed":
            self._failed_in_a_row = 0
        numbers = {"per_minute": round(60 * self.counts["settled"] / (time.monotonic() - self._began))}
        if self.usd:
            numbers["usd"] = self.usd
        self._advance(1, **numbers)
