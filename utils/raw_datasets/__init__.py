"""Raw data -> records. One class a file; every module of this folder is imported, and so registers its classes.

for record in open_mixture(data_args, "train", stage=2, seed=42): ...
for record in records_of("data/hh-rlhf/test.jsonl.gz"): ...
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal

from utils.raw_datasets.base import RAW_DATASETS, LeftOut, RawDataset, raw_dataset
from utils.raw_datasets.mixture import Mixture, weighted
from utils.raw_datasets.reader import Reader
from utils.raw_datasets.sources import open_source
from utils.raw_datasets.spec import Spec, renaming
from utils.records import Record

if TYPE_CHECKING:
    from utils.arguments.options import DataArguments

__all__ = ["RAW_DATASETS", "LeftOut", "Mixture", "RawDataset", "open_mixture", "raw_dataset", "records_of"]

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")


def open_mixture(data: DataArguments, split: Literal["train", "eval"], stage: int, seed: int) -> Mixture:
    """Return the records of a stage for training or evaluation.

    Args:
        data: the options of the data.
        split: train | eval.
        stage: 1, 2 or 3.
        seed: of what is drawn.

    Returns:
        The records; their rows are checked as they are read.

    Raises:
        UserError: what can be seen at once: a missing file, an unknown class, a share of zero.
    """
    return Mixture(data, split=split, stage=stage, seed=seed)


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
