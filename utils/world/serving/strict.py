"""What OpenAI's and Anthropic's own servers refuse of a request today, in their words.

Sources: the fields are those of the official clients (openai 3.54, types/chat/completion_create_params.py; anthropic
2.12, types/message_create_params.py), the retired models those of their lists (types/shared/chat_model.py;
DEPRECATED_MODELS in resources/messages/messages.py). What a model refuses is from the providers' guides
(developers.openai.com/api/docs/guides/reasoning, …/guides/structured-outputs; platform.claude.com, the migration guides
of Claude Sonnet 5 and Haiku 5.5, …/build-with-claude/structured-outputs), and the words of the errors from reports of
them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from utils.world.serving.apis import ApiError

OPENAI_FIELDS = frozenset(
    re.findall(
        r"\S+",
        "audio frequency_penalty function_call functions logit_bias logprobs max_completion_tokens max_tokens messages"
        " metadata modalities model moderation n parallel_tool_calls prediction presence_penalty prompt_cache_key"
        " prompt_cache_options prompt_cache_retention reasoning_effort response_format safety_identifier seed"
        " service_tier stop store stream stream_options temperature tool_choice tools top_logprobs top_p user verbosity"
        " web_search_options",
    )
)
ANTHROPIC_FIELDS = frozenset(
    re.findall(
        r"\S+",
        "cache_control container diagnostics inference_geo max_tokens messages metadata model output_config prefill"
        " service_tier speed stop_sequences stream system temperature thinking tool_choice tools top_k top_p",
    )
)
OPENAI_MODELS = re.compile(r"gpt-(4o|4\.1|5|6)[\w.-]*|o3(-2025-04-16)?")
OPENAI_RETIRED = re.compile(
    r"gpt-3\.5.*|gpt-4(-turbo.*|-\d.*)?|gpt-4o-2024-05-13|chatgpt-4o-latest|gpt-4\.1-nano.*|o1.*|o3-mini.*|o4-mini.*"
)
# These think always; the others of gpt-5 and later think unless their effort is none, which is the default of some.
OPENAI_THINKERS = re.compile(r"o\d.*|gpt-5(-mini|-nano)?(-\d.*)?")
OPENAI_EFFORTS = re.compile(r"gpt-5\.\d.*|gpt-6.*")
OPENAI_QUIET = re.compile(r"gpt-5\.[124].*")
OPENAI_LONGEST = {"gpt-4o": 16384, "gpt-4.1": 32768, "o3": 100000, "gpt-": 128000}
ANTHROPIC_MODELS = re.compile(r"claude-(opus|sonnet|haiku|fable|mythos)-[4-9][\w-]*")
ANTHROPIC_RETIRED = re.compile(r"claude-(1|2|instant|3).*|claude-(opus|sonnet)-4-(0|2025\d{4})")
ANTHROPIC_UNSAMPLED = re.compile(r"claude-opus-4-[78].*|claude-\w+-[5-9].*")
ANTHROPIC_NO_EFFORT = re.compile(r"claude-(sonnet|haiku)-4-5.*")
ANTHROPIC_LONGEST = {"claude-haiku-4": 64000, "claude-sonnet-4": 64000, "claude-opus-4-5": 64000, "claude-": 128000}
ANTHROPIC_SCHEMA = frozenset(
    re.findall(
        r"\S+",
        "$defs $ref additionalProperties anyOf allOf const default description enum format items properties required"
        " title type",
    )
)


def refuse_openai(body: dict[str, Any]) -> None:
    """Raise ApiError for a chat completion that OpenAI's own server refuses."""
    for name in body.keys() - OPENAI_FIELDS:
        raise ApiError(400, f"Unrecognized request argument supplied: {name}")
    model = body.get("model", "")
    if OPENAI_RETIRED.fullmatch(model):
        told = (
            f"The model `{model}` has been deprecated, learn more here: https://platform.openai.com/docs/deprecations"
        )
        raise ApiError(404, told, "model_not_found")
    if not OPENAI_MODELS.fullmatch(model):
        raise ApiError(404, f"The model `{model}` does not exist or you do not have access to it.", "model_not_found")
    reasons = OPENAI_THINKERS.fullmatch(model) or OPENAI_EFFORTS.fullmatch(model)
    _refuse_limits(body, model, bool(reasons))
    _refuse_sampling(body, model, bool(reasons))
    _refuse_openai_schema((body.get("response_format") or {}).get("json_schema"))


def _refuse_sampling(body: dict[str, Any], model: str, reasons: bool) -> None:
    effort = body.get("reasoning_effort")
    if effort is not None and not reasons:
        raise ApiError(400, "Unrecognized request argument supplied: reasoning_effort")
    if effort in ("none", "xhigh", "max") and OPENAI_THINKERS.fullmatch(model):
        told = f"Unsupported value: 'reasoning_effort' does not support '{effort}' with this model."
        raise ApiError(400, told, "unsupported_value", param="reasoning_effort")
    quiet = effort == "none" or (effort is None and OPENAI_QUIET.fullmatch(model))
    if not reasons or quiet:
        return
    if body.get("temperature", 1) != 1:
        found = f"Unsupported value: 'temperature' does not support {body['temperature']} with this model."
        told = f"{found} Only the default (1) value is supported."
        raise ApiError(400, told, "unsupported_value", param="temperature")
    for name in ("top_p", "presence_penalty", "frequency_penalty", "logprobs", "logit_bias"):
        if name in body:
            told = f"Unsupported parameter: '{name}' is not supported with this model."
            raise ApiError(400, told, "unsupported_parameter", param=name)


def _refuse_openai_schema(form: dict[str, Any] | None) -> None:
    if not form or not form.get("strict"):
        return
    for where, schema in _schemas(form.get("schema"), ()):
        if schema.get("type") != "object":
            continue
        told = f"Invalid schema for response_format '{form.get('name')}': In context={where}, "
        if schema.get("additionalProperties") is not False:
            told += "'additionalProperties' is required to be supplied and to be false."
            raise ApiError(400, told, param="response_format")
        if sorted(schema.get("required", ())) != sorted(schema.get("properties", ())):
            told += "'required' is required to be supplied and to be an array including every key in properties."
            raise ApiError(400, told, param="response_format")


def _refuse_limits(body: dict[str, Any], model: str, reasons: bool) -> None:
    if "max_tokens" in body and reasons:
        told = (
            "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
        )
        raise ApiError(400, told, "unsupported_parameter", param="max_tokens")
    if "max_tokens" in body and "max_completion_tokens" in body:
        told = "Setting 'max_tokens' and 'max_completion_tokens' at the same time is not supported."
        raise ApiError(400, told, "invalid_parameter_combination")
    limit, longest = body.get("max_completion_tokens") or body.get("max_tokens") or 0, _longest(OPENAI_LONGEST, model)
    if limit > longest:
        found = f"max_tokens is too large: {limit}. This model supports at most {longest} completion tokens"
        raise ApiError(400, f"{found}, whereas you provided {limit}.", "invalid_value", param="max_tokens")


def refuse_anthropic(body: dict[str, Any]) -> None:
    """Raise ApiError for a message that Anthropic's own server refuses."""
    for name in body.keys() - ANTHROPIC_FIELDS:
        raise ApiError(400, f"{name}: Extra inputs are not permitted")
    model = body.get("model", "")
    if ANTHROPIC_RETIRED.fullmatch(model) or not ANTHROPIC_MODELS.fullmatch(model):
        raise ApiError(404, f"model: {model}")
    for name in ("temperature", "top_p", "top_k"):
        if name in body and ANTHROPIC_UNSAMPLED.fullmatch(model):
            raise ApiError(400, f"`{name}` is deprecated for this model.")
    if "temperature" in body and "top_p" in body:
        told = "`temperature` and `top_p` cannot both be specified for this model. Please use only one."
        raise ApiError(400, told)
    limit, longest = body.get("max_tokens") or 0, _longest(ANTHROPIC_LONGEST, model)
    if limit > longest:
        found = f"max_tokens: {limit} > {longest}"
        raise ApiError(400, f"{found}, which is the maximum allowed number of output tokens for {model}")
    output = body.get("output_config") or {}
    if "effort" in output:
        if output["effort"] not in ("low", "medium", "high", "xhigh", "max"):
            raise ApiError(400, "output_config.effort: Input should be 'low', 'medium', 'high', 'xhigh' or 'max'")
        if ANTHROPIC_NO_EFFORT.fullmatch(model):
            raise ApiError(400, "output_config.effort: This model does not support the effort parameter.")
    _refuse_anthropic_schema((output.get("format") or {}).get("schema"))


def _refuse_anthropic_schema(schema: Any) -> None:
    place = "output_config.format.schema"
    for _, part in _schemas(schema, ()):
        kind, unknown = part.get("type"), sorted(part.keys() - ANTHROPIC_SCHEMA)
        if unknown:
            raise ApiError(400, f"{place}: For '{kind}' type, properties {', '.join(unknown)} are not supported")
        if kind == "object" and part.get("additionalProperties") is not False:
            raise ApiError(400, f"{place}: For 'object' type, 'additionalProperties' must be explicitly set to false")


def _longest(limits: dict[str, int], model: str) -> int:
    return next(limit for prefix, limit in limits.items() if model.startswith(prefix))


def _schemas(schema: Any, where: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    """Yield (where it stands, a schema) for a JSON schema and all in it."""
    if not isinstance(schema, dict):
        return
    yield where, schema
    for name, part in (schema.get("properties") or {}).items():
        yield from _schemas(part, (*where, "properties", name))
    if "items" in schema:
        yield from _schemas(schema["items"], (*where, "items"))
    for name in ("anyOf", "allOf"):
        for number, part in enumerate(schema.get(name) or ()):
            yield from _schemas(part, (*where, name, str(number)))
