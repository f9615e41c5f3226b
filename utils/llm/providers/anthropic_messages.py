"""Anthropic's Messages API."""

from __future__ import annotations

from typing import Any

from utils.llm.providers.http import Create, HttpProvider, count

# The API refuses a request without a limit.
MAX_TOKENS = 1024
# Keywords of a schema that the API answers with 400; the official client moves them into the description
# (anthropic 2.12, lib/_parse/_transform.py). Here the parsers check what they would have bound.
BOUNDS = frozenset(
    ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minLength", "maxLength", "pattern",
     "minItems", "maxItems", "uniqueItems", "minProperties", "maxProperties")
)  # fmt: skip
REASONS = {
    "end_turn": "stop", "stop_sequence": "stop", "max_tokens": "length", "model_context_window_exceeded": "length",
    "refusal": "content_filter",
}  # fmt: skip


class AnthropicMessages(HttpProvider):
    """The Messages API through the package anthropic."""

    name = "anthropic"
    package = "anthropic"
    key_variable, url_variable = "ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL"
    own_url = "https://api.anthropic.com"
    headers_variable, key_header = "ANTHROPIC_CUSTOM_HEADERS", ("x-api-key", "{}")

    def _client(self, **settings: Any) -> Any:
        # The official client appends /v1 by itself.
        return self._sdk.AsyncAnthropic(base_url=self.where.removesuffix("/v1"), **settings)

    def _creator(self, client: Any) -> Create:
        create = client.messages.with_raw_response.create
        # The messages are in extra_body, which the client sends as it is.
        return lambda body: create(model=body["model"], messages=[], max_tokens=body["max_tokens"], extra_body=body)

    def _read(self, answer: dict[str, Any]) -> dict[str, Any]:
        usage = answer.get("usage") or {}
        # Anthropic counts cached tokens apart from input_tokens; the price of a prompt covers both.
        cached = (usage.get("cache_creation_input_tokens") or 0) + (usage.get("cache_read_input_tokens") or 0)
        input_tokens = count(usage.get("input_tokens"))
        if input_tokens is not None:
            input_tokens += cached
        reason = answer["stop_reason"]
        return {
            "text": "".join(block["text"] for block in answer["content"] if block["type"] == "text"),
            "finish_reason": REASONS.get(reason, reason),
            "refused": reason == "refusal",
            "input_tokens": input_tokens,
            "output_tokens": count(usage.get("output_tokens")),
        }


def body_of(model: str, messages: list[dict], schema: dict | None, settings: dict[str, Any]) -> dict[str, Any]:
    """Return the body of a request.

    Args:
        model: the model's name.
        messages: the chat in OpenAI's form; system messages become the field `system`.
        schema: a JSON schema for the reply, or None.
        settings: max_tokens, stop, reasoning_effort and further fields; those that are None are left out.

    Returns:
        The JSON object to send.
    """
    further = dict(settings)
    stop = further.pop("stop", None)
    if isinstance(stop, str):
        stop = [stop]
    system, turns = [], []
    for message in messages:
        if message["role"] == "system":
            system.append(message["content"])
        else:
            turns.append(message)
    body = {"model": model, "messages": turns, "max_tokens": further.pop("max_tokens", None) or MAX_TOKENS}
    optional = {"system": "\n\n".join(system) or None, "stop_sequences": stop}
    # What OpenAI calls reasoning_effort stands beside the schema here.
    output = {"effort": further.pop("reasoning_effort", None)}
    if schema:
        output["format"] = {"type": "json_schema", "schema": without_bounds(schema)}
    output = {name: value for name, value in output.items() if value is not None}
    optional |= {"output_config": output or None, **further}
    return body | {name: value for name, value in optional.items() if value is not None}


def without_bounds(schema: Any) -> Any:
    """Return a JSON schema without the keywords that the API refuses; properties of such a name stay."""
    if isinstance(schema, list):
        return [without_bounds(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {}
    for name, part in schema.items():
        if name in ("properties", "$defs"):
            kept[name] = {key: without_bounds(value) for key, value in part.items()}
        elif name in ("enum", "const"):
            kept[name] = part
        elif name not in BOUNDS:
            kept[name] = without_bounds(part)
    return kept
