"""Requests, replies and failed attempts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

from utils.llm.providers.prices import Price


@dataclass(frozen=True)
class Request:
    """One request as it will be sent: `body` is the provider's own JSON. `sample` tells the wanted samples of one body
    apart. Requests with one key are one request, whatever row or server they are for."""

    provider: str  # openai | anthropic | replay
    body: dict[str, Any]
    sample: int = 0

    @cached_property
    def body_text(self) -> str:
        """The body as JSON text that is the same for equal bodies."""
        return canonical(self.body)

    @cached_property
    def key(self) -> str:
        """The SHA-256 by which the ledger knows the request."""
        # The canonical text of [provider, body, sample].
        return hashlib.sha256(f"[{canonical(self.provider)},{self.body_text},{self.sample}]".encode()).hexdigest()

    @property
    def model(self) -> str:
        """The name of the model that is asked."""
        return self.body["model"]

    @cached_property
    def most_input_tokens(self) -> int:
        """An upper bound of the prompt's tokens."""
        # A token has at least one byte, and the body holds more than the words.
        return len(self.body_text.encode())

    @property
    def most_output_tokens(self) -> int | None:
        """The most tokens that the reply can have, or None where the request sets no limit."""
        limit = self.body.get("max_completion_tokens") or self.body.get("max_tokens")
        if not limit:
            return None
        return limit * (self.body.get("n") or 1)


@dataclass(frozen=True, kw_only=True)
class Reply:
    """One answer of a server.

    Args:
        text: the words of the answer, or None where there are none.
        finish_reason: why it ended, in OpenAI's words: stop, length, content_filter, …
        refused: whether the model or a filter declined.
        input_tokens: tokens of the prompt; None where the server does not count them.
        output_tokens: tokens of the answer; None where the server does not count them.
        request_id: the server's name for the request.
        raw: the body as received; None where nothing came.
    """

    text: str | None = None
    finish_reason: str | None = None
    refused: bool = False
    input_tokens: int | None = None
    output_tokens: int | None = None
    request_id: str | None = None
    raw: str | None = None

    def __post_init__(self) -> None:
        if self.text is not None:
            object.__setattr__(self, "text", sendable(self.text))


@dataclass(eq=False, repr=False)
class FailedAttempt(Exception):  # noqa: N818 - how one attempt ended, not a fault of the program
    """An attempt that got no answer.

    Args:
        reason: why, in a few words.
        again: whether another attempt may get an answer.
        wait: seconds to wait before it, where the server asked for them.
        billed: whether the attempt may have cost money.
        busy: whether the server has too many requests, so that all should wait.
        late: whether the answer took too long, so that it may have been made and billed.
        refused: whether a filter declined.
        unreachable: whether nothing listens at the address.
        reply: what the server sent, where it sent something that is no answer.
    """

    reason: str
    again: bool = field(kw_only=True)
    wait: float | None = field(default=None, kw_only=True)
    billed: bool = field(default=False, kw_only=True)
    busy: bool = field(default=False, kw_only=True)
    late: bool = field(default=False, kw_only=True)
    refused: bool = field(default=False, kw_only=True)
    unreachable: bool = field(default=False, kw_only=True)
    reply: Reply | None = field(default=None, kw_only=True)


Send = Callable[[Request], Awaitable[Reply]]  # raises FailedAttempt, or UserError where no request can succeed


class Provider(Protocol):
    """A source of answers. `where` is its address or file, for messages."""

    name: str
    where: str

    def connect(self, timeout: float) -> AbstractAsyncContextManager[Send]:
        """Open a session for one event loop. `timeout`: seconds that a whole answer may take."""

    def price(self, model: str) -> Price | None:
        """Return the model's price in the price list, or None where it has none."""

    def longest_reply(self, model: str) -> int | None:
        """Return the most tokens that the model writes, or None where that is not known."""

    def thinks(self, request: Request) -> bool:
        """Return whether the model is known to think before it answers this request."""


def sendable(text: str) -> str:
    """Return the text with a question mark for each half of a character."""
    # JSON can spell half a character (a lone surrogate); no file or network takes one.
    return text.encode("utf-8", "replace").decode("utf-8")


def canonical(value: Any) -> str:
    """Return JSON text that is the same for equal values. Raises ValueError for NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
