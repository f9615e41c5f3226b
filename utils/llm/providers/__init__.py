"""Providers of answers: OpenAI's API and every server that speaks it, Anthropic's API, a file of saved answers.

    request = request_of("openai", "gpt-4o-mini", [{"role": "user", "content": "…"}], max_tokens=64)
    provider = open_provider("openai", "http://127.0.0.1:8000/v1")

base       requests, replies and failed attempts
http       requests through the official clients
prices     USD per million tokens
"""

from __future__ import annotations

from typing import Any

from utils.errors import UserError
from utils.llm.providers import anthropic_messages, openai_chat
from utils.llm.providers.anthropic_messages import AnthropicMessages
from utils.llm.providers.base import FailedAttempt, Provider, Reply, Request, Send, canonical, sendable
from utils.llm.providers.openai_chat import OpenAIChat
from utils.llm.providers.prices import Price, parse_prices
from utils.llm.providers.replay import Replay

__all__ = [
    "PROVIDERS", "Price", "Provider", "Reply", "Request", "Send", "FailedAttempt", "canonical", "open_provider",
    "parse_prices", "request_of",
]  # fmt: skip
PROVIDERS = ("openai", "anthropic", "replay")


def request_of(
    provider: str,
    model: str,
    messages: list[dict[str, str]],
    schema: dict | None = None,
    sample: int = 0,
    **settings: Any,
) -> Request:
    """Return a request in the provider's own form.

    Args:
        provider: one of PROVIDERS.
        model: the model's name, as the server knows it.
        messages: the chat, each message with `role` and `content`.
        schema: a JSON schema that the reply has to keep to; None asks for free text.
        sample: the number of this sample, where one prompt is asked several times.
        settings: further fields of the body (temperature, max_tokens, top_p, stop, seed, …). None leaves one to the
            server; the temperature is 0 unless given.

    Returns:
        The request, whose key depends on nothing but these arguments.
    """
    _expect_known(provider)
    messages = [{**message, "content": sendable(message["content"])} for message in messages]
    settings = {"temperature": 0.0, **settings}
    body_of = anthropic_messages.body_of if provider == "anthropic" else openai_chat.body_of
    return Request(provider, body_of(model, messages, schema, settings), sample)


def open_provider(name: str, base_url: str | None = None, asks: bool = True) -> Provider:
    """Return a provider that is ready to be connected to.

    A key comes from OPENAI_API_KEY or ANTHROPIC_API_KEY alone. A server on this machine needs none, and is reached
    past any proxy. `base_url` is another server of the same API, or the file of saved answers; with `asks` False (a dry
    run) no key is needed. Raises UserError.
    """
    _expect_known(name)
    if name == "openai":
        return OpenAIChat(base_url, asks=asks)
    if name == "anthropic":
        return AnthropicMessages(base_url, asks=asks)
    if not base_url:
        raise UserError("--base_url is not set; with the provider replay it is the file of saved answers")
    return Replay(base_url)


def _expect_known(provider: str) -> None:
    if provider not in PROVIDERS:
        raise UserError(f"unknown provider {provider!r}; expected one of {', '.join(PROVIDERS)}")
