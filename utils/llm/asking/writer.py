"""Group commit: what many coroutines want to write within a few milliseconds is one durable transaction."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any

from utils.llm.ledger import Ledger

GROUP = 0.002  # seconds: short beside a request, long beside what arrives meanwhile


class Writer:
    """`await writer.do(statement)` returns when what the statement did is durable."""

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
                await self.do(lambda db: None)  # what was posted is written before
        finally:
            self._task.cancel()
            self._thread.shutdown()

    async def do(self, statement: Callable[[Any], Any]) -> Any:
        return await asyncio.shield(self.post(statement))

    def post(self, statement: Callable[[Any], Any]) -> asyncio.Future:
        """The same without waiting; for what can be done again."""
        future = asyncio.get_running_loop().create_future()
        future.add_done_callback(lambda done: done.exception())  # nobody has to look at it
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
