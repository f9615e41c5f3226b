"""Errors of servers, read from their bodies: OpenAI's, Anthropic's, OpenRouter's, and those of servers like them."""

from __future__ import annotations

import email.utils
import json
import math
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

NO_CREDIT = ("insufficient_quota", "billing_hard_limit_reached", "billing_not_active")
FILTERED = ("content_filter", "content_policy_violation", "moderation_blocked")
# OpenAI's codes of an error that names an option: "Unsupported value: 'temperature' does not support 0.0 …".
OPTION = ("unsupported_parameter", "unsupported_value", "unknown_parameter")
# Anthropic has one type for every invalid request; these words are about options: "`temperature` is deprecated for
# this model.", "seed: Extra inputs are not permitted", "output_config.format.schema: For 'integer' type, …".
OPTION_WORDS = re.compile(
    r"deprecated for this model|Extra inputs are not permitted|cannot both be specified|^output_config[.:]"
    r"|^Unrecognized request argument|^Invalid schema for response_format"
)
# Moderation by OpenRouter: HTTP 403, "… requires moderation on OpenAI. Your input was flagged for …", and metadata
# with these keys (openrouter.ai/docs/api/reference/errors-and-debugging).
MODERATION = ("reasons", "flagged_input")
MODERATION_WORDS = re.compile(r"\b(input|prompt|content|message|request) (was|were|has been) flagged\b", re.IGNORECASE)
# Statuses of the words that servers use where a body has no number.
STATUSES = {
    "invalid_request_error": 400, "authentication_error": 401, "permission_error": 403, "not_found_error": 404,
    "rate_limit_error": 429, "rate_limit_exceeded": 429, "api_error": 500, "server_error": 500, "overloaded_error": 529,
}  # fmt: skip
# A gateway's own fault: the model may have worked, and the work may have been billed.
BROKEN = 502


@dataclass(frozen=True)
class ServerError:
    """An error as a server tells it.

    Args:
        message: its words, in one line.
        codes: its short names (OpenAI's `code`, `type`), as far as it has them.
        status: the HTTP status that the body names, or the one that its names stand for.
        moderated: whether a filter declined the input.
    """

    message: str = ""
    codes: tuple[str, ...] = ()
    status: int = BROKEN
    moderated: bool = False

    @property
    def no_credit(self) -> bool:
        """Tell whether the account has no money left."""
        return any(code in NO_CREDIT for code in self.codes)

    @property
    def refuses_option(self) -> bool:
        """Tell whether it is about an option of the request, which every other request has, too."""
        return any(code in OPTION for code in self.codes) or bool(OPTION_WORDS.search(self.message))


def read_error(text: str) -> ServerError:
    """Return the error in the body of a response."""
    try:
        found = json.loads(text)
    except ValueError:
        return _error_of(text)
    if isinstance(found, dict):
        found = found.get("error", found)
    return _error_of(found)


def in_answer(answer: Any) -> ServerError | None:
    """Return the error in a body that came with status 200, or None for an answer."""
    # OpenRouter answers 200 once a model has begun, and puts what goes wrong then into the body or into the choice.
    if not isinstance(answer, dict):
        return None
    if answer.get("error"):
        return _error_of(answer["error"])
    choices = answer.get("choices")
    if isinstance(choices, list) and choices and isinstance(choices[0], dict) and choices[0].get("error"):
        return _error_of(choices[0]["error"])
    return None


def _error_of(found: Any) -> ServerError:
    codes, message, status, moderated = (), found, BROKEN, False
    if isinstance(found, dict):
        # Some servers give a number as the code: the HTTP status.
        codes = tuple(found[name] for name in ("code", "type") if isinstance(found.get(name), str))
        message = found.get("message") or found.get("detail") or found
        status = next((STATUSES[code] for code in codes if code in STATUSES), BROKEN)
        number = found.get("code")
        if isinstance(number, int) and not isinstance(number, bool) and 400 <= number < 600:
            status = number
        metadata = found.get("metadata")
        moderated = isinstance(metadata, dict) and any(name in metadata for name in MODERATION)
        moderated = moderated or any(code in FILTERED for code in codes)
    words = " ".join(str(message).split())
    moderated = moderated or bool(MODERATION_WORDS.search(words))
    return ServerError(words[:300], codes, status=status, moderated=moderated)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that the server asks to wait, or None."""
    # Retry-After holds seconds or a date, retry-after-ms milliseconds.
    for name, unit in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        try:
            seconds = float(headers.get(name, "nan")) / unit
        except ValueError:
            date = email.utils.parsedate_tz(headers[name])
            seconds = email.utils.mktime_tz(date) - time.time() if date else math.nan
        if math.isfinite(seconds):
            return max(0.0, seconds)
    return None
