"""What requests will cost before they are sent: a likely amount, and the most that it can be."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass

from utils.llm.asking.limits import RateLimits
from utils.llm.ledger import Ledger, Question
from utils.llm.providers import Provider

# Tokens of a usual reply by its parser, and of the thinking before it: guesses, which take the place of what the
# ledger has counted where it has counted nothing. Prompts are taken at four bytes a token.
USUAL, OTHERS, THOUGHT = {"rating": 10, "preference": 10, "order": 15, "explain": 10, "conversation": 2000}, 250, 600
BYTES_PER_TOKEN = 4


@dataclass
class CostEstimate:
    """Tokens and money of some requests.

    Args:
        requests: how many.
        input_tokens: an upper bound of the prompts' tokens.
        output_tokens: an upper bound of the replies' tokens; None where a reply has no known limit.
        likely_usd: what they will probably cost; None where a price is not known.
        most_usd: the most that they can cost; None where a price or a limit is not known.
    """

    requests: int = 0
    input_tokens: int = 0
    output_tokens: int | None = 0
    likely_usd: float | None = 0.0
    most_usd: float | None = 0.0

    def __str__(self) -> str:
        out = "an unlimited number of"
        if self.output_tokens is not None:
            out = f"at most {self.output_tokens:,}"
        tokens = f"at most {self.input_tokens:,} tokens in and {out} out"
        if self.likely_usd is None:
            return f"{tokens}; cost unknown: give --price IN,OUT, or a file of prices with --prices"
        likely = f"likely {dollars(self.likely_usd)}"
        if self.most_usd is None:
            return f"{tokens}; {likely}, without a bound: give --max_tokens or --max_usd for one"
        return f"{tokens}; at most {dollars(self.most_usd)}, {likely}"


def dollars(usd: float | None) -> str:
    """Return an amount for people, with two significant digits below a dollar; None is an unknown price."""
    if usd is None:
        return "at an unknown price"
    if usd >= 1 or not usd:
        return f"${usd:.2f}"
    return f"${usd:.2g}"


def estimate(
    questions: Iterable[Question], ledger: Ledger, provider: Provider, limits: RateLimits
) -> CostEstimate:  # fmt: skip
    """Return what the requests of some questions will cost.

    Args:
        questions: one for each request.
        ledger: its earlier replies tell how long a reply usually is.
        provider: knows prices, and the longest replies.
        limits: may hold other prices.
    """
    found, usual = CostEstimate(), {}
    for question in questions:
        request, parser = question.request, question.parser
        found.requests += 1
        price, longest = limits.price_of(request.model, provider), request.most_output_tokens
        if longest is None:
            longest = provider.longest_reply(request.model)
        if (request.model, parser) not in usual:
            with ledger.store.reading() as db:
                usual[request.model, parser] = _usual_reply(db, request.model, parser)
        likely = usual[request.model, parser]
        if likely is None:
            likely = USUAL.get(parser, OTHERS) + THOUGHT * provider.thinks(request)
        found.input_tokens += request.most_input_tokens
        if longest is None:
            found.output_tokens = found.most_usd = None
        elif found.output_tokens is not None:
            found.output_tokens += longest
        if price is None:
            found.likely_usd = found.most_usd = None
        if found.likely_usd is not None:
            found.likely_usd += price.of(request.most_input_tokens // BYTES_PER_TOKEN, min(likely, longest or likely))
        if found.most_usd is not None:
            found.most_usd += price.of(request.most_input_tokens, longest)
    return found


def _usual_reply(db: sqlite3.Connection, model: str, parser: str) -> float | None:
    """Return the mean number of tokens of the model's latest replies to such questions, or None."""
    (mean,) = db.execute(
        "SELECT avg(output_tokens) FROM (SELECT output_tokens FROM attempts JOIN requests USING (key) JOIN questions"
        " USING (key) WHERE model = ? AND parser = ? AND output_tokens IS NOT NULL ORDER BY id DESC LIMIT 1000)",
        (model, parser),
    ).fetchone()
    return mean
