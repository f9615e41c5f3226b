"""OpenAI's chat API and Anthropic's Messages API on a server's side: JSON in, JSON out."""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

CHARACTERS = 4  # of a token, roughly: the oracle has no tokenizer
REFUSAL = "I am not able to help with this."


class ApiError(Exception):
    """An error that a client gets.

    Args:
        status: the HTTP status.
        message: its words.
        code: OpenAI's short name of it, where there is one.
        param: the field that it is about, where it is about one.
    """

    def __init__(self, status: int, message: str, code: str | None = None, param: str | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.param = status, code, param


@dataclass(frozen=True)
class Call:
    """A request, whichever API it came by."""

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
    """A reply as cut by the limits of its call."""

    text: str
    ended: str = "end"  # end | stop | length | refusal | filter
    stop: str | None = None  # the stop sequence that ended it


def count_tokens(text: str) -> int:
    return -(-len(text) // CHARACTERS)


def say(text: str, call: Call) -> Said:
    """Return a text up to the first stop sequence, and no longer than the call allows."""
    # The stop sequence that comes first in the text ends it, whatever their order in the request.
    ends = [(text.find(stop), stop) for stop in call.stops if stop in text]
    at, stop = min(ends, default=(len(text), None))
    if call.max_tokens is not None and call.max_tokens * CHARACTERS < at:
        return Said(text[: call.max_tokens * CHARACTERS], "length")
    if stop is None:
        return Said(text)
    return Said(text[:at], "stop", stop)


class OpenAI:
    """OpenAI's chat completions."""

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
        """Return what a request's body asks. Raises ApiError."""
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
        """Return the body of a reply."""
        message = {"role": "assistant", "content": said.text, "refusal": None}
        if said.ended == "refusal":
            message |= {"content": None, "refusal": REFUSAL}
        used, made = call.input_tokens, count_tokens(said.text)
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
        """Return the body of an error."""
        kind = cls.TYPES.get(error.status, "invalid_request_error")
        code = error.code or cls.CODES.get(error.status)
        return {"error": {"message": str(error), "type": kind, "param": error.param, "code": code}}


class Anthropic:
    """Anthropic's Messages."""

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
        # The header differs with the client's version.
        return headers.get("x-api-key") or OpenAI.key(headers)

    @staticmethod
    def read(body: Any) -> Call:
        """Return what a request's body asks. Raises ApiError."""
        _expect(body, "stream", (False, None))
        form = (body.get("output_config") or {}).get("format") or body.get("output_format")
        limit = _limit(body, "max_tokens")
        if limit is None:
            raise ApiError(400, "max_tokens: Field required")
        messages = _messages(body)
        system = body.get("system")
        if system:
            messages = ({"role": "system", "content": _text(system, "system")}, *messages)
        return Call(
            model=_text(body.get("model"), "model"),
            messages=messages,
            max_tokens=limit,
            stops=_stops(body.get("stop_sequences")),
            structured=isinstance(form, dict) and form.get("type") == "json_schema",
            free=body.get("temperature", 1) != 0,
        )

    @classmethod
    def answer(cls, call: Call, said: Said) -> dict[str, Any]:
        """Return the body of a reply."""
        content = []
        # Anthropic sends no content at all for an empty text.
        if said.text:
            content.append({"type": "text", "text": said.text})
        return {
            "id": f"msg_{next(cls.serial)}",
            "type": "message",
            "role": "assistant",
            "model": call.model,
            "content": content,
            "stop_reason": cls.ENDS[said.ended],
            "stop_sequence": said.stop,
            "usage": {"input_tokens": call.input_tokens, "output_tokens": count_tokens(said.text)},
        }

    @classmethod
    def error(cls, error: ApiError) -> dict[str, Any]:
        """Return the body of an error."""
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
    messages = []
    for row in rows:
        role = row.get("role")
        if role not in ("system", "developer", "user", "assistant"):
            raise ApiError(400, f"messages: role is {role!r}; expected system, user or assistant")
        messages.append({"role": role, "content": _text(row.get("content"), "content")})
    return tuple(messages)


def _text(value: Any, name: str) -> str:
    """Return a text, or a list of text parts joined."""
    if isinstance(value, list) and all(isinstance(part, dict) and part.get("type") == "text" for part in value):
        value = "".join(str(part.get("text", "")) for part in value)
    if not isinstance(value, str):
        raise ApiError(400, f"{name} is {repr(value)[:60]}; expected text")
    return value


def _stops(value: Any) -> tuple[str, ...]:
    stops = value or []
    if isinstance(value, str):
        stops = [value]
    if not isinstance(stops, list) or not all(isinstance(stop, str) and stop for stop in stops):
        raise ApiError(400, f"stop is {value!r}; expected text or a list of texts")
    return tuple(stops)


def _limit(body: dict[str, Any], name: str) -> int | None:
    value = body.get(name)
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
        raise ApiError(400, f"{name} is {value!r}; expected a whole number above 0")
    return value
