"""Group commit: the writes of many coroutines within a few milliseconds become one durable transaction."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any

from utils.llm.ledger import Ledger

# Seconds: short beside a request (hundreds of milliseconds), long enough to collect the answers of many workers. One
# fsync a request would bound the whole run by the disk.
GROUP = 0.002


class Writer:
    """The one thread that writes the ledger, shared by all coroutines of a run."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._waiting: list[tuple[Callable[[Any], Any], asyncio.Future]] = []
        self._some, self._thread = asyncio.Event(), ThreadPoolExecutor(1, "ledger")

    async def __aenter__(self) -> Writer:
        self._task = asyncio.create_task(self._write())
        return self

    async def __aexit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if error is None:
                # Statements run in their order: this empty one returns after all that were posted.
                await self.do(lambda db: None)
        finally:
            self._task.cancel()
            self._thread.shutdown()

    async def do(self, statement: Callable[[Any], Any]) -> Any:
        """Run a function of the connection; return its result when what it did is durable."""
        return await asyncio.shield(self.post(statement))

    def post(self, statement: Callable[[Any], Any]) -> asyncio.Future:
        """Do the same without waiting, for writes that can be repeated."""
        future = asyncio.get_running_loop().create_future()
        # asyncio warns of exceptions that are never read, and nobody has to read this one.
        future.add_done_callback(lambda done: done.exception())
        self._waiting.append((statement, future))
        self._some.set()
        return future

    async def _write(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._some.wait()
            await asyncio.sleep(GROUP)
            self._some.clear()
            group, self._waiting = self._waiting, []
            commit = loop.run_in_executor(self._thread, self._ledger.do, [statement for statement, _ in group])
            await asyncio.wait({commit})
            error = commit.exception()
            for number, (_, future) in enumerate(group):
                if error is None:
                    future.set_result(commit.result()[number])
                else:
                    future.set_exception(error)
