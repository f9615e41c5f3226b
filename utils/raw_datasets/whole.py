"""One data set as a whole, train before test: for programs that read every row once.

for record in records_of("data/hh-rlhf/test.jsonl.gz"): ...
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from utils.raw_datasets.mixture import weighted
from utils.raw_datasets.reader import Reader
from utils.raw_datasets.sources import Rows, open_source
from utils.raw_datasets.spec import Spec, renaming
from utils.records import Record


def rows_of(path: str, read: Callable | None = None) -> Rows:
    """Yield (row, file:line) of all that PATH_OR_NAME holds, train before test. `read`: as of Source.rows."""
    source = open_source(path)
    for test, there in ((False, source.has_train), (True, source.has_test)):
        if there:
            yield from source.rows(test, read=read)


def records_of(spec: str, columns: Sequence[str] = (), on_bad_row: str = "error", seed: int = 0) -> Iterator[Record]:
    """Return every record of one data set: undivided, train before test, ties kept.

    Args:
        spec: [CLASS:]PATH_OR_NAME[=WEIGHT|=Nrows].
        columns: OURS=THEIRS of --columns.
        on_bad_row: error | skip.
        seed: of the rows that a weight draws.

    Returns:
        The records.
    """
    parsed = Spec.of(spec)
    return iter(weighted(_records_of(parsed, columns, on_bad_row), parsed, f"weight {seed}"))


def _records_of(spec: Spec, columns: Sequence[str], on_bad_row: str) -> Iterator[Record]:
    source = open_source(spec.path)
    for test, there in ((False, source.has_train), (True, source.has_test)):
        if there:
            reader = Reader(spec, source, test=test, renamed=renaming(list(columns)), on_bad_row=on_bad_row)
            reader.open()
            yield from reader.records()
