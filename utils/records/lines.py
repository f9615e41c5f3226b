"""JSON Lines and JSON files as rows, each with its place for error messages."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from utils.records import RecordError


def read_jsonl(path: Path, on_bad: Callable[[RecordError], None] | None = None) -> Iterator[tuple[Any, str]]:
    """Yield (parsed row, "file:line") of JSON Lines, or of a JSON file holding one list or object; .gz is unpacked. A
    line that is not JSON goes to `on_bad` when that is given, and raises RecordError otherwise."""
    opened = gzip.open if Path(path).suffix == ".gz" else open
    try:
        with opened(path, "rt", encoding="utf-8-sig") as lines:  # a byte-order mark is no part of the text
            first = lines.readline()
            # One document of many lines: as lines, each of them would be broken.
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
