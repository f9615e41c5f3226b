"""Rows of CSV and Parquet files."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from utils.errors import UserError
from utils.raw_datasets.sources import OnBad, Rows
from utils.records import RecordError


def csv_rows(path: Path, on_bad: OnBad | None, names: Sequence[str] | None = None) -> Rows:
    """Yield the rows of a CSV file. Every value is text and an empty one stays empty: no number, no NaN is read into
    it. `names` are the columns of a file without a header."""
    csv.field_size_limit(1 << 30)  # bytes; csv's own 128 KiB are less than one long conversation
    expected = "the header"
    if names is not None:
        expected = ",".join(names)
    try:
        # A byte-order mark, as spreadsheets write it, would become part of the first name. newline="": csv tells
        # the ends of rows from those that a quoted text holds.
        with path.open(encoding="utf-8-sig", newline="") as lines:
            reader = csv.DictReader(lines, names, strict=True)
            for row in reader:
                where = f"{path}:{reader.line_num}"
                # DictReader puts surplus fields under None, and None in the place of missing ones.
                if None not in row and None not in row.values():
                    yield row, where
                    continue
                error = RecordError(f"{where}: the line has not the {len(reader.fieldnames)} fields of {expected}")
                if on_bad is None:
                    raise error
                on_bad(error)
    except (csv.Error, UnicodeDecodeError, OSError) as error:
        raise UserError(f"{path}: cannot be read as CSV: {error}") from error


def parquet_rows(path: Path) -> Rows:
    """Yield the rows of a Parquet file."""
    import pyarrow
    import pyarrow.parquet

    try:
        number = 0
        # In batches: a file may be larger than memory.
        for batch in pyarrow.parquet.ParquetFile(path).iter_batches():
            for row in batch.to_pylist():
                number += 1
                yield row, f"{path}[{number}]"
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"{path}: cannot be read as Parquet: {error}") from error
