"""Providers of answers: OpenAI's API and every server that speaks it, Anthropic's API, a file of saved answers.

    request = request_of("openai", "gpt-4o-mini", [{"role": "user", "content": "…"}], max_tokens=64)
    provider = open_provider("openai", "http://127.0.0.1:8000/v1")

base       requests, replies and failed attempts
http       requests through the official clients
prices     USD per million tokens, and what else is known of models
"""

from __future__ import annotations

import os
from typing import Any

from utils.errors import UserError
from utils.llm.providers import anthropic_messages, openai_chat
from utils.llm.providers.address import checked_url, is_loopback, is_own
from utils.llm.providers.anthropic_messages import AnthropicMessages
from utils.llm.providers.base import FailedAttempt, Provider, Reply, Request, Send, canonical, sendable
from utils.llm.providers.openai_chat import OpenAIChat
from utils.llm.providers.prices import ModelFacts, Price, PriceList, parse_prices, with_own
from utils.llm.providers.replay import Replay

__all__ = [
    "PROVIDERS", "ModelFacts", "Price", "PriceList", "Provider", "Reply", "Request", "Send", "FailedAttempt",
    "canonical", "is_loopback", "is_served_by_its_maker", "open_provider", "parse_prices", "request_of", "with_own",
]  # fmt: skip
PROVIDERS = ("openai", "anthropic", "replay")


def request_of(
    provider: str,
    model: str,
    messages: list[dict[str, str]],
    schema: dict | None = None,
    sample: int = 0,
    own: bool = False,
    **settings: Any,
) -> Request:
    """Return a request in the provider's own form.

    Args:
        provider: one of PROVIDERS.
        model: the model's name, as the server knows it.
        messages: the chat, each message with `role` and `content`.
        schema: a JSON schema that the reply has to keep to; None asks for free text.
        sample: the number of this sample, where one prompt is asked several times.
        own: whether the server is OpenAI's own, which spells the limit of tokens in its newer way.
        settings: further fields of the body (temperature, max_tokens, reasoning_effort, top_p, stop, seed, …). One that
            is None or absent is left to the server.

    Returns:
        The request, whose key depends on nothing but these arguments.
    """
    _expect_known(provider)
    messages = [{**message, "content": sendable(message["content"])} for message in messages]
    if provider == "anthropic":
        return Request(provider, anthropic_messages.body_of(model, messages, schema, settings), sample)
    return Request(provider, openai_chat.body_of(model, messages, schema, settings, own=own), sample)


def is_served_by_its_maker(model: str, name: str, base_url: str | None, prices: PriceList) -> bool:
    """Return whether requests go to the provider's own server, or to one of this machine that stands in for it.

    Args:
        model: the model's name.
        name: one of PROVIDERS.
        base_url: the address that a person gave, or None.
        prices: what is known of models; a server of this machine stands in for a model that is listed.
    """
    provider = {"openai": OpenAIChat, "anthropic": AnthropicMessages}.get(name)
    if provider is None:
        return False
    url = checked_url(base_url or os.environ.get(provider.url_variable) or provider.own_url)
    return is_own(url, provider.own_url) or (is_loopback(url) and prices.model(model).listed is not None)


def open_provider(
    name: str, base_url: str | None = None, asks: bool = True, key_env: str | None = None,
    prices: PriceList | None = None,
) -> Provider:  # fmt: skip
    """Return a provider that is ready to be connected to.

    Args:
        name: one of PROVIDERS.
        base_url: another server of the same API, or the file of saved answers.
        asks: False for a dry run, which needs neither a key nor the client.
        key_env: the environment variable that holds the key. Without it a key is OPENAI_API_KEY or ANTHROPIC_API_KEY,
            which go to the provider's own server alone; a server on this machine then gets none. It is reached past
            any proxy.
        prices: what is known of models; None: the project's list.

    Returns:
        The provider.

    Raises:
        UserError: for an address, a key or a file that cannot be used.
    """
    _expect_known(name)
    settings = {"asks": asks, "key_env": key_env, "prices": prices}
    if name == "openai":
        return OpenAIChat(base_url, **settings)
    if name == "anthropic":
        return AnthropicMessages(base_url, **settings)
    if not base_url:
        raise UserError("--base_url is not set; with the provider replay it is the file of saved answers")
    return Replay(base_url)


def _expect_known(provider: str) -> None:
    if provider not in PROVIDERS:
        raise UserError(f"unknown provider {provider!r}; expected one of {', '.join(PROVIDERS)}")
