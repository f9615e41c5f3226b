"""Whoever answers: OpenAI's API and every server that speaks it, Anthropic's API, a file of saved answers.

    request = request_of("openai", "gpt-4o-mini", [{"role": "user", "content": "…"}], max_tokens=64)
    provider = open_provider("openai", "http://127.0.0.1:8000/v1")

base       requests, replies, troubles
http       what the official clients have in common
prices     USD per million tokens
"""

from __future__ import annotations

from typing import Any

from utils.errors import UserError
from utils.llm.providers import anthropic_messages, openai_chat
from utils.llm.providers.anthropic_messages import AnthropicMessages
from utils.llm.providers.base import Provider, Reply, Request, Send, Trouble, canonical, sendable
from utils.llm.providers.openai_chat import OpenAIChat
from utils.llm.providers.prices import Price, parse_prices
from utils.llm.providers.replay import Replay

__all__ = [
    "PROVIDERS", "Price", "Provider", "Reply", "Request", "Send", "Trouble", "canonical", "open_provider",
    "parse_prices", "request_of",
]  # fmt: skip
PROVIDERS = ("openai", "anthropic", "replay")


def request_of(
    provider: str,
    model: str,
    messages: list[dict[str, str]],
    *,
    temperature: float | None = 0.0,
    max_tokens: int | None = None,
    schema: dict | None = None,
    sample: int = 0,
    **sampling: Any,
) -> Request:
    """A request in the provider's own form. `schema` asks for JSON of that schema; None leaves a setting to the server.
    `sampling`: further fields of the body (top_p, stop, seed, …)."""
    _expect_known(provider)
    messages = [{**message, "content": sendable(message["content"])} for message in messages]
    settings = {"temperature": temperature, "max_tokens": max_tokens, "schema": schema, "sample": sample, **sampling}
    if provider == "anthropic":
        return anthropic_messages.build(model, messages, **settings)
    return openai_chat.build(model, messages, provider=provider, **settings)


def open_provider(name: str, base_url: str | None = None, asks: bool = True) -> Provider:
    """`base_url`: another server of the same API, or the file of saved answers. A key comes from OPENAI_API_KEY or
    ANTHROPIC_API_KEY alone; a server on this machine needs none and is reached past any proxy, and one that is not
    asked (`asks` false: a dry run) needs no key either. Raises UserError."""
    _expect_known(name)
    if name != "replay":
        return {"openai": OpenAIChat, "anthropic": AnthropicMessages}[name](base_url, asks=asks)
    if not base_url:
        raise UserError("--base_url is not set; with the provider replay it is the file of saved answers")
    return Replay(base_url)


def _expect_known(provider: str) -> None:
    if provider not in PROVIDERS:
        raise UserError(f"unknown provider {provider!r}; expected one of {', '.join(PROVIDERS)}")
