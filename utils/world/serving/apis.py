"""OpenAI's chat API and Anthropic's Messages API, as a server speaks them: JSON in, JSON out.

Tokens are counted as four characters each, roughly what they are.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

CHARACTERS = 4  # of a token
REFUSAL = "I am not able to help with this."


class ApiError(Exception):
    """What a client is told with an HTTP status. `code` is OpenAI's short name of it, where there is one."""

    def __init__(self, status: int, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.code = status, code


@dataclass(frozen=True)
class Call:
    """What is asked, whichever API it came by."""

    model: str
    messages: tuple[dict[str, str], ...]
    max_tokens: int | None
    stops: tuple[str, ...]
    structured: bool
    free: bool  # temperature above 0: the same request may be answered differently

    @property
    def input_tokens(self) -> int:
        return count_tokens("".join(message["content"] for message in self.messages))


@dataclass(frozen=True)
class Said:
    """An answer as cut by the limits of its call. `ended` is end | stop | length | refusal | filter."""

    text: str
    ended: str = "end"
    stop: str | None = None  # the stop sequence that ended it


def count_tokens(text: str) -> int:
    return -(-len(text) // CHARACTERS)


def say(text: str, call: Call) -> Said:
    """`text` up to the first stop sequence, and no longer than the call allows."""
    ends = [(text.find(stop), stop) for stop in call.stops if stop in text]
    at, stop = min(ends, default=(len(text), None))
    limit = len(text) if call.max_tokens is None else call.max_tokens * CHARACTERS
    return Said(text[:limit], "length") if limit < at else Said(text[:at], "stop" if ends else "end", stop)


class OpenAI:
    id_header = "x-request-id"
    ENDS = {"end": "stop", "stop": "stop", "length": "length", "refusal": "stop", "filter": "content_filter"}
    TYPES = {401: "invalid_request_error", 429: "requests", 500: "server_error"}
    CODES = {401: "invalid_api_key", 404: "model_not_found", 429: "rate_limit_exceeded"}
    serial = itertools.count(1)

    @staticmethod
    def key(headers: Mapping[str, str]) -> str:
        return headers.get("Authorization", "").removeprefix("Bearer ")

    @staticmethod
    def read(body: Any) -> Call:
        """Raises ApiError."""
        _expect(body, "stream", (False, None))
        _expect(body, "n", (1, None))
        form = body.get("response_format") or {}
        return Call(
            model=_text(body.get("model"), "model"),
            messages=_messages(body),
            max_tokens=_limit(body, "max_completion_tokens") or _limit(body, "max_tokens"),
            stops=_stops(body.get("stop")),
            structured=isinstance(form, dict) and form.get("type") in ("json_schema", "json_object"),
            free=body.get("temperature", 1) != 0,
        )

    @classmethod
    def answer(cls, call: Call, said: Said) -> dict[str, Any]:
        refused = said.ended == "refusal"
        used, made = call.input_tokens, count_tokens(said.text)
        message = {
            "role": "assistant",
            "content": None if refused else said.text,
            "refusal": REFUSAL if refused else None,
        }
        return {
            "id": f"chatcmpl-{next(cls.serial)}",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": call.model,
            "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": cls.ENDS[said.ended]}],
            "usage": {"prompt_tokens": used, "completion_tokens": made, "total_tokens": used + made},
        }

    @classmethod
    def error(cls, error: ApiError) -> dict[str, Any]:
        kind = cls.TYPES.get(error.status, "invalid_request_error")
        code = error.code or cls.CODES.get(error.status)
        return {"error": {"message": str(error), "type": kind, "param": None, "code": code}}


class Anthropic:
    id_header = "request-id"
    ENDS = {
        "end": "end_turn",
        "stop": "stop_sequence",
        "length": "max_tokens",
        "refusal": "refusal",
        "filter": "refusal",
    }
    TYPES = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error", 500: "api_error"}
    serial = itertools.count(1)

    @staticmethod
    def key(headers: Mapping[str, str]) -> str:
        return headers.get("x-api-key") or OpenAI.key(headers)  # the header differs with the client's version

    @staticmethod
    def read(body: Any) -> Call:
        """Raises ApiError."""
        _expect(body, "stream", (False, None))
        form = (body.get("output_config") or {}).get("format") or body.get("output_format")
        limit = _limit(body, "max_tokens")
        if limit is None:
            raise ApiError(400, "max_tokens: Field required")
        system = body.get("system")
        first = ({"role": "system", "content": _text(system, "system")},) if system else ()
        return Call(
            model=_text(body.get("model"), "model"),
            messages=(*first, *_messages(body)),
            max_tokens=limit,
            stops=_stops(body.get("stop_sequences")),
            structured=isinstance(form, dict) and form.get("type") == "json_schema",
            free=body.get("temperature", 1) != 0,
        )

    @classmethod
    def answer(cls, call: Call, said: Said) -> dict[str, Any]:
        return {
            "id": f"msg_{next(cls.serial)}",
            "type": "message",
            "role": "assistant",
            "model": call.model,
            "content": [{"type": "text", "text": said.text}] if said.text else [],
            "stop_reason": cls.ENDS[said.ended],
            "stop_sequence": said.stop,
            "usage": {"input_tokens": call.input_tokens, "output_tokens": count_tokens(said.text)},
        }

    @classmethod
    def error(cls, error: ApiError) -> dict[str, Any]:
        kind = cls.TYPES.get(error.status, "invalid_request_error")
        return {"type": "error", "error": {"type": kind, "message": str(error)}}


def _expect(body: Any, name: str, values: tuple[Any, ...]) -> None:
    if not isinstance(body, dict):
        raise ApiError(400, f"the body is a {type(body).__name__}; expected a JSON object")
    if body.get(name) not in values:
        raise ApiError(400, f"{name} is {body[name]!r}; this server knows only {values[0]!r}")


def _messages(body: dict[str, Any]) -> tuple[dict[str, str], ...]:
    rows = body.get("messages")
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise ApiError(400, "messages: expected a list with at least one message")
    for row in rows:
        if row.get("role") not in ("system", "developer", "user", "assistant"):
            raise ApiError(400, f"messages: role is {row.get('role')!r}; expected system, user or assistant")
    return tuple({"role": row["role"], "content": _text(row.get("content"), "content")} for row in rows)


def _text(value: Any, name: str) -> str:
    """A text, or a list of text parts joined."""
    if isinstance(value, list) and all(isinstance(part, dict) and part.get("type") == "text" for part in value):
        value = "".join(str(part.get("text", "")) for part in value)
    if not isinstance(value, str):
        raise ApiError(400, f"{name} is {repr(value)[:60]}; expected text")
    return value


def _stops(value: Any) -> tuple[str, ...]:
    stops = [value] if isinstance(value, str) else value or []
    if not isinstance(stops, list) or not all(isinstance(stop, str) and stop for stop in stops):
        raise ApiError(400, f"stop is {value!r}; expected text or a list of texts")
    return tuple(stops)


def _limit(body: dict[str, Any], name: str) -> int | None:
    value = body.get(name)
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
        raise ApiError(400, f"{name} is {value!r}; expected a whole number above 0")
    return value
