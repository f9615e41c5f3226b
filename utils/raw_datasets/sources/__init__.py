"""Where rows come from: a file, a folder of train and test files (read here if JSON), or a data set of the Hugging Face
hub."""

from __future__ import annotations

import hashlib
import importlib
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from utils.errors import UserError
from utils.raw_datasets.named import NAMED
from utils.records import RecordError
from utils.records.lines import read_jsonl

SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".json.gz", ".txt", ".csv", ".parquet")
TEST_NAMES = ("test", "validation", "valid", "val", "eval", "dev")  # in this order
ANNOTATIONS = "annotations.json"  # the file of a folder of comparisons, as AlpacaEval leaves it
OnBad = Callable[[RecordError], None]
Rows = Iterator[tuple[Any, str]]


class Source(ABC):
    """Rows of a training split and, perhaps, of a test split; `name` is for people."""

    name: str
    has_train: bool
    has_test: bool

    @abstractmethod
    def rows(self, test: bool, on_bad: OnBad | None = None, read: Callable | None = None) -> Rows:
        """Return (row, file:line) of every row.

        Args:
            test: of the test split.
            on_bad: gets a line that cannot be parsed; None raises it.
            read: the function of a class that reads its files itself.
        """

    @abstractmethod
    def fingerprint(self, test: bool) -> str:
        """Return a hash of the content, without parsing it."""


def open_source(name: str) -> Source:
    """Return the file or folder of that name, else a data set of the hub. Raises UserError."""
    path = Path(name).expanduser()
    if name in NAMED:
        return Files(name, _looked_up("hub").fetched(name), None)
    if path.is_file():
        return Files(name, path, None)
    if path.is_dir():
        return _open_folder(name, path)
    if not is_hub_name(name):
        raise UserError(f"{name}: no such file or folder")
    return _looked_up("hub").Hub(name)


def is_hub_name(name: str) -> bool:
    """Return whether a name that is no file or folder here may be a data set of the hub: NAME, OWNER/NAME, or either
    with :CONFIG."""
    # A path that is spelled wrongly must not become a question to the hub.
    like_one = re.fullmatch(r"[\w.-]+(/[\w.-]+)?(:[\w.-]+)?", name)
    return bool(like_one) and not name.endswith(SUFFIXES) and not name.startswith(".")


def file_rows(path: Path, on_bad: OnBad | None = None) -> Rows:
    """Return the rows of a file, read by its ending: CSV, Parquet, else JSON Lines or JSON."""
    if path.suffix == ".csv":
        return _looked_up("tables").csv_rows(path, on_bad)
    if path.suffix == ".parquet":
        return _looked_up("tables").parquet_rows(path)
    return _json_rows(path, on_bad)


def _looked_up(name: str) -> Any:
    """Import the module here that reads a kind of data, once it is asked for."""
    return importlib.import_module(f"{__name__}.{name}")


class Files(Source):
    """A file, or two."""

    def __init__(self, name: str, train: Path | None, test: Path | None) -> None:
        self.name, self._paths = name, (train, test)
        self.has_train, self.has_test = train is not None, test is not None

    def rows(self, test, on_bad=None, read=None):
        return (read or file_rows)(self._paths[test], on_bad)

    def fingerprint(self, test):
        digest = hashlib.blake2b(digest_size=16)
        try:
            with self._paths[test].open("rb") as data:
                # In blocks: a file may be larger than memory.
                while block := data.read(1 << 20):
                    digest.update(block)
        except OSError as error:
            raise UserError(f"{self._paths[test]}: cannot be read: {error.strerror or error}") from error
        return digest.hexdigest()


def _open_folder(name: str, folder: Path) -> Source:
    train, test = _split_file(folder, ("train",)), _split_file(folder, TEST_NAMES)
    if train or test:
        return Files(name, train, test)
    if (folder / ANNOTATIONS).is_file():
        return Files(name, folder / ANNOTATIONS, None)
    if (folder / "dataset_dict.json").is_file() or (folder / "dataset_info.json").is_file():
        return _looked_up("hub").Hub(name, saved=True)
    if any(path.suffix in (".parquet", ".arrow", ".csv", ".jsonl") for path in folder.rglob("*") if path.is_file()):
        return _looked_up("hub").Hub(name)
    found = ", ".join(sorted(path.name for path in folder.iterdir())[:8]) or "nothing"
    raise UserError(f"{name}: the folder holds {found}; expected train and test files, as train.jsonl and test.jsonl")


def _split_file(folder: Path, names: tuple[str, ...]) -> Path | None:
    for name in names:
        found = [folder / (name + suffix) for suffix in SUFFIXES if (folder / (name + suffix)).is_file()]
        # Two files of one split (train.json, train.csv) may be the same data twice.
        if len(found) > 1:
            raise UserError(f"{folder}: holds {' and '.join(path.name for path in found)}; name the file to read")
        if found:
            return found[0]
    return None


def _json_rows(path: Path, on_bad: OnBad | None) -> Rows:
    for row, where in read_jsonl(path, on_bad):
        columns = list(row.values()) if isinstance(row, dict) else []
        if _is_column_dict(columns):  # {"prompt": [text, …], "chosen": [text, …]}: one object for all rows
            for number, values in enumerate(zip(*columns, strict=True), start=1):
                yield dict(zip(row, values, strict=True)), f"{path}[{number}]"
        elif isinstance(row, dict) and list(row) == ["data"] and isinstance(row["data"], list):
            yield from ((item, f"{path}[{number}]") for number, item in enumerate(row["data"], start=1))
        else:
            yield row, where


def _is_column_dict(columns: list[Any]) -> bool:
    lists = all(isinstance(column, list) and column and isinstance(column[0], str) for column in columns)
    return len(columns) > 1 and lists and len(set(map(len, columns))) == 1
