"""Send requests in a few large batches through a batch API, and fetch their answers when they are ready.

The batch's nonce is in the ledger before the batch is sent and in its metadata: after a kill it is found again by
listing, and nothing is sent twice.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable
from itertools import islice
from typing import Any

from utils.errors import UserError
from utils.llm.asking.sender import Sender
from utils.llm.ledger import batches, steps
from utils.llm.providers import FailedAttempt, Reply, Request
from utils.llm.providers.batches import ENDED, BatchSession
from utils.reporting import say

# Requests of a batch: the API takes 50,000, but no more than 200 MB, which long prompts would exceed.
SIZE = 5000
AT_ONCE = 200  # answers that are stored together
# Seconds between looks at the batches: tests answer at once, the real API within a day.
FIRST_LOOK, LONGEST_LOOK = 0.5, 60.0


class BatchSender(Sender):
    """A run that sends batches, with the limits and outcomes of one that asks request by request."""

    def _connect(self) -> Any:
        return self.provider.connect_batches(self.limits.timeout)

    def _start(self, session: BatchSession, total: int) -> list[asyncio.Task]:
        self._tries: Counter = Counter()
        self._total, self._submitted = total, 0
        return [asyncio.create_task(self._drive(session))]

    async def _drive(self, server: BatchSession) -> None:
        try:
            while not self._stop.is_set():
                limit = await self._submit(server)
                running = await self._do(batches.take, self.ledger.process)
                if running:
                    await self._wait_for(server, running)
                elif limit:
                    self._end(limit)
                elif not await self._others():
                    return
        except UserError as error:
            self._give_up(error)

    async def _submit(self, server: BatchSession) -> str | None:
        """Send what is in the queue. Returns the limit that keeps some of it there, or None."""
        while not self._stop.is_set():
            room = SIZE
            if self.limits.max_requests is not None:
                room = min(SIZE, self.limits.max_requests - self._sent)
            if room <= 0:
                return "--max_requests"
            claimed = {r.key: r for r in await self._do(steps.claim, self.ledger.process, room)}
            if not claimed:
                return None
            most_usd = {key: self._most_usd(request) for key, request in claimed.items()}
            nonce = secrets.token_hex(8)
            fit = await self._do(
                batches.begin, self.ledger.process, nonce, most_usd=most_usd, max_usd=self.limits.max_usd
            )
            if fit:
                await self._send(server, nonce, [claimed[key] for key in claimed if key in fit])
                continue
            await self._do(batches.end, nonce)
            if self.limits.max_usd is not None:
                return "--max_usd"
        return None

    async def _send(self, server: BatchSession, nonce: str, requests: list[Request]) -> None:
        self._sent += len(requests)
        try:
            number = await server.submit(nonce, requests)
        except (FailedAttempt, UserError) as error:
            if isinstance(error, UserError) or not error.again:
                await self._drop(nonce, FailedAttempt("the batch was rejected", again=True))
                raise UserError(f"{self.provider.where} takes no batch: {error}") from None
            # Whether it arrived is found out by listing the batches, now or by the next run.
            return
        await self._do(batches.submitted, nonce, number)
        self._submitted += len(requests)
        say(f"batch {number}: {len(requests):,} requests; {self._submitted:,} of {self._total:,} are sent")

    async def _wait_for(self, server: BatchSession, running: list[tuple[str, str | None, float]]) -> None:
        """Look at each batch until one has ended."""
        wait, ended = FIRST_LOOK, False
        while not ended and not self._stop.is_set():
            for nonce, number, began in running:
                ended |= await self._look(server, nonce, number, began)
            if not ended:
                await self._pause(wait)
                wait = min(LONGEST_LOOK, 1.5 * wait)

    async def _look(self, server: BatchSession, nonce: str, number: str | None, began: float) -> bool:
        """Fetch a batch's answers, if it has ended."""
        if number is None:
            number = await self._patiently(lambda: server.find(nonce, began))
            if number is None:
                await self._drop(nonce, FailedAttempt("the batch was never sent", again=True, billed=True))
                return True
            await self._do(batches.submitted, nonce, number)
        batch = await self._patiently(lambda: server.look(number))
        if batch.state not in ENDED:
            return False
        members = await self._do(batches.members, nonce)
        for file in batch.files:
            outcomes = iter(await self._patiently(lambda file=file: server.outcomes(file)))
            while some := list(islice(outcomes, AT_ONCE)):
                settling = []
                for key, outcome in some:
                    # A key that is no member was settled by another process, or comes twice.
                    if key in members:
                        request, attempt = members.pop(key)
                        settling.append(self._settle_one(request, attempt, outcome))
                await asyncio.gather(*settling)
        await self._drop(
            nonce, FailedAttempt(f"the batch ended as {batch.state}", again=True, billed=batch.state == "gone")
        )
        if batch.state == "failed":
            raise UserError(f"batch {number} failed: {batch.reason or 'the server does not say why'}")
        return True

    async def _settle_one(self, request: Request, attempt: int, outcome: Reply | Exception) -> None:
        """Store a reply; count a failure, and put its request back into the queue if it may be tried again."""
        if isinstance(outcome, Reply):
            return await self._store(request, attempt, outcome)
        if isinstance(outcome, UserError):
            await self._note(request, attempt, FailedAttempt("rejected by the server", again=False))
            raise outcome
        await self._note(request, attempt, outcome)
        self._tries[request.key] += 1
        if not outcome.again or self._tries[request.key] > self.limits.max_retries:
            return await self._fail(request, outcome)
        self.counts["retries"] += 1
        await self._do(batches.requeue, request.key)

    async def _drop(self, nonce: str, failure: FailedAttempt) -> None:
        """End a batch: the requests that it has not answered are tried again."""
        members = (await self._do(batches.members, nonce)).values()
        await asyncio.gather(*(self._settle_one(request, attempt, failure) for request, attempt in members))
        await self._do(batches.end, nonce)

    async def _patiently(self, call: Callable[[], Awaitable[Any]]) -> Any:
        """Await a call about batches, again after a failure that may pass."""
        # Such a call costs nothing, so that it can be repeated.
        tries = 0
        while True:
            try:
                answer = await call()
                self._refused_since = None
                return answer
            except FailedAttempt as failure:
                tries += 1
                self._expect_answers(failure)
                if not failure.again or (tries > self._most_tries(failure) and not failure.busy):
                    told = f"{self.provider.where}: {failure.reason}"
                    raise UserError(f"{told}; run the same command again to continue") from None
                await self._back_off(Request("openai", {}), failure, tries)
