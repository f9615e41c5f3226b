"""Feedback as text, before any token: one prompt, its k answers, and what is known of them. Every producer writes this
schema (JSON Lines, docs/data.md) and every consumer reads it. Nothing here imports torch."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import MISSING, asdict, dataclass, field, fields
from itertools import chain
from pathlib import Path
from typing import Any

from utils.errors import UserError, write_failure
from utils.outputs import move

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
    text = json.dumps([[m.role, m.content.strip()] for m in prompt], ensure_ascii=False)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def record_from_json(row: Any, where: str) -> Record:
    """Return a checked Record from one parsed JSON object of the project's schema. Raises RecordError."""
    if not isinstance(row, dict):
        raise RecordError(f"{where}: found {type(row).__name__}; expected a JSON object")
    for unknown in row.keys() - {"id", "prompt", "answers", "verdicts", "meta"}:
        raise RecordError(f"{where}: unknown field {unknown!r}; known: id, prompt, answers, verdicts, meta")
    prompt = row.get("prompt")
    prompt = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    if not isinstance(prompt, list):
        raise RecordError(f"{where}: field 'prompt' is {str(prompt)[:60]!r}; expected text or a list of messages")
    for name, kind in (("answers", list), ("verdicts", list), ("meta", dict)):
        if not isinstance(row.get(name, kind()), kind):
            raise RecordError(f"{where}: field {name!r} is {str(row[name])[:60]!r}; expected a {kind.__name__}")
    messages = tuple(_build(Message, message, where) for message in prompt)
    answers = tuple(_build(Answer, answer, where) for answer in row.get("answers", []))
    verdicts = tuple(_build(Verdict, verdict, where) for verdict in row.get("verdicts", []))
    try:
        name = "" if row.get("id") is None else str(row["id"])
        return Record(messages, answers, verdicts, id=name, meta=row.get("meta", {}), where=where).check()
    except UnicodeEncodeError:
        raise RecordError(f"{where}: a text holds half of a character, a lone surrogate; mend it") from None


def read_records(path: Path) -> Iterator[Record]:
    """Return the checked records of a JSON Lines file."""
    return (record_from_json(row, where) for row, where in read_jsonl(path))


def read_jsonl(path: Path, on_bad: Callable[[RecordError], None] | None = None) -> Iterator[tuple[Any, str]]:
    """Yield (parsed row, "file:line") of JSON Lines, or of a JSON file holding one list or object; .gz is unpacked. A
    line that is not JSON goes to `on_bad` when that is given, and raises RecordError otherwise."""
    opened = gzip.open if Path(path).suffix == ".gz" else open
    try:
        with opened(path, "rt", encoding="utf-8-sig") as lines:  # a byte-order mark is no part of the text
            first = lines.readline()
            if first.lstrip().startswith("[") or first.strip() == "{":
                yield from _read_json_document(path, first + lines.read())
                return
            for number, line in enumerate(chain([first], lines), start=1):
                if line.strip():
                    yield from _parse(line, f"{path}:{number}", on_bad)
            if number == 1 and not first.strip():
                raise RecordError(f"{path}: the file is empty; expected one JSON object a line")
    except FileNotFoundError:
        raise RecordError(f"{path}: no such file") from None
    except (UnicodeDecodeError, EOFError, OSError, zlib.error) as error:
        raise RecordError(f"{path}: cannot be read as text: {error}") from error


def write_jsonl(path: Path, rows: Iterable[Any]) -> int:
    """Write rows (dicts or Records) beside `path` and rename; return how many."""
    path = Path(path)
    partial, count = path.with_name(f".{path.name}.{os.getpid()}.partial"), 0
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("w", encoding="utf-8") as out:
            for count, row in enumerate(rows, start=1):  # noqa: B007 (it is returned)
                out.write(json.dumps(row.to_json() if isinstance(row, Record) else row, ensure_ascii=False) + "\n")
            out.flush()
            os.fsync(out.fileno())
        move(partial, path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {write_failure(error)}", on_this_rank=True) from error
    finally:
        if path.parent.is_dir():
            partial.unlink(missing_ok=True)
    return count


def _parse(line: str, where: str, on_bad: Callable[[RecordError], None] | None) -> Iterator[tuple[Any, str]]:
    try:
        row = json.loads(line.rstrip(" \t\r\n"))  # past a line's end the decoder would count from column 1 again
    except json.JSONDecodeError as error:
        broken = RecordError(f"{where}: not JSON ({error.msg} at column {error.colno}): {line.strip()[:60]!r}")
        if on_bad is None:
            raise broken from None
        on_bad(broken)
    else:
        yield row, where


def _read_json_document(path: Path, text: str) -> Iterator[tuple[Any, str]]:
    try:
        rows = json.loads(text.rstrip(" \t\r\n"))
    except json.JSONDecodeError as error:
        raise RecordError(f"{path}:{error.lineno}: not JSON: {error.msg} at column {error.colno}") from None
    for number, row in enumerate(rows if isinstance(rows, list) else [rows], start=1):
        yield row, f"{path}[{number}]"


def _build(kind: type, row: Any, where: str) -> Any:
    name = kind.__name__.lower()
    if kind is Answer and isinstance(row, str):
        return Answer(row)
    if not isinstance(row, dict):
        raise RecordError(f"{where}: found {row!r}; expected an object with the fields of {name}")
    known = {each.name: each for each in fields(kind)}
    for unknown in row.keys() - known.keys():
        raise RecordError(f"{where}: unknown field {unknown!r} of {name}; known: {', '.join(known)}")
    for field_name, each in known.items():
        if field_name not in row and each.default is each.default_factory is MISSING:
            raise RecordError(f"{where}: {name} has no field {field_name!r}")
        if field_name in row and kind is not Message and not _is_a(each.type, row[field_name]):  # check() sees to those
            found = f"{name} field {field_name!r} is {str(row[field_name])[:60]!r}"
            raise RecordError(f"{where}: {found}; expected {each.type}")
    return kind(**row)


def _is_a(annotation: str, value: Any) -> bool:
    """Return whether a JSON value has a field's type. A bool is no number, and NaN is nothing."""
    if value is None:
        return annotation.endswith("None")
    kind = annotation.split("[")[0].split(" ")[0]
    accepted = {"str": str, "bool": bool, "int": int, "float": (int, float), "dict": dict}[kind]
    return isinstance(value, accepted) and isinstance(value, bool) == (kind == "bool") and value == value


def _set_fields(item: Any) -> dict[str, Any]:
    values = ((each.name, getattr(item, each.name), each.default) for each in fields(item))
    return {name: value for name, value, default in values if value not in (default, {})}
