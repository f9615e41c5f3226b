"""What is asked, what comes back, and how it may not."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
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
    def key(self) -> str:
        return hashlib.sha256(canonical([self.provider, self.body, self.sample]).encode()).hexdigest()

    @property
    def model(self) -> str:
        return self.body["model"]

    @cached_property
    def most_input_tokens(self) -> int:
        """A bound: a token has at least one byte, and the body holds more than the words."""
        return len(canonical(self.body).encode())

    @property
    def most_output_tokens(self) -> int | None:
        """None: the request sets no limit."""
        limit = self.body.get("max_completion_tokens") or self.body.get("max_tokens")
        return limit * (self.body.get("n") or 1) if limit else None


@dataclass(frozen=True)
class Reply:
    """An answer. `refused`: the model or a filter declined. Tokens are None where the server does not count them."""

    text: str | None
    finish_reason: str | None  # in OpenAI's words: stop, length, content_filter, …
    refused: bool
    input_tokens: int | None
    output_tokens: int | None
    request_id: str | None
    raw: str  # the body as received

    def __post_init__(self) -> None:
        if self.text is not None:
            object.__setattr__(self, "text", sendable(self.text))


class Trouble(Exception):  # noqa: N818 - how one attempt ended, not a fault of the program
    """No answer this time; `reason` is a few words.

    `again`: another attempt may get one, after `wait` seconds where the server asked for them. `billed`: it may have
    cost money. `busy`: everybody should wait. `refused`: a filter declined. `unreachable`: nothing listens there.
    `reply`: what came, where something came that is no answer.
    """

    def __init__(
        self,
        reason: str,
        *,
        again: bool,
        wait: float | None = None,
        billed: bool = False,
        busy: bool = False,
        refused: bool = False,
        unreachable: bool = False,
        reply: Reply | None = None,
    ) -> None:
        super().__init__(reason)
        self.reason, self.again, self.wait, self.billed = reason, again, wait, billed
        self.busy, self.refused, self.unreachable, self.reply = busy, refused, unreachable, reply


Send = Callable[[Request], Awaitable[Reply]]  # raises Trouble, or UserError where no request can succeed


class Provider(Protocol):
    name: str
    where: str  # for messages: an address, a file

    def connect(self, timeout: float) -> AbstractAsyncContextManager[Send]:
        """A session for one event loop. `timeout`: seconds that a whole answer may take."""

    def price(self, model: str) -> Price | None:
        """What the price list says of it, None if nothing."""


def sendable(text: str) -> str:
    """JSON can spell half a character (a lone surrogate); no file or network takes one."""
    return text.encode("utf-8", "replace").decode("utf-8")


def canonical(value: Any) -> str:
    """JSON, the same for equal values. Raises ValueError for NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
