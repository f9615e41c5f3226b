"""Saved answers in place of a server: the same questions, answered from a file, at no cost.

JSON Lines: {"messages": [...], "text": "..."}, and if known "model", "finish_reason", "refused", "input_tokens" and
"output_tokens". The n-th line of the same messages is the n-th sample; the last serves all further ones.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from utils.errors import UserError
from utils.llm.providers.base import FailedAttempt, Reply, Request, Send, canonical
from utils.llm.providers.http import count
from utils.llm.providers.prices import Price
from utils.records.lines import read_jsonl

FIELDS = {"messages", "text", "model", "finish_reason", "refused", "input_tokens", "output_tokens"}


class Replay:
    """A provider that answers from a file. Raises UserError for a line of another shape."""

    name = "replay"

    def __init__(self, path: str | Path) -> None:
        self.where = str(path)
        self._saved: dict[tuple[str | None, str], list[Reply]] = {}
        for row, where in read_jsonl(Path(path)):
            self._add(row, where)

    def _add(self, row: Any, where: str) -> None:
        if not isinstance(row, dict) or not isinstance(row.get("messages"), list) or "text" not in row:
            raise UserError(f"{where}: expected an object with messages (a list) and text, as saved answers have")
        unknown = sorted(row.keys() - FIELDS)
        if unknown:
            raise UserError(f"{where}: unknown field {unknown[0]!r}; known: {', '.join(sorted(FIELDS))}")
        if not isinstance(row["text"], str):
            raise UserError(f"{where}: field 'text' is {str(row['text'])[:60]!r}; expected text")
        reply = Reply(
            text=row["text"],
            finish_reason=row.get("finish_reason", "stop"),
            refused=row.get("refused") is True,
            input_tokens=count(row.get("input_tokens")),
            output_tokens=count(row.get("output_tokens")),
            raw=json.dumps(row),
        )
        self._saved.setdefault((row.get("model"), canonical(row["messages"])), []).append(reply)

    def price(self, model: str) -> Price | None:
        """Return the price of a saved answer: nothing."""
        return Price(0.0, 0.0)

    def longest_reply(self, model: str) -> int | None:
        """Return nothing: saved answers have any length."""

    def thinks(self, request: Request) -> bool:
        """Return False."""
        return False

    @asynccontextmanager
    async def connect(self, timeout: float) -> AsyncIterator[Send]:
        """Open a session, which needs no connection."""
        yield self._send

    async def _send(self, request: Request) -> Reply:
        messages = canonical(request.body["messages"])
        found = self._saved.get((request.model, messages)) or self._saved.get((None, messages))
        if not found:
            raise FailedAttempt(f"{self.where} has no answer to these messages", again=False)
        # A file with fewer samples than are wanted repeats its last one.
        return found[min(request.sample, len(found) - 1)]
