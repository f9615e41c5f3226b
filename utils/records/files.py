"""Records in files: reading them back with every field checked, and writing rows."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from utils.errors import UserError, write_failure
from utils.provenance import move
from utils.records import Answer, Message, Record, RecordError, Verdict
from utils.records.lines import read_jsonl


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


def write_jsonl(path: Path, rows: Iterable[Any]) -> int:
    """Write rows (dicts or Records) beside `path` and rename; return how many."""
    path = Path(path)
    # Named by the process: two that write one file would else write into one another.
    partial, count = path.with_name(f".{path.name}.{os.getpid()}.partial"), 0
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("w", encoding="utf-8") as out:
            for count, row in enumerate(rows, start=1):  # noqa: B007 (it is returned)
                out.write(json.dumps(row.to_json() if isinstance(row, Record) else row, ensure_ascii=False) + "\n")
            # On the disk before the rename: after a power failure the name must not stand for an empty file.
            out.flush()
            os.fsync(out.fileno())
        move(partial, path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {write_failure(error)}", on_this_rank=True) from error
    finally:
        if path.parent.is_dir():
            partial.unlink(missing_ok=True)
    return count


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
    # A rating may be written 6 or 6.0. To isinstance True is an int, and NaN does not equal itself.
    accepted = {"str": str, "bool": bool, "int": int, "float": (int, float), "dict": dict}[kind]
    return isinstance(value, accepted) and isinstance(value, bool) == (kind == "bool") and value == value
