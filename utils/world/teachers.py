"""Two teachers who speak the same language: the strong one guides, the weak one tells, errs and rambles."""

from __future__ import annotations

import random

from utils.world import language
from utils.world.exchanges import ARITHMETIC, FACTUAL, Exchange, Problem

EXPECTED = {"right": "confirm", "wrong": "reject", "partial": "partly", "open": "open", "off": "redirect"}
SLIP_RATE = 0.1  # of the strong teacher
FLAWS = ("evaluation", "hint", "question")


def phrases(kind: str, exchange: Exchange) -> list[str]:
    """Every sentence of a kind that can be said in this exchange."""
    problem = exchange.problem
    if kind in ("hint", "check"):
        return list(problem.hints if kind == "hint" else problem.checks)
    slots = {"topic": problem.topic, "answer": problem.answer, "claim": exchange.claim}
    said = [text for text in language.TUTOR[kind] if exchange.claim is not None or "{claim}" not in text]
    return [_capitalised(text.format(**slots)) for text in said]


def _capitalised(text: str) -> str:
    return text[0].upper() + text[1:]


def strong(exchange: Exchange, rng: random.Random) -> str:
    """Evaluates rightly, hints truly, hands the ball back and does not tell; slips in one answer of ten."""
    flaw = rng.choice(FLAWS) if rng.random() < SLIP_RATE else None
    right = exchange.state == "right"
    kinds = [_misjudged(exchange, rng) if flaw == "evaluation" else EXPECTED[exchange.state]]
    kinds += ["praise"] if rng.random() < 0.5 else []
    kinds += ["generic" if flaw == "hint" else "check" if right else "hint"]
    kinds += [] if flaw == "question" else ["explain" if right else "again"]
    return _say(kinds, exchange, rng)


def weak(exchange: Exchange, rng: random.Random) -> str:
    """Often tells the answer, misjudges, hints at another problem, is curt or rambles."""
    expected = EXPECTED[exchange.state]
    kinds = [_misjudged(exchange, rng) if rng.random() < 0.1 else expected]
    if kinds[0] in ("confirm", "reject") and rng.random() < 0.4:
        kinds[0] = f"curt_{kinds[0]}"
    kinds += ["rude"] if rng.random() < 0.15 else []
    kinds += rng.sample(["filler", "filler"], rng.choice((0, 0, 0, 1, 2)))
    kinds += rng.choices([["tell"], ["stray"], ["generic"], ["hint"], []], (45, 20, 15, 10, 10))[0]
    kinds += [rng.choice(("again", "explain"))] if rng.random() < 0.3 else []
    return _say(kinds, exchange, rng)


def _misjudged(exchange: Exchange, rng: random.Random) -> str:
    return rng.choice([kind for kind in ("confirm", "reject") if kind != EXPECTED[exchange.state]])


def _say(kinds: list[str], exchange: Exchange, rng: random.Random) -> str:
    """One sentence of each kind; `stray` is a hint at another problem of the same sort."""
    said: list[str] = []
    for kind in kinds:
        if kind == "stray":
            other = _another(exchange.problem, rng)
            choices = list(other.hints)
        else:
            choices = phrases(kind, exchange)
        said.append(rng.choice([text for text in choices if text not in said] or choices))
    return " ".join(said)


def _another(problem: Problem, rng: random.Random) -> Problem:
    while True:
        other = rng.choice(ARITHMETIC if problem in ARITHMETIC else FACTUAL)
        if other != problem:
            return other


TEACHERS = {"strong": strong, "weak": weak}
