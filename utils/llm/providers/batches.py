"""OpenAI's batch API: a file of requests goes up, a file of answers comes down within a day."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from utils.errors import UserError
from utils.llm.providers.base import FailedAttempt, Reply, Request

ENDPOINT = "/v1/chat/completions"
# The field of a batch's metadata by which it is found again when a kill came before its number was learned.
TAG = "plumbline"
ENDED = ("completed", "expired", "cancelled", "failed", "gone")
# Seconds that the server's clock may differ from this machine's.
CLOCKS = 3600.0


@dataclass(frozen=True)
class BatchStatus:
    """The state of a batch, in the API's words, or "gone" where the server knows no such batch."""

    state: str
    files: tuple[str, ...] = ()  # answers, errors
    reason: str = ""  # why it failed


class BatchSession:
    """A connection to the batch API, whose every method raises FailedAttempt or UserError.

    Args:
        client: the official asynchronous client.
        provider: an HttpProvider, which reads answers and errors.
        timeout: seconds that one call may take.
        not_found: the client's exception for a batch that the server does not know.
    """

    def __init__(self, client: Any, provider: Any, timeout: float, not_found: type[Exception]) -> None:
        self._client, self._provider, self._timeout = client, provider, timeout
        self._not_found = not_found

    async def submit(self, nonce: str, requests: list[Request]) -> str:
        """Send a batch and return its number. A request's key is its custom_id."""
        lines = []
        for request in requests:
            row = {"custom_id": request.key, "method": "POST", "url": ENDPOINT, "body": request.body}
            lines.append(json.dumps(row))
        content = ("requests.jsonl", "\n".join(lines).encode())
        file = await self._call(self._client.files.create(file=content, purpose="batch"))
        window = {"endpoint": ENDPOINT, "completion_window": "24h", "metadata": {TAG: nonce}}
        return (await self._call(self._client.batches.create(input_file_id=file.id, **window))).id

    async def find(self, nonce: str, since: float) -> str | None:
        """Return the number of the batch of that nonce, made after `since` (seconds of the epoch), or None."""
        after = {}
        while True:
            page = await self._call(self._client.batches.list(limit=100, **after))
            for batch in page.data:
                if (batch.metadata or {}).get(TAG) == nonce:
                    return batch.id
            if not page.data or not page.has_more or page.data[-1].created_at < since - CLOCKS:
                return None
            after = {"after": page.data[-1].id}

    async def look(self, number: str) -> BatchStatus:
        """Return how far the batch is."""
        found = await self._call(self._known(number))
        if found is None:
            return BatchStatus("gone", reason="the server does not know it")
        files = tuple(file for file in (found.output_file_id, found.error_file_id) if file)
        errors = []
        if found.errors:
            errors = found.errors.data or []
        return BatchStatus(found.status, files, "; ".join(f"line {e.line}: {e.message}" for e in errors[:3]))

    async def _known(self, number: str) -> Any:
        try:
            return await self._client.batches.retrieve(number)
        except self._not_found:
            return None

    async def outcomes(self, file: str) -> Iterator[tuple[str, Reply | Exception]]:
        """Return (key, reply or failure) for each line of a file."""
        text = (await self._call(self._client.files.content(file))).text
        return (self._outcome(json.loads(line)) for line in text.split("\n") if line.strip())

    def _outcome(self, row: dict[str, Any]) -> tuple[str, Reply | Exception]:
        response, error = row.get("response"), row.get("error") or {}
        if not response:
            reason = error.get("message") or error.get("code") or "no answer"
            return row["custom_id"], FailedAttempt(f"batch: {reason}", again=True)
        body = json.dumps(response["body"], ensure_ascii=False)
        if response["status_code"] != 200:
            return row["custom_id"], self._provider.status(response["status_code"], body, {})
        try:
            return row["custom_id"], self._provider.reply(body, response.get("request_id"))
        except (FailedAttempt, UserError) as failure:
            return row["custom_id"], failure

    async def _call(self, made: Any) -> Any:
        return await self._provider.call(made, self._timeout)
