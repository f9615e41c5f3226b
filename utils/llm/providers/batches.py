"""OpenAI's batch API: a file of requests goes up, a file of answers comes down within a day."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from utils.llm.providers.base import Reply, Request, Trouble

ENDPOINT = "/v1/chat/completions"
TAG = "plumbline"  # of the metadata: by it a batch is found again whose number was never learned
ENDED = ("completed", "expired", "cancelled", "failed", "gone")
CLOCKS = 3600.0  # seconds that the server's clock may differ from ours


@dataclass(frozen=True)
class Batch:
    state: str  # of the API's; "gone" where the server knows no such batch
    files: tuple[str, ...] = ()  # answers, errors
    told: str = ""  # why it failed


class Batches:
    """A session. `provider` reads answers and errors; every method raises Trouble or UserError."""

    def __init__(self, client: Any, provider: Any, timeout: float, not_found: type[Exception]) -> None:
        self._client, self._provider, self._timeout = client, provider, timeout
        self._not_found = not_found

    async def submit(self, nonce: str, requests: list[Request]) -> str:
        """The batch's number. A request's key is its custom_id."""
        lines = (
            json.dumps({"custom_id": request.key, "method": "POST", "url": ENDPOINT, "body": request.body})
            for request in requests
        )
        content = ("requests.jsonl", "\n".join(lines).encode())
        file = await self._call(self._client.files.create(file=content, purpose="batch"))
        window = {"endpoint": ENDPOINT, "completion_window": "24h", "metadata": {TAG: nonce}}
        return (await self._call(self._client.batches.create(input_file_id=file.id, **window))).id

    async def find(self, nonce: str, since: float) -> str | None:
        """The batch of that nonce, made after `since` (seconds of the epoch)."""
        after = {}
        while True:
            page = await self._call(self._client.batches.list(limit=100, **after))
            for batch in page.data:
                if (batch.metadata or {}).get(TAG) == nonce:
                    return batch.id
            if not page.data or not page.has_more or page.data[-1].created_at < since - CLOCKS:
                return None
            after = {"after": page.data[-1].id}

    async def look(self, number: str) -> Batch:
        found = await self._call(self._known(number))
        if found is None:
            return Batch("gone", told="the server does not know it")
        files = tuple(file for file in (found.output_file_id, found.error_file_id) if file)
        errors = (found.errors.data if found.errors else None) or []
        return Batch(found.status, files, "; ".join(f"line {e.line}: {e.message}" for e in errors[:3]))

    async def _known(self, number: str) -> Any:
        try:
            return await self._client.batches.retrieve(number)
        except self._not_found:
            return None

    async def outcomes(self, file: str) -> Iterator[tuple[str, Reply | Exception]]:
        """(key, what came of the request) of a file's lines."""
        text = (await self._call(self._client.files.content(file))).text
        return (self._outcome(json.loads(line)) for line in text.split("\n") if line.strip())

    def _outcome(self, row: dict[str, Any]) -> tuple[str, Reply | Exception]:
        response, error = row.get("response"), row.get("error") or {}
        if not response:
            told = error.get("message") or error.get("code") or "no answer"
            return row["custom_id"], Trouble(f"batch: {told}", again=True)
        body = json.dumps(response["body"], ensure_ascii=False)
        if response["status_code"] != 200:
            return row["custom_id"], self._provider.status(response["status_code"], body, {})
        try:
            return row["custom_id"], self._provider.reply(body, response.get("request_id"))
        except Trouble as trouble:
            return row["custom_id"], trouble

    async def _call(self, made: Any) -> Any:
        return await self._provider.call(made, self._timeout)
