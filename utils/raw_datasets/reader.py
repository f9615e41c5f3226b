"""The rows of one data set as checked records, with a tally of what became of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import chain
from typing import Any

from utils.raw_datasets.base import LeftOut, RawDataset, detect
from utils.raw_datasets.ids import Ids
from utils.raw_datasets.sources import Rows, Source
from utils.raw_datasets.spec import Spec
from utils.records import Record, RecordError

READ, USED, BAD = "rows read", "used", "bad rows"


class Reader:
    """The reader of one data set: `open`, then `records`.

    Args:
        spec: the data set, as it was asked for.
        source: where its rows come from.
        test: read the test split.
        renamed: their column -> ours.
        on_bad_row: error | skip.
    """

    def __init__(self, spec: Spec, source: Source, test: bool, renamed: dict[str, str], on_bad_row: str) -> None:
        self.spec, self.source, self.test = spec, source, test
        self._renamed, self._skip = renamed, on_bad_row == "skip"

    def open(self) -> set[str]:
        """Read the first row, find its class, and return which columns of `renamed` it has. Raises UserError."""
        self.tally: Counter[str] = Counter()  # what became of a row -> how many
        self.first: dict[str, str] = {}  # what became of a row -> where the first of them is
        self.cls: type[RawDataset] | None = self.spec.cls
        self.how = "as asked"
        rows = self._checked_rows()
        first = next(rows, None)
        if first is None:
            self._rows: Rows = iter(())
            return set()
        # The first row decides on the class, and is a row as well.
        self._rows = chain([first], rows)
        row, where = first
        if self.cls is None:
            ours = self._in_our_names(row)
            self.cls, self.how = detect(ours, where), f"found by its columns {', '.join(ours)}"
        return set(self._renamed) & set(row)

    def records(self) -> Iterator[Record]:
        """Yield the records; bad rows are raised, or counted with on_bad_row skip."""
        ids = Ids()
        for row, where in self._rows:
            try:
                record = self.cls.record(self._in_our_names(row), where).check()
                # Other classes read no ids: what a row calls so goes to its meta.
                if self.cls.name == "records":
                    ids.check(record)
                yield record
            except LeftOut as left:
                self.count(left.reason, where)
            except RecordError as error:
                self._bad(error)
            except UnicodeEncodeError as error:
                self._bad(RecordError(f"{where}: a text holds half a character: {error.object[error.start]!r}"))

    def count(self, what: str, where: str = "") -> None:
        """Count a row under what became of it."""
        self.tally[what] += 1
        self.first.setdefault(what, where)

    def notes(self) -> list[str]:
        """Return lines to print: how many rows were read and used, and what became of the others."""
        cls = ""
        if self.cls:
            cls = f"class {self.cls.name}, {self.how}; "
        lines = [f"{self.spec.path}: {cls}{self.tally[READ]} {READ}, {self.tally[USED]} {USED}"]
        for what, count in self.tally.items():
            if what in (READ, USED):
                continue
            line = f"{self.spec.path}: {count} {what}"
            if self.first.get(what):
                line += f" (first: {self.first[what]})"
            lines.append(line)
        return lines

    def _checked_rows(self) -> Rows:
        for row, where in self.source.rows(self.test, self._broken, self.spec.cls and self.spec.cls.read):
            self.tally[READ] += 1
            if isinstance(row, dict):
                yield row, where
            else:
                self._bad(RecordError(f"{where}: found {str(row)[:60]!r}; expected an object of columns"))

    def _in_our_names(self, row: dict[str, Any]) -> dict[str, Any]:
        if not self._renamed:
            return row
        # A renamed column takes the place of one that has our name already.
        taken = {ours for theirs, ours in self._renamed.items() if theirs in row}
        return {self._renamed.get(name, name): row[name] for name in row if name in self._renamed or name not in taken}

    def _broken(self, error: RecordError) -> None:
        self.tally[READ] += 1
        self._bad(error)

    def _bad(self, error: RecordError) -> None:
        if not self._skip:
            raise RecordError(f"{error} (--on_bad_row skip leaves such rows out)") from error
        self.count(BAD, str(error))
