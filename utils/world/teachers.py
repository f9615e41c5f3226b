"""Two teachers who speak the same language: the strong one guides, the weak one tells, errs and rambles."""

from __future__ import annotations

import random

from utils.world import language
from utils.world.exchanges import ARITHMETIC, FACTUAL, Exchange, Problem

EXPECTED = {"right": "confirm", "wrong": "reject", "partial": "partly", "open": "open", "off": "redirect"}
SLIP_RATE = 0.1  # of the strong teacher
FLAWS = ("evaluation", "hint", "question")


def phrases(kind: str, exchange: Exchange) -> list[str]:
    """Return every sentence of a kind that can be said in this exchange."""
    problem = exchange.problem
    if kind == "hint":
        return list(problem.hints)
    if kind == "check":
        return list(problem.checks)
    slots = {"topic": problem.topic, "answer": problem.answer, "claim": exchange.claim}
    said = []
    for form in language.TUTOR[kind]:
        if exchange.claim is None and "{claim}" in form:
            continue  # nothing was claimed
        text = form.format(**slots)
        said.append(text[0].upper() + text[1:])
    return said


def strong(exchange: Exchange, rng: random.Random) -> str:
    """Answer as a good tutor: evaluate rightly, hint truly, ask a question and do not tell; slip in one answer of
    ten."""
    flaw = None
    if rng.random() < SLIP_RATE:
        flaw = rng.choice(FLAWS)
    help_kind, question = ("check", "explain") if exchange.state == "right" else ("hint", "again")
    kinds = [EXPECTED[exchange.state]]
    if flaw == "evaluation":
        kinds = [_misjudged(exchange, rng)]
    if rng.random() < 0.5:
        kinds.append("praise")
    kinds.append("generic" if flaw == "hint" else help_kind)
    # An answer that ends without a question leaves the student with nothing to do.
    if flaw != "question":
        kinds.append(question)
    return _say(kinds, exchange, rng)


def weak(exchange: Exchange, rng: random.Random) -> str:
    """Answer as a poor tutor: often tell the answer, misjudge, hint at another problem, be curt or ramble."""
    evaluation = EXPECTED[exchange.state]
    if rng.random() < 0.1:
        evaluation = _misjudged(exchange, rng)
    if evaluation in ("confirm", "reject") and rng.random() < 0.4:
        evaluation = f"curt_{evaluation}"
    kinds = [evaluation]
    if rng.random() < 0.15:
        kinds.append("rude")
    kinds += rng.sample(["filler", "filler"], rng.choice((0, 0, 0, 1, 2)))
    (body,) = rng.choices([["tell"], ["stray"], ["generic"], ["hint"], []], (45, 20, 15, 10, 10))
    kinds += body
    if rng.random() < 0.3:
        kinds.append(rng.choice(("again", "explain")))
    return _say(kinds, exchange, rng)


def _misjudged(exchange: Exchange, rng: random.Random) -> str:
    return rng.choice([kind for kind in ("confirm", "reject") if kind != EXPECTED[exchange.state]])


def _say(kinds: list[str], exchange: Exchange, rng: random.Random) -> str:
    """Return one sentence of each kind; `stray` is a hint at another problem of the same sort."""
    said: list[str] = []
    for kind in kinds:
        if kind == "stray":
            choices = _another(exchange.problem, rng).hints
        else:
            choices = phrases(kind, exchange)
        new = [text for text in choices if text not in said]  # of two fillers the second says something else
        said.append(rng.choice(new or choices))
    return " ".join(said)


def _another(problem: Problem, rng: random.Random) -> Problem:
    alike = ARITHMETIC if problem in ARITHMETIC else FACTUAL
    while True:
        other = rng.choice(alike)
        if other != problem:
            return other


TEACHERS = {"strong": strong, "weak": weak}
