"""OpenAI's chat completions, and every server that speaks them (vLLM, transformers serve, the built-in oracle)."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from utils.llm.providers.base import Request
from utils.llm.providers.batches import Batches
from utils.llm.providers.http import Create, HttpProvider, count

REASONING = re.compile(r"(o\d|gpt-5)")  # these names take max_completion_tokens and refuse max_tokens


class OpenAIChat(HttpProvider):
    name = "openai"
    package = "openai"
    key_variable, url_variable = "OPENAI_API_KEY", "OPENAI_BASE_URL"
    own_url = "https://api.openai.com/v1"

    def _client(self, **settings: Any) -> Any:
        return self._sdk.AsyncOpenAI(base_url=self.where, **settings)

    def _creator(self, client: Any) -> Create:
        create = client.chat.completions.with_raw_response.create
        return lambda body: create(model=body["model"], messages=[], extra_body=body)  # extra_body has the messages

    @asynccontextmanager
    async def connect_batches(self, timeout: float) -> AsyncIterator[Batches]:
        async with self._open(timeout) as client:
            yield Batches(client, self, timeout, self._sdk.NotFoundError)

    def _read(self, answer: dict[str, Any]) -> dict[str, Any]:
        return read_answer(answer)


def read_answer(answer: dict[str, Any]) -> dict[str, Any]:
    choice = answer["choices"][0]
    message, reason = choice["message"], choice.get("finish_reason")
    usage = answer.get("usage") or {}
    text = message.get("content")
    if text is not None and not isinstance(text, str):
        raise TypeError("content is no text")
    return {
        "text": text if text is not None else message.get("refusal"),
        "finish_reason": reason,
        "refused": bool(message.get("refusal")) or reason == "content_filter",
        "input_tokens": count(usage.get("prompt_tokens")),
        "output_tokens": count(usage.get("completion_tokens")),
    }


def build(
    model: str, messages: list[dict], temperature: float | None, max_tokens: int | None, schema: dict | None,
    sample: int, provider: str = "openai", **sampling: Any,
) -> Request:  # fmt: skip
    limit = "max_completion_tokens" if REASONING.match(model) else "max_tokens"
    wanted = {"type": "json_schema", "json_schema": {"name": "reply", "strict": True, "schema": schema}}
    optional = {
        "temperature": temperature,
        limit: max_tokens,
        "response_format": wanted if schema else None,
        **sampling,
    }
    body = {"model": model, "messages": messages, **{k: v for k, v in optional.items() if v is not None}}
    return Request(provider, body, sample)
