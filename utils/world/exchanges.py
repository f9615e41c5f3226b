"""Student's turns: drawn at random, written as messages, and read back from messages."""

from __future__ import annotations

import functools
import itertools
import random
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from utils.errors import UserError
from utils.world import language


class Turn(NamedTuple):
    """One message. Functions that read turns take any object with these two attributes (records.Message has them)."""

    role: str
    content: str


class HasTurn(Protocol):
    """What can be read as a turn."""

    role: str
    content: str


@dataclass(frozen=True)
class Problem:
    """A problem of the world."""

    kind: str  # sum | difference | product | number | word
    topic: str  # names it in a sentence
    answer: str
    wrong: tuple[str, ...]
    hints: tuple[str, ...]  # sentences that are true of it and do not name the answer
    checks: tuple[str, ...]  # the same: ways to check an answer


@dataclass(frozen=True)
class Exchange:
    """What the tutor must answer: the problem, and the student's turn in one of language.STATES.

    `claim` is the answer that the student offers (right and wrong only).
    """

    problem: Problem
    state: str
    claim: str | None = None


def mentions(text: str, word: str) -> bool:
    """Return whether `word` occurs in `text` as a whole word, in any case."""
    return re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text, re.IGNORECASE) is not None


def _arithmetic(kind: str, symbol: str, a: int, b: int) -> Problem:
    answer = {"+": a + b, "-": a - b, "x": a * b}[symbol]
    big, small = max(a, b), min(a, b)
    slots = {"a": a, "b": b, "big": big, "small": small, "double": 2 * small}
    slots |= {"fewer": a - 1, "less": (a - 1) * b}
    hints = list(language.HINTS[kind])
    if kind == "sum" and not 0 < big - small <= 2:
        # "Use the double" helps only where the two numbers are neighbours.
        del hints[1]
    return Problem(
        kind=kind,
        topic=f"{a} {symbol} {b}",
        answer=str(answer),
        wrong=(str(answer + 1), str(answer - 1)),
        hints=tuple(hint.format(**slots) for hint in hints),
        checks=tuple(check.format(**slots) for check in language.CHECKS[kind]),
    )


def _fact(topic: str) -> Problem:
    answer, wrong, *clues = language.FACTS[topic]
    kind = "number" if answer.isdigit() else "word"
    general = [hint.format(**_around(answer)) for hint in language.HINTS[kind]]
    return Problem(
        kind=kind,
        topic=topic,
        answer=answer,
        wrong=tuple(wrong.split(", ")),
        hints=(*clues, *general),
        checks=language.CHECKS[kind],
    )


def _around(answer: str) -> dict[str, object]:
    """Return what can be said of an answer without naming it, to fill in hints."""
    if answer.isdigit():
        return {"low": int(answer) - 2, "high": int(answer) + 3}
    return {"letter": answer[0].upper(), "length": len(answer)}


def _all_problems() -> Iterator[Problem]:
    # 0 and 1 need no tutor, and with larger numbers a model of a few million parameters would learn little else.
    for a, b in itertools.product(range(2, 5), repeat=2):
        yield _arithmetic("sum", "+", a=a, b=b)
        yield _arithmetic("product", "x", a=a, b=b)
        # 8 - 4 is 4: the answer would be in every hint.
        if a != b:
            yield _arithmetic("difference", "-", a=a + b, b=b)
    yield from map(_fact, language.FACTS)


PROBLEMS = {problem.topic: problem for problem in _all_problems()}
ARITHMETIC = tuple(problem for problem in PROBLEMS.values() if problem.topic not in language.FACTS)
FACTUAL = tuple(PROBLEMS[topic] for topic in language.FACTS)


def draw_exchange(rng: random.Random) -> Exchange:
    """Draw a random student. Two of three offer an answer, most of them a wrong one."""
    problem = rng.choice(ARITHMETIC if rng.random() < 0.5 else FACTUAL)
    (state,) = rng.choices(language.STATES, (28, 37, 10, 18, 7))
    claim = None
    if state == "right":
        # A choice of one: the generator moves on as it does for a wrong claim.
        claim = rng.choice((problem.answer,))
    elif state == "wrong":
        claim = rng.choice(problem.wrong)
    return Exchange(problem, state, claim)


def write_prompt(exchange: Exchange, rng: random.Random) -> tuple[Turn, ...]:
    """Write the student's turn: with a system message in one of three, over two rounds in one of four."""
    topic = exchange.problem.topic
    for symbol, word in language.SYMBOL_WORDS.items():
        if rng.random() < 0.3:
            topic = topic.replace(f" {symbol} ", f" {word} ")
    ask = ""
    if rng.random() < 0.5:
        ask = rng.choice(language.STUDENT["greeting"]) + " "
    ask += rng.choice(language.STUDENT["ask"]).format(topic=topic)
    move = write_move(exchange, rng)
    turns = []
    if rng.random() < 1 / 3:
        turns.append(Turn("system", rng.choice(language.STUDENT["system"])))
    if rng.random() < 1 / 4:
        opener = rng.choice(language.STUDENT["opener"])
        return (*turns, Turn("user", ask), Turn("assistant", opener), Turn("user", move))
    return (*turns, Turn("user", f"{ask} {move}"))


def write_move(exchange: Exchange, rng: random.Random) -> str:
    """Write what the student says about the problem."""
    if exchange.claim is not None:
        return rng.choice(language.STUDENT["claim"]).format(claim=exchange.claim)
    if exchange.state != "partial":
        return rng.choice(language.STUDENT[exchange.state])
    answer = exchange.problem.answer
    kind = "partial_number" if answer.isdigit() else "partial_word"
    return rng.choice(language.STUDENT[kind]).format(**_around(answer))


def cut(text: str) -> list[str]:
    """Return the sentences of a text, with single spaces; the last may lack its full stop."""
    return [" ".join(part.split()) for part in re.findall(r"[^.?!]+[.?!]*", text) if part.strip()]


def sentences(text: str) -> list[str]:
    """Return the sentences of a text in lower case."""
    return cut(text.lower())


def read_prompt(turns: Iterable[HasTurn], where: str = "") -> Exchange:
    """Return the exchange that a prompt tells of, from its words alone. Raises UserError for a prompt of another
    world."""
    said = " ".join(turn.content for turn in turns if turn.role == "user")
    problem = _find_problem(said)
    if problem is None:
        at = f"{where}: " if where else ""
        raise UserError(
            f"{at}the prompt names no problem of the tutor's world: {said[:60]!r}; "
            "the oracle reads prompts that data_collect/make_world.py wrote"
        )
    state, claim = _find_move(said, problem)
    return Exchange(problem, state, claim)


def _find_problem(said: str) -> Problem | None:
    # A prompt may write 3 plus 4.
    for symbol, word in language.SYMBOL_WORDS.items():
        said = said.replace(f" {word} ", f" {symbol} ")
    for topic in re.findall(r"\d+ [+x-] \d+", said):
        if topic in PROBLEMS:
            return PROBLEMS[topic]
    for topic in language.FACTS:
        if mentions(said, topic):
            return PROBLEMS[topic]
    return None


def _find_move(said: str, problem: Problem) -> tuple[str, str | None]:
    """Return (state, claim) of the student's last sentence that is a move."""
    for sentence in reversed(sentences(said)):
        for pattern in _claim_patterns():
            found = pattern.fullmatch(sentence)
            if found:
                return _read_claim(found[1], problem)
        if re.search(r"\b(more than|less than|starts with)\b", sentence):
            return "partial", None
        if sentence in _helpless():
            return "open", None
    return "off", None


def _read_claim(claim: str, problem: Problem) -> tuple[str, str]:
    """Return whether a claim in lower case is right, and the claim as the problem spells it."""
    if claim == problem.answer.lower():
        return "right", problem.answer
    for wrong in problem.wrong:
        if claim == wrong.lower():
            return "wrong", wrong
    return "wrong", claim


@functools.cache
def _helpless() -> frozenset[str]:
    return frozenset(map(str.lower, language.STUDENT["open"]))


@functools.cache
def _claim_patterns() -> list[re.Pattern]:
    patterns = []
    for sentence in language.STUDENT["claim"]:
        pattern = re.escape(sentence.lower()).replace(r"\{claim\}", r"(\w+)")
        patterns.append(re.compile(pattern))
    return patterns
