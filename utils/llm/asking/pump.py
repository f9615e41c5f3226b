"""The pump: planned requests go out, answers come in, and each is durable before anything else is done with it."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from contextlib import suppress
from typing import Any

from utils.errors import UserError
from utils.llm.asking.limits import seconds_before_retry
from utils.llm.asking.run import Run
from utils.llm.ledger import steps
from utils.llm.ledger.parsing import read_answer
from utils.llm.providers import Reply, Request, Send, Trouble
from utils.reporting import say

POLL = 0.3  # seconds between looks at what another process does
LONGEST_WAIT = 600.0  # seconds: a server that asks for more means another day
FAILURES = 50  # requests that failed one after another: the next thousands would, too
RAMP = 0.002  # seconds between the first requests: a burst would come back as a burst, and wait for this process
FIRST_TRIES = 2  # retries while nobody listens at the address and nothing has been answered


class Pump(Run):
    """Requests one by one, many at once."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self._claimed: deque[Request] = deque()
        self._in_flight = self._failed_in_a_row = 0

    def _connect(self) -> Any:
        return self.provider.connect(self.limits.timeout)

    def _start(self, session: Send, total: int) -> list[asyncio.Task]:
        self._taking, self._landed = asyncio.Lock(), asyncio.Event()
        workers = range(min(self.limits.concurrency, total))
        return [asyncio.create_task(self._work(session, number * RAMP)) for number in workers]

    # ---- taking requests

    async def _work(self, send: Send, delay: float) -> None:
        await self._pause(delay)
        try:
            while (request := await self._take()) is not None:
                await self._settle(request, send)
        except UserError as error:
            self._give_up(error)

    async def _take(self) -> Request | None:
        """The next request; None: there is none left, or everything stops."""
        async with self._taking:
            while not self._claimed and not self._stop.is_set():
                self._claimed += await self._do(steps.claim, self.ledger.process, self.limits.concurrency)
                if not self._claimed and not await self._others():
                    return None
            return None if self._stop.is_set() else self._claimed.popleft()

    async def _others(self) -> bool:
        """Wait for what another process asks; what it leaves when it dies is free again. False: nothing is left."""
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
        """As many attempts as it takes; when everything stops, the request stays planned."""
        tries = 0
        while True:
            await self._pace.admit(request)
            attempt = await self._mark_sent(request)
            if attempt is None:
                return
            answered = self.counts["answered"]
            trouble = await self._attempt(request, attempt, send)
            if trouble is None:
                return
            if not (trouble.busy and self.counts["answered"] > answered):  # a busy server is no fault of the request
                tries += 1
            if not trouble.again or tries > self._most_tries(trouble):
                return await self._fail(request, trouble)
            self.counts["retries"] += 1
            await self._back_off(request, trouble, tries)

    async def _mark_sent(self, request: Request) -> int | None:
        """The attempt's number; None: everything stops, perhaps because a limit is reached."""
        most_usd = self._most_usd(request)
        while not self._stop.is_set():
            if self.limits.max_requests is not None and self._sent >= self.limits.max_requests:
                self._end("--max_requests")
                break
            self._sent, landed = self._sent + 1, self._landed
            attempt = await self._do(steps.send, self.ledger.process, request.key, most_usd, self.limits.max_usd)
            if attempt is not None:
                self._in_flight += 1
                return attempt
            self._sent -= 1
            if not self._in_flight:
                self._end("--max_usd")
            else:  # what is in flight counts at its worst, and will cost less
                await landed.wait()
        return None

    def _most_usd(self, request: Request) -> float | None:
        """What it can cost. Raises UserError where --max_usd has to know."""
        price, most = self.limits.price_of(request.model, self.provider), request.most_output_tokens
        if self.limits.max_usd is not None and most is None:
            raise UserError("--max_usd needs --max_tokens: a reply without a limit may cost anything")
        return None if price is None or most is None else price.of(request.most_input_tokens, most)

    async def _attempt(self, request: Request, attempt: int, send: Send) -> Trouble | None:
        """Send once, and store what comes. Returns what went wrong."""
        try:
            reply = await send(request)
            await self._store(request, attempt, reply)
            self._pace.correct(request, reply)
        except Trouble as trouble:
            await self._note(request, attempt, trouble)
            return trouble
        except UserError:
            with suppress(UserError):  # where the ledger is what fails
                await self._note(request, attempt, Trouble("rejected by the server", again=False))
            raise
        finally:
            self._in_flight -= 1
            self._landed.set()
            self._landed = asyncio.Event()
        return None

    async def _note(self, request: Request, attempt: int, trouble: Trouble) -> None:
        price = self.limits.price_of(request.model, self.provider)
        how = (attempt, request.key, trouble.reason, trouble.reply, price, not trouble.billed)
        self.usd += await self._do(steps.end, *how) or 0.0

    async def _store(self, request: Request, attempt: int, reply: Reply) -> None:
        """The answer is safe before it is read: reading may fail, or be cut short, and costs nothing to do again."""
        price = self.limits.price_of(request.model, self.provider)
        usd, asked = await self._do(steps.store, attempt, request.key, reply, price)
        self.usd += usd or 0.0
        self._count("refused" if reply.refused else "answered")
        self._parse(request, reply, asked)

    def _parse(self, request: Request, reply: Reply, asked: list[tuple[str, str]]) -> None:
        for parser, args in asked:
            if parser in self.parsers:
                found = read_answer(self.parsers, reply.text or "", parser, args)
                self.counts["unparsed"] += found[2] is not None
                self._writer.post(lambda db, found=found, asked=(parser, args): steps.parsed(
                    db, request.key, *asked, *found
                ))  # fmt: skip

    def _most_tries(self, trouble: Trouble) -> int:
        first = trouble.unreachable and not self.counts["answered"]
        return min(self.limits.max_retries, FIRST_TRIES) if first else self.limits.max_retries

    async def _back_off(self, request: Request, trouble: Trouble, tries: int) -> None:
        wait = seconds_before_retry(self.limits, request, trouble, tries)
        if wait > LONGEST_WAIT:
            at = f"{self.provider.where} asks to come back in {trouble.wait:.0f} s"
            raise UserError(f"{at}; the same command continues then ({trouble.reason})")
        if trouble.busy:
            self._pace.hold(wait)
        await self._pause(wait)

    async def _fail(self, request: Request, trouble: Trouble) -> None:
        if trouble.unreachable:
            raise UserError(f"{trouble.reason}: does the server run, and is --base_url right?")
        state = "refused" if trouble.refused else "failed"
        await self._do(steps.settle, request.key, state, trouble.reason, trouble.reply)
        self._count(state)
        if self._failed_in_a_row >= FAILURES:
            raise UserError(f"the last {FAILURES} requests all failed; the last one: {trouble.reason}")

    def _count(self, state: str) -> None:
        self.counts[state] += 1
        self.counts["settled"] += 1
        self._failed_in_a_row = self._failed_in_a_row + 1 if state == "failed" else 0
        numbers = {"per_minute": round(60 * self.counts["settled"] / (time.monotonic() - self._began))}
        if self.usd:
            numbers["usd"] = self.usd
        self._advance(1, **numbers)
