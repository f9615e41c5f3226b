"""Several data sets as one stream of records: divided between stages and splits by prompt, weighted, counted."""

from __future__ import annotations

import hashlib
import heapq
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cache, cached_property
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from utils import records as records_module
from utils.errors import UserError
from utils.raw_datasets.reader import USED, Reader
from utils.raw_datasets.sources import open_source
from utils.raw_datasets.spec import Spec, renaming, slice_of
from utils.records import Record, content_id, prompt_hash

if TYPE_CHECKING:
    from utils.arguments.options import DataArguments

TIES = "left out as ties: chosen equals rejected"
DUPLICATES = "exact duplicates of earlier rows, kept"
OTHER_STAGES = "in the slices of other stages"
OTHER_SPLIT = {"train": "held out for evaluation", "eval": "left to training"}


class Mixture:
    """Records of --data_path (or --eval_data_path) for one split and stage: the same at every iteration.

    After an iteration `notes` are lines to print, and `counts` says what became of the rows of all data sets together.

    Args:
        data: the options of the data.
        split: train | eval.
        stage: 1, 2 or 3, of --data_split.
        seed: of what is drawn.
    """

    def __init__(self, data: DataArguments, split: Literal["train", "eval"], stage: int, seed: int) -> None:
        self._data, self._split, self._seed = data, split, seed
        self._slice = slice_of(data.data_split, stage)
        self._limit, paths = data.max_train_samples, data.data_path
        if split == "eval":
            self._limit, paths = data.max_eval_samples, data.eval_data_path or data.data_path
        self._renamed = renaming(data.columns)
        self._weighted = split == "train" or bool(data.eval_data_path)  # each row of a test split is used once
        self.notes: list[str] = []
        self.counts: Counter[str] = Counter()
        self._readers = [self._reader(Spec.of(path)) for path in paths]

    def _reader(self, spec: Spec) -> Reader:
        source = open_source(spec.path)
        test = self._split == "eval" and source.has_test
        if not (test or source.has_train):
            raise UserError(f"{spec.path}: found a test split alone; expected a train split beside it, as train.jsonl")
        return Reader(spec, source, test=test, renamed=self._renamed, on_bad_row=self._data.on_bad_row)

    @cached_property
    def fingerprint(self) -> str:
        """Return a hash of the bytes that are read, of what is taken of them and of the code that reads them."""
        data, specs = self._data, [reader.spec for reader in self._readers]
        parts = [[r.source.fingerprint(r.test), self._holdout(r)] for r in self._readers]
        parts += [[spec.cls and spec.cls.name, self._weighted and [spec.weight, spec.rows]] for spec in specs]
        settings = [self._split, self._slice, self._limit, self._fraction, data.columns, data.on_bad_row]
        # The seed counts only where rows are drawn by it: runs that differ in the seed alone share cached tokens.
        drawn_by_seed = self._limit is not None or any(spec.rows or spec.weight % 1 for spec in specs)
        text = json.dumps([_code_version(), parts, settings, self._seed if drawn_by_seed else None])
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    def __iter__(self) -> Iterator[Record]:
        self.notes, self.counts, self._seen = [], Counter(), set()
        used_columns = set().union(*(reader.open() for reader in self._readers))
        # A column that no data set has is most likely misspelled.
        for theirs in self._renamed.keys() - used_columns:
            raise UserError(f"--columns {self._renamed[theirs]}={theirs}: no data set has a column {theirs!r}")
        records = chain.from_iterable(map(self._rows_used, self._readers))
        if self._limit is None:
            yield from records
        else:
            # Another salt than the weights': rows drawn by a weight have low hashes there, and would be favoured here.
            yield from drawn(records, self._limit, f"limit {self._seed}")
            if self.counts[USED] > self._limit:
                self.notes.append(f"drew {self._limit} of these rows (--max_{self._split}_samples)")
                self.counts[USED] = self._limit
        if not self.counts[USED]:
            notes = list(self.notes)
            if self._split == "eval":
                notes.append("give --eval_data_path, or raise --eval_holdout")
            raise UserError(f"no rows left for {self._split}: {'; '.join(notes)}")

    def _rows_used(self, reader: Reader) -> Iterator[Record]:
        records = self._candidates(reader)
        if self._fraction < 1:
            records = list(records)
            # One row at least: a small share of a small data set would be rounded to none.
            records = records[: max(1, round(self._fraction * len(records)))]
        if self._weighted:
            records = weighted(records, reader.spec, f"weight {self._seed}")
        for record in records:
            reader.tally[USED] += 1
            yield record
        self.counts.update(reader.tally)
        self.notes += reader.notes()
        if not reader.tally[USED] and self._split == "train":
            raise UserError(f"no rows left for train: {'; '.join(reader.notes())}")

    def _candidates(self, reader: Reader) -> Iterator[Record]:
        """Yield the records of this stage and split, without ties."""
        (low, high), holdout = self._slice, self._holdout(reader)
        for record in reader.records():
            key = prompt_hash(record.prompt)
            if is_tie(record):
                reader.count(TIES, record.where)
            elif not low <= _unit(key) < high:
                reader.count(OTHER_STAGES)
            # By the prompt's hash: a prompt that is in two data sets falls on the same side in both.
            # With a salt, since --data_split cuts by the same hash: without it the held-out prompts would lie in the
            # slice of the first stage, and the other stages would have none.
            elif holdout is not None and (_unit(_hash("holdout", key)) < holdout) != (self._split == "eval"):
                reader.count(OTHER_SPLIT[self._split])
            else:
                content = content_id(record.prompt, record.answers)
                # Kept all the same: a data set may repeat rows on purpose, as a weight.
                if content in self._seen:
                    reader.count(DUPLICATES, record.where)
                self._seen.add(content)
                yield record

    def _holdout(self, reader: Reader) -> float | None:
        """Return the share of prompts kept from training for evaluation; None where evaluation has rows of its own."""
        if self._data.eval_data_path or reader.source.has_test:
            return None
        return self._data.eval_holdout

    @property
    def _fraction(self) -> float:
        if self._split == "eval":
            return 1.0
        return self._data.data_fraction


def is_tie(record: Record) -> bool:
    """Return whether all its decisions were made between equal texts. (A verdict that says tie is kept: that is an
    answer.)"""
    return any(verdict.preferred in ("a", "b") for verdict in record.verdicts) and not record.pairs()


def weighted(records: Iterable[Record], spec: Spec, salt: str) -> Iterable[Record]:
    """Return as many of the records as the spec asks for: N rows, or each as often as its weight."""
    if spec.rows is not None:
        return drawn(records, spec.rows, salt)
    if spec.weight == 1:
        return records
    records = list(records)
    times, share = divmod(spec.weight, 1)
    return chain(*[records] * int(times), drawn(records, round(share * len(records)), salt))


def drawn(records: Iterable[Record], count: int, salt: str) -> Iterator[Record]:
    """Yield `count` of the records, drawn by a hash of salt and id, in their own order."""
    # By a hash and not by a generator: rows that are added to a data set do not change which of the others are drawn.
    keyed = ((_hash(salt, record.id), place, record) for place, record in enumerate(records))
    in_order = {place: record for _, place, record in heapq.nsmallest(count, keyed)}
    for place in sorted(in_order):
        yield in_order[place]


def _hash(salt: str, key: object) -> int:
    return int.from_bytes(hashlib.blake2b(f"{salt} {key}".encode(), digest_size=8).digest(), "big")


def _unit(key: int) -> float:
    """Return a 64-bit hash as a number in [0, 1): the 53 bits that a float holds, so that none rounds up to 1."""
    return (key >> 11) / 2**53


@cache
def _code_version() -> str:
    """Return a hash of the code that reads: records and every class."""
    folders = Path(records_module.__file__).parent, Path(__file__).parent
    files = [file for folder in folders for file in sorted(folder.rglob("*.py"))]
    return hashlib.blake2b(b"".join(path.read_bytes() for path in files), digest_size=16).hexdigest()
