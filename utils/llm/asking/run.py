"""The start and the end of a run of asking.

A limit, an error that concerns every request, and Ctrl-C end it early. Then nothing more is sent, what is in flight is
awaited and stored, and the rest stays planned.
"""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from utils.errors import UserError
from utils.llm.asking.limits import Pace, RateLimits
from utils.llm.asking.writer import Writer
from utils.llm.ledger import Ledger, steps
from utils.llm.providers import Provider
from utils.parsing import Parser
from utils.reporting import progress

# Seconds that requests in flight get after Ctrl-C: their answers are paid for, but a person waits.
GRACE = 5.0


class AskingRun(ABC):
    """What the tasks of a run share: the ledger's writer, the pace, the counts.

    Args:
        ledger: where requests are taken from and replies are stored.
        provider: the source of answers.
        limits: what the user allows.
        parsers: the parsers of answers, by name.
    """

    def __init__(self, ledger: Ledger, provider: Provider, limits: RateLimits, parsers: Mapping[str, Parser]) -> None:
        self.ledger, self.provider, self.limits, self.parsers = ledger, provider, limits, parsers
        self.counts, self.usd, self.stopped = Counter(), 0.0, None
        self._error: UserError | None = None
        self._loop, self._interrupted = None, False

    @abstractmethod
    def _connect(self) -> Any:
        """Return a session with the provider, as an asynchronous context manager."""

    @abstractmethod
    def _start(self, session: Any, total: int) -> list[asyncio.Task]:
        """Start the tasks that settle `total` requests."""

    async def run(self, total: int, sent: int) -> None:
        """Settle the queue of `total` requests. `sent` were sent before on behalf of the same command."""
        self._stop, self._hurry, self._sent = asyncio.Event(), asyncio.Event(), sent
        self._pace, self._began = Pace(self.limits, self._stop), time.monotonic()
        self._loop = asyncio.get_running_loop()
        if self._interrupted:
            return
        with progress(f"asking {self.provider.name}", total) as self._advance:
            async with Writer(self.ledger) as self._writer, self._connect() as session:
                try:
                    await self._finish(self._start(session, total))
                finally:
                    # A ledger that cannot be written has been reported, or is about to be by the same error.
                    with suppress(UserError):
                        await self._do(steps.free, [self.ledger.process])
        if self._error is not None:
            raise self._error

    def interrupt(self) -> None:
        """Send nothing more, and give what is in flight GRACE seconds. May be called from another thread."""
        self._interrupted = True
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._hurry.set)
            self._loop.call_soon_threadsafe(self._halt)

    def _end(self, reason: str) -> None:
        self.stopped = self.stopped or reason
        self._halt()

    def _halt(self) -> None:
        self._stop.set()
        self._pace.wake()

    async def _finish(self, workers: list[asyncio.Task]) -> None:
        """Wait until every worker is done, or GRACE seconds after an interrupt."""
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
        """Sleep, but not past the end of the run. Returns whether the run stops."""
        if seconds > 0 and not self._stop.is_set():
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._stop.wait(), seconds)
        return self._stop.is_set()

    def _give_up(self, error: UserError) -> None:
        """End the run for an error that concerns every request: the other workers finish what they have in flight."""
        self._error = self._error or error
        self._end("an error")

    async def _do(self, step: Any, *values: Any, **named: Any) -> Any:
        """Run a step of the ledger, which is durable when this returns."""
        return await self._writer.do(lambda db: step(db, *values, **named))
