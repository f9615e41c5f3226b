"""Faults that a server has on purpose: drawn reproducibly, or a rate limit; and counts of its requests."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from utils.errors import UserError

KINDS = {
    "429": "too many requests, without a word on when to come back",
    "429-retry-after": "too many requests, with a Retry-After header",
    "500": "an error of the server",
    "time-out": "no answer at all",
    "reset": "the connection breaks in the middle of the answer",
    "malformed": "an answer that is not JSON",
    "empty": "an answer without a text",
    "refusal": "the model declines to answer",
    "slow": "an answer that comes late",
}


HEADERS = ("none", "retry-after", "retry-after-ms")
RATE_LIMIT = "rate-limit"  # the name of such refusals in the counts


@dataclass
class RateLimit:
    """A limit of requests a minute, as APIs have it: a bucket of tokens, of which each accepted request takes one.

    Args:
        requests_per_minute: tokens that flow in; 0: no limit.
        bucket: tokens that it holds, with which it begins; 0: those of one second, and at least one.
        header: how a refusal tells when the next token is there, one of HEADERS.
    """

    requests_per_minute: float = 0.0
    bucket: float = 0.0
    header: str = "retry-after"

    def __post_init__(self) -> None:
        for name in ("requests_per_minute", "bucket"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
                raise UserError(f"{name} is {value!r}; expected 0 or more")
        if self.header not in HEADERS:
            raise UserError(f"header is {self.header!r}; expected one of {', '.join(HEADERS)}")
        self._holds = self.bucket or max(1.0, self.requests_per_minute / 60)
        self._tokens, self._at = self._holds, None

    def take(self, now: float) -> float:
        """Take a token. Returns 0, or the seconds until there is one."""
        if not self.requests_per_minute:
            return 0.0
        a_second = self.requests_per_minute / 60
        if self._at is not None:
            self._tokens = min(self._holds, self._tokens + a_second * (now - self._at))
        self._at = now
        if self._tokens >= 1:
            self._tokens -= 1
            return 0.0
        return (1 - self._tokens) / a_second

    def headers(self, wait: float) -> dict[str, str]:
        """Return the header of a refusal; `wait` is what `take` returned."""
        if self.header == "none":
            return {}
        if self.header == "retry-after-ms":
            return {self.header: str(math.ceil(1000 * wait))}
        # OpenAI and Anthropic send whole seconds.
        return {"Retry-After": str(math.ceil(wait))}


def parse_faults(given: str | Mapping[str, Any]) -> dict[str, float]:
    """Return the rates of `429=0.1,reset=0.05`, or of the same as a mapping. Raises UserError."""
    if isinstance(given, str):
        words = [word.partition("=") for word in given.split(",") if word.strip()]
        given = {kind.strip(): rate for kind, _, rate in words}
    rates = {}
    for kind, rate in given.items():
        if kind not in KINDS:
            raise UserError(f"unknown fault {kind!r}; known: {', '.join(KINDS)}")
        try:
            rates[kind] = float(rate)
        except (TypeError, ValueError):
            raise UserError(f"the rate of {kind} is {rate!r}; expected KIND=RATE with a number from 0 to 1") from None
        if not 0 <= rates[kind] <= 1:
            raise UserError(f"the rate of {kind} is {rate}; expected 0 to 1")
    # 1e-9: decimal rates are not exact in binary, and those that add up to 1 may exceed it.
    if math.fsum(rates.values()) > 1 + 1e-9:
        raise UserError(f"the rates of faults add up to {math.fsum(rates.values()):g}; expected at most 1")
    return rates


def draw_fault(rates: Mapping[str, float], seed: int, key: str, attempt: int) -> str | None:
    """Draw the fault of one request.

    Args:
        rates: of every kind of fault.
        seed: of the draw.
        key: of the request's body.
        attempt: how often this body has come, so that a repeated request may fare better.

    Returns:
        A kind, or None: no fault.
    """
    if not rates:
        return None
    digest = hashlib.blake2b(f"{seed}\x1f{key}\x1f{attempt}".encode(), digest_size=8).digest()
    draw = int.from_bytes(digest, "big") / 2**64
    # In the order of KINDS: the same rates draw the same faults, in whatever order they were given.
    for kind in KINDS:
        draw -= rates.get(kind, 0.0)
        if draw < 0:
            return kind
    return None


def key_of(body: Any) -> str:
    """Return the SHA-256 of the canonical JSON of a request's body."""
    text = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass
class RequestCount:
    """How often one request body came, how often it was answered in full, and what went wrong.

    `good` are the ids of the full answers that settle a request: those with words, and the refusals. `faults` cannot
    tell their number: a fault is counted when it is drawn, and an answer when it is sent, which a client that leaves
    meanwhile never sees.
    """

    requests: int = 0
    answered: int = 0
    faults: Counter = field(default_factory=Counter)
    good: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return {
            "requests": self.requests,
            "answered": self.answered,
            "faults": dict(self.faults),
            "good": list(self.good),
        }


class Counts:
    """Counts by the key of the body; a refusal and an empty answer are answers, and faults too."""

    def __init__(self) -> None:
        self.by_key: dict[str, RequestCount] = {}

    def of(self, key: str) -> RequestCount:
        """Return the count of a body, which may be new."""
        return self.by_key.setdefault(key, RequestCount())

    def to_json(self) -> dict[str, Any]:
        """Return the counts of all requests together and of each body."""
        total, bodies = RequestCount(), {}
        for key, count in self.by_key.items():
            total.requests += count.requests
            total.answered += count.answered
            total.faults.update(count.faults)
            total.good += count.good
            bodies[key] = count.to_json()
        return total.to_json() | {"bodies": bodies}
