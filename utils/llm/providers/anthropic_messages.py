"""Anthropic's Messages API."""

from __future__ import annotations

from typing import Any

from utils.llm.providers.base import Request
from utils.llm.providers.http import Create, HttpProvider, count

MAX_TOKENS = 1024  # the API demands a limit
REASONS = {"end_turn": "stop", "stop_sequence": "stop", "max_tokens": "length", "refusal": "content_filter"}


class AnthropicMessages(HttpProvider):
    name = "anthropic"
    package = "anthropic"
    key_variable, url_variable = "ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL"
    own_url = "https://api.anthropic.com"

    def _client(self, **settings: Any) -> Any:
        return self._sdk.AsyncAnthropic(base_url=self.where.removesuffix("/v1"), **settings)

    def _creator(self, client: Any) -> Create:
        create = client.messages.with_raw_response.create
        return lambda body: create(  # extra_body has the messages
            model=body["model"], messages=[], max_tokens=body["max_tokens"], extra_body=body
        )

    def _read(self, answer: dict[str, Any]) -> dict[str, Any]:
        usage = answer.get("usage") or {}
        cached = (usage.get("cache_creation_input_tokens") or 0) + (usage.get("cache_read_input_tokens") or 0)
        read = count(usage.get("input_tokens"))
        reason = answer["stop_reason"]
        return {
            "text": "".join(block["text"] for block in answer["content"] if block["type"] == "text"),
            "finish_reason": REASONS.get(reason, reason),
            "refused": reason == "refusal",
            "input_tokens": None if read is None else read + cached,
            "output_tokens": count(usage.get("output_tokens")),
        }


def build(
    model: str, messages: list[dict], temperature: float | None, max_tokens: int | None, schema: dict | None,
    sample: int, stop: str | list[str] | None = None, **sampling: Any,
) -> Request:  # fmt: skip
    system = "\n\n".join(message["content"] for message in messages if message["role"] == "system")
    optional = {
        "system": system or None,
        "temperature": temperature,
        "stop_sequences": [stop] if isinstance(stop, str) else stop,
        "output_config": {"format": {"type": "json_schema", "schema": schema}} if schema else None,
        **sampling,
    }
    said = [message for message in messages if message["role"] != "system"]
    body = {"model": model, "messages": said, "max_tokens": max_tokens or MAX_TOKENS}
    return Request("anthropic", body | {k: v for k, v in optional.items() if v is not None}, sample)
