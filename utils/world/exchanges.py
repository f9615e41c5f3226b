"""A student's turn: drawn at random, written as messages, and read back from messages."""

from __future__ import annotations

import functools
import random
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from utils.errors import UserError
from utils.world import language


class Turn(NamedTuple):
    """One message. Wherever turns are read, any object with these two attributes will do (records.Message does)."""

    role: str
    content: str


class HasTurn(Protocol):
    role: str
    content: str


@dataclass(frozen=True)
class Problem:
    """`topic` names it in a sentence; hints and checks are sentences that are true of it and do not name the answer."""

    kind: str  # sum | difference | product | number | word
    topic: str
    answer: str
    wrong: tuple[str, ...]
    hints: tuple[str, ...]
    checks: tuple[str, ...]


@dataclass(frozen=True)
class Exchange:
    """What the tutor must answer: the problem, and the student's turn in one of language.STATES.

    `claim` is the answer that the student offers (right and wrong only).
    """

    problem: Problem
    state: str
    claim: str | None = None


def mentions(text: str, word: str) -> bool:
    """Does `word` occur in `text` as a whole word, in any case?"""
    return re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text, re.IGNORECASE) is not None


def _arithmetic(kind: str, symbol: str, a: int, b: int) -> Problem:
    answer = {"+": a + b, "-": a - b, "x": a * b}[symbol]
    big, small = max(a, b), min(a, b)
    slots = {"a": a, "b": b, "big": big, "small": small, "double": 2 * small}
    slots |= {"fewer": a - 1, "less": (a - 1) * b}
    usable = {1: 0 < big - small <= 2}  # hints of a sum that not every sum allows
    hints = [h.format(**slots) for i, h in enumerate(language.HINTS[kind]) if kind != "sum" or usable.get(i, True)]
    wrong = (str(answer + 1), str(answer - 1))
    checks = [check.format(**slots) for check in language.CHECKS[kind]]
    return Problem(kind, f"{a} {symbol} {b}", str(answer), wrong, tuple(hints), tuple(checks))


def _fact(topic: str) -> Problem:
    answer, wrong, *clues = language.FACTS[topic]
    kind = "number" if answer.isdigit() else "word"
    hints = [*clues, *(hint.format(**_around(answer)) for hint in language.HINTS[kind])]
    return Problem(kind, topic, answer, tuple(wrong.split(", ")), tuple(hints), language.CHECKS[kind])


def _around(answer: str) -> dict[str, object]:
    """What can be said of an answer without naming it."""
    if answer.isdigit():
        return {"low": int(answer) - 2, "high": int(answer) + 3}
    return {"letter": answer[0].upper(), "length": len(answer)}


def _all_problems() -> Iterator[Problem]:
    digits = range(2, 5)
    for a in digits:
        for b in digits:
            yield _arithmetic("sum", "+", a, b)
            yield _arithmetic("product", "x", a, b)
            if a != b:  # 8 - 4 is 4: the answer would stand in every hint
                yield _arithmetic("difference", "-", a + b, b)
    yield from map(_fact, language.FACTS)


PROBLEMS = {problem.topic: problem for problem in _all_problems()}
ARITHMETIC = tuple(p for p in PROBLEMS.values() if p.kind in ("sum", "difference", "product"))
FACTUAL = tuple(p for p in PROBLEMS.values() if p.kind in ("number", "word"))


def draw_exchange(rng: random.Random) -> Exchange:
    """A random student: half of them offer an answer that is wrong or right."""
    problem = rng.choice(ARITHMETIC if rng.random() < 0.5 else FACTUAL)
    state = rng.choices(language.STATES, (28, 37, 10, 18, 7))[0]
    claims = {"right": (problem.answer,), "wrong": problem.wrong}.get(state)
    return Exchange(problem, state, rng.choice(claims) if claims else None)


def write_prompt(exchange: Exchange, rng: random.Random) -> tuple[Turn, ...]:
    """The student's turn in words: with a system message in one of three, over two rounds in one of four."""
    topic = exchange.problem.topic
    for symbol, word in language.SYMBOL_WORDS.items():
        if rng.random() < 0.3:
            topic = topic.replace(f" {symbol} ", f" {word} ")
    greeting = rng.choice(language.STUDENT["greeting"]) + " " if rng.random() < 0.5 else ""
    ask = greeting + rng.choice(language.STUDENT["ask"]).format(topic=topic)
    move = write_move(exchange, rng)
    system = (Turn("system", rng.choice(language.STUDENT["system"])),) if rng.random() < 1 / 3 else ()
    if rng.random() < 1 / 4:
        return (
            *system,
            Turn("user", ask),
            Turn("assistant", rng.choice(language.STUDENT["opener"])),
            Turn("user", move),
        )
    return (*system, Turn("user", f"{ask} {move}"))


def write_move(exchange: Exchange, rng: random.Random) -> str:
    """What the student says to the task."""
    if exchange.claim is not None:
        return rng.choice(language.STUDENT["claim"]).format(claim=exchange.claim)
    if exchange.state != "partial":
        return rng.choice(language.STUDENT[exchange.state])
    answer = exchange.problem.answer
    return rng.choice(language.STUDENT["partial_number" if answer.isdigit() else "partial_word"]).format(
        **_around(answer)
    )


def cut(text: str) -> list[str]:
    """The sentences of a text, with single spaces; the last may lack its full stop."""
    return [" ".join(part.split()) for part in re.findall(r"[^.?!]+[.?!]*", text) if part.strip()]


def sentences(text: str) -> list[str]:
    """The same in lower case."""
    return cut(text.lower())


def read_prompt(turns: Iterable[HasTurn], where: str = "") -> Exchange:
    """The exchange that a prompt tells of, from its words alone. Raises UserError for a prompt of another world."""
    said = " ".join(turn.content for turn in turns if turn.role == "user")
    problem = _find_problem(said)
    if problem is None:
        raise UserError(
            f"{where + ': ' if where else ''}the prompt names no problem of the tutor's world: {said[:60]!r}; "
            "the oracle reads prompts that data_collect/make_world.py wrote"
        )
    state, claim = _find_move(said, problem)
    return Exchange(problem, state, claim)


def _find_problem(said: str) -> Problem | None:
    for symbol, word in language.SYMBOL_WORDS.items():
        said = said.replace(f" {word} ", f" {symbol} ")
    for topic in (*re.findall(r"\d+ [+x-] \d+", said), *(topic for topic in language.FACTS if mentions(said, topic))):
        if topic in PROBLEMS:
            return PROBLEMS[topic]
    return None


def _find_move(said: str, problem: Problem) -> tuple[str, str | None]:
    """The student's last sentence that is a move: (state, claim)."""
    for sentence in reversed(sentences(said)):
        for pattern in _claim_patterns():
            claim = pattern.fullmatch(sentence)
            if claim:
                right = claim[1] == problem.answer.lower()
                names = {name.lower(): name for name in (problem.answer, *problem.wrong)}
                return ("right" if right else "wrong"), names.get(claim[1], claim[1])
        if re.search(r"\b(more than|less than|starts with)\b", sentence):
            return "partial", None
        if sentence in _helpless():
            return "open", None
    return "off", None


@functools.cache
def _helpless() -> frozenset[str]:
    return frozenset(phrase.lower() for phrase in language.STUDENT["open"])


@functools.cache
def _claim_patterns() -> tuple[re.Pattern, ...]:
    return tuple(re.compile(re.escape(c.lower()).replace(r"\{claim\}", r"(\w+)")) for c in language.STUDENT["claim"])
