"""Feedback as text, before any token: one prompt, its k answers, and what is known of them. Every producer writes this
schema (JSON Lines, docs/data.md) and every consumer reads it. Nothing here imports torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from utils.errors import UserError

LIKELIHOODS = ("nll_per_token", "perplexity")  # scores of an answer that are no rewards
ROLES, PREFERENCES = ("system", "user", "assistant"), ("a", "b", "tie", "refused", "failed")


class RecordError(UserError):
    """A row that the schema does not allow."""


@dataclass(frozen=True)
class Message:
    role: str  # system | user | assistant
    content: str


@dataclass(frozen=True)
class Answer:
    """One answer and everything known of it. `finished` is False for an answer that was cut by a length limit."""

    text: str
    model: str | None = None
    sampling: dict[str, Any] | None = None
    finished: bool = True
    rating: float | None = None
    rank: int | None = None  # 1 is the best
    thumb: bool | None = None
    critique: str | None = None
    refinement: str | None = None
    scores: dict[str, float] = field(default_factory=dict)  # scorer's name -> score


@dataclass(frozen=True)
class Verdict:
    """A comparison of answers[a] with answers[b]: preferred is a | b | tie | refused | failed."""

    a: int
    b: int
    preferred: str
    judge: str | None = None
    order: str | None = None  # "ab" or "ba": which the judge saw first


@dataclass(frozen=True)
class Record:
    """A prompt (messages, the last from the user) and its answers. `where` is file:line, for error messages."""

    prompt: tuple[Message, ...]
    answers: tuple[Answer, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    id: str = ""
    meta: dict[str, Any] = field(default_factory=dict)
    where: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        # Made of the content where a row has none: answers and feedback in several files are matched by it.
        # A frozen dataclass lets its own fields be set in this way alone.
        object.__setattr__(self, "id", self.id or content_id(self.prompt, self.answers))

    def check(self) -> Record:
        """Return self, or raise RecordError naming `where`, what was found and what was expected."""
        at = f"{self.where}: " if self.where else ""
        if not self.prompt:
            raise RecordError(f"{at}prompt has no messages; expected at least one from the user")
        for number, message in enumerate(self.prompt, start=1):
            if message.role not in ROLES:
                raise RecordError(f"{at}message {number} has role {message.role!r}; expected one of {', '.join(ROLES)}")
            if not isinstance(message.content, str):
                raise RecordError(f"{at}message {number} has content {message.content!r}; expected text")
        if self.prompt[-1].role != "user":
            raise RecordError(f"{at}the prompt's last message is the {self.prompt[-1].role}'s; expected the user's")
        if not any(message.content.strip() for message in self.prompt):
            raise RecordError(f"{at}prompt is empty; expected text")
        for verdict in self.verdicts if isinstance(self.verdicts, tuple) else ():  # RatingVerdicts are right, and many
            if verdict.preferred not in PREFERENCES:
                raise RecordError(f"{at}verdict is {verdict.preferred!r}; expected one of {', '.join(PREFERENCES)}")
            if len({verdict.a, verdict.b} & set(range(len(self.answers)))) < 2:
                found = f"{at}verdict compares answers {verdict.a} and {verdict.b}"
                raise RecordError(f"{found}; expected two different numbers from 0 to {len(self.answers) - 1}")
        return self

    def pairs(self) -> list[tuple[int, int]]:
        """Return (winner, loser) indices of every decided verdict whose texts differ."""
        found = []
        for verdict in self.verdicts:
            # Ties, refusals and failures decide nothing.
            ends = {"a": (verdict.a, verdict.b), "b": (verdict.b, verdict.a)}.get(verdict.preferred)
            if ends and self.answers[verdict.a].text != self.answers[verdict.b].text:
                found.append(ends)
        return found

    def to_json(self) -> dict[str, Any]:
        """Return the row as written: fields at their default are left out."""
        prompt, answers = list(map(asdict, self.prompt)), list(map(_set_fields, self.answers))
        rest = {"verdicts": list(map(_set_fields, self.verdicts)), "meta": self.meta}
        rest = {name: value for name, value in rest.items() if value}
        return {"id": self.id, "prompt": prompt, "answers": answers, **rest}


def comparison(prompt: Iterable[Message], chosen: str, rejected: str, **rest: Any) -> Record:
    """Return the most common record: two answers, the first preferred. `rest` are further fields of the record."""
    return Record(tuple(prompt), (Answer(chosen), Answer(rejected)), (Verdict(0, 1, "a"),), **rest)


def content_id(prompt: Iterable[Message], answers: Iterable[Answer]) -> str:
    """Return the id of a record that was given none: a hash of its prompt and answers."""
    text = json.dumps([[m.role, m.content] for m in prompt] + [a.text for a in answers], ensure_ascii=False)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def prompt_hash(prompt: Iterable[Message]) -> int:
    """Return a 64-bit hash of the prompt alone: --data_split divides by it, so that no prompt is in two slices."""
    # Stripped, as templates strip contents: prompts that differ in outer white space alone are one to the model.
    text = json.dumps([[m.role, m.content.strip()] for m in prompt], ensure_ascii=False)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def _set_fields(item: Any) -> dict[str, Any]:
    # {} is the default of `scores`, which has a factory and so no `default`.
    values = ((each.name, getattr(item, each.name), each.default) for each in fields(item))
    return {name: value for name, value, default in values if value not in (default, {})}
