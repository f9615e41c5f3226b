"""What goes wrong, drawn reproducibly, and counts of what came in."""

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
    """`429=0.1,reset=0.05`, or the same as a mapping -> rates. Raises UserError."""
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
    if math.fsum(rates.values()) > 1 + 1e-9:
        raise UserError(f"the rates of faults add up to {math.fsum(rates.values()):g}; expected at most 1")
    return rates


def draw_fault(rates: Mapping[str, float], seed: int, key: str, attempt: int) -> str | None:
    """The fault of one request, or None: it depends on the seed, the request's key and the number of the attempt."""
    if not rates:
        return None
    digest = hashlib.blake2b(f"{seed}\x1f{key}\x1f{attempt}".encode(), digest_size=8).digest()
    draw = int.from_bytes(digest, "big") / 2**64
    for kind in KINDS:  # the order of KINDS, not of the rates given
        draw -= rates.get(kind, 0.0)
        if draw < 0:
            return kind
    return None


def key_of(body: Any) -> str:
    """SHA-256 of the canonical JSON of a request's body."""
    text = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass
class Tally:
    """Of one request body: how often it came, how often it was answered in full, and what went wrong."""

    requests: int = 0
    answered: int = 0
    faults: Counter = field(default_factory=Counter)

    def to_json(self) -> dict[str, Any]:
        return {"requests": self.requests, "answered": self.answered, "faults": dict(self.faults)}


class Counts:
    """Tallies by the key of the body; a refusal and an empty answer are answers, and faults too."""

    def __init__(self) -> None:
        self.tallies: dict[str, Tally] = {}

    def of(self, key: str) -> Tally:
        return self.tallies.setdefault(key, Tally())

    def to_json(self) -> dict[str, Any]:
        total = Tally()
        for tally in self.tallies.values():
            total.requests += tally.requests
            total.answered += tally.answered
            total.faults.update(tally.faults)
        return total.to_json() | {"bodies": {key: tally.to_json() for key, tally in self.tallies.items()}}
