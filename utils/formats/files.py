"""Files that hold rows: JSON Lines, one JSON value, CSV. Each is written beside its place and renamed."""

from __future__ import annotations

import contextlib
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from utils.errors import UserError, write_failure
from utils.provenance import move
from utils.raw_datasets.instructions import MISSING
from utils.records import RecordError

# A lone carriage return is quoted, though pandas does not: it would end the line when pandas reads it.
SPECIAL = ',"\n\r'


class File(ABC):
    """A way to write rows."""

    suffix = ".json"

    @abstractmethod
    def write(self, out: TextIO, rows: Iterable[Any]) -> None:
        """Write the rows."""

    def check(self, row: Any, where: str) -> None:  # noqa: B027 (most files hold every row)
        """Refuse a row that the file cannot hold. Raises RecordError."""


class JsonLines(File):
    """One JSON value a line."""

    suffix = ".jsonl"

    def write(self, out, rows):
        for row in rows:
            out.write(json.dumps(row, ensure_ascii=False) + "\n")


class JsonList(File):
    """One JSON list, a row to a line."""

    def write(self, out, rows):
        separator = "[\n "
        for row in rows:
            out.write(separator + json.dumps(row, ensure_ascii=False))
            separator = ",\n "
        if separator == "[\n ":  # no rows
            out.write("[")
        out.write("\n]\n")


class JsonColumns(File):
    """One object of columns. Every row has those of the first."""

    def write(self, out, rows):
        columns: dict[str, list[Any]] = {}
        for number, row in enumerate(rows):
            if number and columns.keys() != row.keys():
                raise UserError(f"some records have {', '.join(columns)} and some {', '.join(row)}; expected all alike")
            for name, value in row.items():
                columns.setdefault(name, []).append(value)
        out.write(json.dumps(columns, ensure_ascii=False) + "\n")


@dataclass(frozen=True)
class JsonObject(File):
    """One object with a prompt to each key; rows are (key, values), and the values of a key are put together. `inside`
    is the name of an object around them. Written as Python's json.dump does when it is not asked for anything."""

    inside: str | None = None

    def write(self, out, rows):
        values: dict[str, list[Any]] = {}
        for key, more in rows:
            values.setdefault(key, []).extend(more)
        if self.inside:
            values = {key: {self.inside: each} for key, each in values.items()}
        json.dump(values, out)


@dataclass(frozen=True)
class Csv(File):
    """The bytes of pandas' to_csv(index=False). `names` is the header; `shared` files are read by other programs, with
    pandas, and must hold no text that it reads as missing: an empty input alone."""

    names: tuple[str, ...]
    header: bool = True
    shared: bool = True
    suffix = ".csv"

    def write(self, out, rows):
        # Without a header, a byte-order mark in front of the first text would be read as the file's own.
        marks = SPECIAL + "\ufeff"
        if self.header:
            marks = SPECIAL
            out.write(csv_line(self.names))
        for fields in rows:
            out.write(csv_line(fields, marks))

    def check(self, row, where):
        for name, value in zip(self.names, row, strict=True):
            if self.shared and value in MISSING and (name, value) != ("input", ""):
                raise RecordError(f"{where}: {name} is {value!r}, which pandas reads as a missing value")


def csv_line(fields: Iterable[str], marks: str = SPECIAL) -> str:
    """Return a line of CSV. Fields that hold one of `marks` are quoted, no others."""
    written = []
    for field in fields:
        if not set(marks).isdisjoint(field):
            field = '"' + field.replace('"', '""') + '"'
        written.append(field)
    return ",".join(written) + "\n"


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[TextIO]:
    """Open a file that takes the place of `path` at the end, and is removed when an error comes before."""
    # Named by the process: two that write one file would else write into one another.
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Half a character (a lone surrogate) in a further column is written as JSON's own escape.
        with partial.open("w", encoding="utf-8", errors="backslashreplace", newline="") as out:
            yield out
            # On disk before it takes the old file's place: a crash in between must not leave half a file there.
            out.flush()
            os.fsync(out.fileno())
        move(partial, path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {write_failure(error)}") from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
