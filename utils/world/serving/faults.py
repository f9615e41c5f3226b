"""Faults that a server has on purpose, drawn reproducibly, and counts of its requests."""

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
    """How often one request body came, how often it was answered in full, and what went wrong."""

    requests: int = 0
    answered: int = 0
    faults: Counter = field(default_factory=Counter)

    def to_json(self) -> dict[str, Any]:
        return {"requests": self.requests, "answered": self.answered, "faults": dict(self.faults)}


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
            bodies[key] = count.to_json()
        return total.to_json() | {"bodies": bodies}
