"""The pump: planned requests go out, answers come in, and each is durable before anything else is done with it."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter, deque
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from utils.asking.limits import Limits, Pace
from utils.asking.writer import Writer
from utils.errors import UserError
from utils.ledger import Ledger, processes, steps
from utils.ledger.parsing import read_answer
from utils.parsing import Parser
from utils.providers import Provider, Reply, Request, Send, Trouble
from utils.reporting import progress, say

GRACE = 5.0  # seconds that requests in flight get after Ctrl-C
POLL = 0.3  # seconds between looks at what another process does
LONGEST_BACKOFF = 60.0  # seconds
LONGEST_WAIT = 600.0  # seconds: a server that asks for more means another day
FAILURES = 50  # requests that failed one after another: the next thousands would, too
RAMP = 0.002  # seconds between the first requests: a burst would come back as a burst, and wait for this process
FIRST_TRIES = 2  # retries while nobody listens at the address and nothing has been answered


class Pump:
    """One run of asking."""

    def __init__(self, ledger: Ledger, provider: Provider, limits: Limits, parsers: Mapping[str, Parser]) -> None:
        self.ledger, self.provider, self.limits, self.parsers = ledger, provider, limits, parsers
        self.counts, self.usd, self.stopped = Counter(), 0.0, None
        self._claimed: deque[Request] = deque()
        self._error: UserError | None = None
        self._in_flight = self._failed_in_a_row = 0
        self._loop, self._interrupted = None, False

    async def run(self, total: int, sent: int) -> None:
        """Settle the queue of `total` requests. `sent` were sent before on behalf of the same command."""
        self._stop, self._hurry = asyncio.Event(), asyncio.Event()
        self._loop = asyncio.get_running_loop()
        if self._interrupted:
            return
        self._taking, self._landed, self._sent = asyncio.Lock(), asyncio.Event(), sent
        self._pace, self._began = Pace(self.limits, self._pause), time.monotonic()
        with progress(f"asking {self.provider.name}", total) as self._advance:
            async with Writer(self.ledger) as self._writer, self.provider.connect(self.limits.timeout) as send:
                beat = asyncio.create_task(self._beat())
                workers = min(self.limits.concurrency, total)
                workers = [asyncio.create_task(self._work(send, number * RAMP)) for number in range(workers)]
                try:
                    await self._finish(workers)
                finally:
                    beat.cancel()
                    with suppress(UserError):  # the file cannot be written: that was said, or is about to be
                        await self._do(steps.free, [self.ledger.process])
        if self._error is not None:
            raise self._error

    # ---- stopping

    def interrupt(self) -> None:
        """From another thread: send nothing more, and give what is in flight GRACE seconds."""
        self._interrupted = True
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._hurry.set)
            self._loop.call_soon_threadsafe(self._stop.set)

    def _end(self, reason: str) -> None:
        self.stopped = self.stopped or reason
        self._stop.set()

    async def _finish(self, workers: list[asyncio.Task]) -> None:
        """Until every worker is done, or the time of grace is over."""
        done = asyncio.create_task(asyncio.wait(workers, return_when=asyncio.FIRST_EXCEPTION))
        hurry = asyncio.create_task(self._hurry.wait())
        await asyncio.wait({done, hurry}, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.wait({done}, timeout=GRACE)
        for task in (done, hurry, *workers):
            task.cancel()
        for outcome in await asyncio.gather(*workers, return_exceptions=True):
            if isinstance(outcome, Exception):
                raise outcome

    async def _pause(self, seconds: float) -> bool:
        """Sleep, but not past the end of everything. True: everything stops."""
        if seconds > 0 and not self._stop.is_set():
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._stop.wait(), seconds)
        return self._stop.is_set()

    # ---- taking requests

    async def _do(self, step: Any, *values: Any) -> Any:
        return await self._writer.do(lambda db: step(db, *values))

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(processes.BEAT)
            await self._do(processes.beat, self.ledger.process)

    async def _work(self, send: Send, delay: float) -> None:
        await self._pause(delay)
        try:
            while (request := await self._take()) is not None:
                await self._settle(request, send)
        except UserError as error:  # concerns everybody: the others end what they have in flight
            self._error = self._error or error
            self._end("an error")

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
        price, most = self.limits.price_of(request.model, self.provider), request.most_output_tokens
        most_usd = None if price is None or most is None else price.of(request.most_input_tokens, most)
        if self.limits.max_usd is not None and most_usd is None:
            raise UserError("--max_usd needs --max_tokens: a reply without a limit may cost anything")
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

    async def _attempt(self, request: Request, attempt: int, send: Send) -> Trouble | None:
        """Send once, and store what comes. Returns what went wrong."""
        price = self.limits.price_of(request.model, self.provider)
        try:
            reply = await send(request)
        except Trouble as trouble:
            self._add(await self._do(
                steps.end, attempt, request.key, trouble.reason, trouble.reply, price, not trouble.billed
            ))  # fmt: skip
            return trouble
        except UserError:
            await self._do(steps.end, attempt, request.key, "rejected by the server", None, price, True)
            raise
        else:
            usd, asked = await self._do(steps.store, attempt, request.key, reply, price)
        finally:
            self._in_flight -= 1
            self._landed.set()
            self._landed = asyncio.Event()
        self._add(usd)
        self._pace.correct(request, reply)
        self._count("refused" if reply.refused else "answered")
        self._parse(request, reply, asked)
        return None

    def _parse(self, request: Request, reply: Reply, asked: list[tuple[str, str]]) -> None:
        """The answer is safe: reading it may fail, or be cut short by a kill, and costs nothing to do again."""
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
        """Exponential, with jitter that the request's key seeds; or what the server asked for, and a little more."""
        jitter = random.Random(f"{request.key} {tries}").uniform(0.5, 1.0)
        wait = jitter * min(LONGEST_BACKOFF, self.limits.backoff * 2.0 ** min(max(tries - 1, 0), 30))
        if trouble.wait is not None:
            if trouble.wait > LONGEST_WAIT:
                at = f"{self.provider.where} asks to come back in {trouble.wait:.0f} s"
                raise UserError(f"{at}; the same command continues then ({trouble.reason})")
            wait = trouble.wait * (1 + 0.1 * jitter)
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

    def _add(self, usd: float | None) -> None:
        self.usd += usd or 0.0

    def _count(self, state: str) -> None:
        self.counts[state] += 1
        self.counts["settled"] += 1
        self._failed_in_a_row = self._failed_in_a_row + 1 if state == "failed" else 0
        numbers = {"per_minute": round(60 * self.counts["settled"] / (time.monotonic() - self._began))}
        if self.usd:
            numbers["usd"] = self.usd
        self._advance(1, **numbers)
