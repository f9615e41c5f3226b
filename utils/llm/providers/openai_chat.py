"""OpenAI's chat completions, and every server that speaks them (vLLM, transformers serve, the built-in oracle)."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from utils.llm.providers.batches import BatchSession
from utils.llm.providers.http import Create, HttpProvider, count

# Models of these names take max_completion_tokens and refuse max_tokens, whichever server passes the request on. On
# OpenAI's own server max_tokens is deprecated for every model (openai 3.54, types/chat/completion_create_params.py).
REASONING = re.compile(r"(o\d|gpt-[5-9])")


class OpenAIChat(HttpProvider):
    """Chat completions and batches through the package openai."""

    name = "openai"
    package = "openai"
    key_variable, url_variable = "OPENAI_API_KEY", "OPENAI_BASE_URL"
    own_url = "https://api.openai.com/v1"
    headers_variable, own_headers = "OPENAI_CUSTOM_HEADERS", ("OpenAI-Organization", "OpenAI-Project")
    key_header = ("authorization", "Bearer {}")

    def _client(self, **settings: Any) -> Any:
        return self._sdk.AsyncOpenAI(base_url=self.where, **settings)

    def _creator(self, client: Any) -> Create:
        create = client.chat.completions.with_raw_response.create
        # The messages are in extra_body, which the client sends as it is.
        return lambda body: create(model=body["model"], messages=[], extra_body=body)

    @asynccontextmanager
    async def connect_batches(self, timeout: float) -> AsyncIterator[BatchSession]:
        """Open a session with the batch API; `timeout` is that of a single call, in seconds."""
        async with self._open(timeout) as client:
            yield BatchSession(client, self, timeout=timeout, not_found=self._sdk.NotFoundError)

    def _read(self, answer: dict[str, Any]) -> dict[str, Any]:
        return read_answer(answer)


def read_answer(answer: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a Reply in a chat completion. Raises KeyError, IndexError or TypeError for another shape."""
    choice = answer["choices"][0]
    message, reason = choice["message"], choice.get("finish_reason")
    usage = answer.get("usage") or {}
    text = message.get("content")
    if text is not None and not isinstance(text, str):
        raise TypeError("content is no text")
    if text is None:
        text = message.get("refusal")
    return {
        "text": text,
        "finish_reason": reason,
        "refused": bool(message.get("refusal")) or reason == "content_filter",
        "input_tokens": count(usage.get("prompt_tokens")),
        "output_tokens": count(usage.get("completion_tokens")),
    }


def body_of(
    model: str, messages: list[dict], schema: dict | None, settings: dict[str, Any], own: bool = False
) -> dict[str, Any]:
    """Return the body of a request.

    Args:
        model: the model's name.
        messages: the chat, each message with `role` and `content`.
        schema: a JSON schema for the reply, or None.
        settings: temperature, max_tokens and further fields; those that are None are left out.
        own: whether the server is OpenAI's own; this and the model decide how the limit of tokens is spelled.

    Returns:
        The JSON object to send.
    """
    further = dict(settings)
    limit = "max_tokens"
    if own or REASONING.match(model):
        limit = "max_completion_tokens"
    optional = {limit: further.pop("max_tokens", None)}
    if schema:
        form = {"name": "reply", "strict": True, "schema": schema}
        optional["response_format"] = {"type": "json_schema", "json_schema": form}
    optional |= further
    return {"model": model, "messages": messages} | {k: v for k, v in optional.items() if v is not None}
