"""The rows of --input_files that are asked about: a part of them, a random draw, each perhaps several times."""

from __future__ import annotations

import dataclasses
import heapq
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from utils.errors import UserError
from utils.feedback.cases import Case, hashed
from utils.feedback.rows import Choice, read_case
from utils.raw_datasets import base
from utils.raw_datasets.sources import open_source
from utils.raw_datasets.spec import Spec

# A longer prompt is not sent to a teacher: its answer would be learned from a cut prompt.
LONGEST_WORDS, LONGEST_CHARACTERS = 2000, 8000


class Cases:
    """The chosen rows of some files as cases. They are read anew by each loop over them: many do not fit in memory.

    Every loop may raise UserError: for a row that cannot be asked about, an id that comes twice, no rows, and a file
    that has changed since the first loop. `total` is the number of cases once a loop is through, None before.
    """

    def __init__(self, paths: Sequence[str], choice: Choice) -> None:
        self._choice, self._names = choice, ", ".join(paths)
        self._specs = [Spec.of(path) for path in paths]
        self._sources = [open_source(spec.path) for spec in self._specs]
        self._drawn = None
        self._stamps = self._stamps_now()
        self.total: int | None = None
        seen: dict[Path, str] = {}
        for spec, source in zip(self._specs, self._sources, strict=True):
            if spec.weight != 1:
                raise UserError(f"{spec.path}={spec.weight:g}: every row is asked about once; expected =Nrows, or no =")
            if not source.has_train:
                raise UserError(f"{spec.path}: found a test split alone; name its file to ask about that")
            path = Path(spec.path).expanduser().resolve()
            if path.exists() and path in seen:
                raise UserError(f"--input_files: {spec.path} is given twice; name every file once")
            seen[path] = spec.path

    def __iter__(self) -> Iterator[Case]:
        if self._stamps_now() != self._stamps:
            raise UserError(f"{self._names}: changed while it was read; run the same command again")
        if self._choice.draw is not None and self._drawn is None:
            rows = sum(1 for _ in self._rows())
            self._drawn = drawn_numbers(range(rows)[self._choice.first : self._choice.last], self._choice)
        number, total, ids = -1, 0, {}
        for number, (cls, row, where) in enumerate(self._rows()):
            if not self._wanted(number):
                continue
            case = read_case(row, where, self._choice, cls)
            name = row.get("id")
            # The order in which answers are shown is drawn by the id, so two rows must not share one.
            if name is not None and name in ids:
                raise UserError(f"{where}: the id {name!r} is that of {ids[name]}, too; expected every id once")
            ids[name] = where
            for sample in range(self._choice.samples):
                total += 1
                yield sampled(case, sample, self._choice.samples)
        if number < 0:
            raise UserError(f"{self._names}: no rows; expected prompts, with answers where they are to be judged")
        if not total:
            first, last = self._choice.first, self._choice.last
            raise UserError(f"{self._names}: {number + 1} rows, none of them from {first} to {last}")
        self.total = total

    def _wanted(self, number: int) -> bool:
        if self._drawn is not None:
            return number in self._drawn
        return number >= self._choice.first and (self._choice.last is None or number < self._choice.last)

    def _rows(self) -> Iterator[tuple[type[base.RawDataset] | None, Any, str]]:
        """Yield (class, row, file:line) of every row of the files, or of those that =Nrows draws."""
        for spec, source in zip(self._specs, self._sources, strict=True):
            read = spec.cls and spec.cls.read
            drawn = None
            if spec.rows is not None:
                count = sum(1 for _ in source.rows(False, read=read))
                drawn = drawn_numbers(range(count), dataclasses.replace(self._choice, draw=spec.rows))
            for number, (row, where) in enumerate(source.rows(False, read=read)):
                if drawn is None or number in drawn:
                    yield spec.cls, row, where

    def _stamps_now(self) -> list[tuple[int, int]]:
        found = []
        for spec in self._specs:
            path = Path(spec.path).expanduser()
            if path.is_file():
                found.append((path.stat().st_size, path.stat().st_mtime_ns))
        return found


def drawn_numbers(numbers: Sequence[int], choice: Choice) -> set[int]:
    """Return as many of the numbers of rows as the choice draws. A larger draw with the same seed holds a smaller one,
    whose rows need not be asked about again."""
    return set(heapq.nsmallest(choice.draw, numbers, key=lambda number: hashed(f"{choice.seed} {number}", 1 << 62)))


def sampled(case: Case, sample: int, samples: int) -> Case:
    """Return the case as one of several samples: a row of its own, whose id and meta say which."""
    if samples == 1:
        return case
    record = case.record
    name = record.id
    if sample:
        name = f"{record.id} sample {sample + 1}"
    record = dataclasses.replace(record, id=name, meta={**record.meta, "sample": sample + 1})
    source = case.source
    if source is not None:
        source = {**source, "sample": sample + 1}
        if sample and "id" in source:
            source["id"] = f"{source['id']} sample {sample + 1}"
    return dataclasses.replace(case, record=record, source=source, sample=sample)


def completions_wanted(cases: Cases, fraction: float, skipped: int) -> tuple[list[Case], int]:
    """Return the cases to be completed and the number of those that are too long.

    The first `fraction` of the cases counts, without the first `skipped` ones. A prompt that comes again is asked once.
    """
    every, wanted, long, seen = list(cases), [], 0, set()
    for case in every[: int(len(every) * fraction)][skipped:]:
        text = "\n\n".join([message.content for message in case.record.prompt])
        if len(text) >= LONGEST_CHARACTERS or len(text.split()) >= LONGEST_WORDS:
            long += 1
        elif (case.record.prompt, case.sample) not in seen:
            seen.add((case.record.prompt, case.sample))
            wanted.append(case)
    return wanted, long
