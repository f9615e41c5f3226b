"""Raw-dataset classes: their interface, the table of them, and how one is found from a name or from the columns."""

from __future__ import annotations

import difflib
import inspect
import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

from utils.errors import UserError
from utils.records import Record, RecordError

RAW_DATASETS: dict[str, type[RawDataset]] = {}
PLAIN = ("prompt_answer", "pairs", "messages")  # what people's own files hold most often


class LeftOut(Exception):  # noqa: N818 (it is no error)
    """Raised by `record` for a row that is well formed but of no use; rows are counted by `reason`."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class RawDataset(ABC):
    """One format of rows. A subclass is never instantiated: it tells which rows are its own and reads them."""

    name: str  # the first name it is registered under
    needs: str  # the columns that it needs, in words
    columns: tuple[str, ...]  # every column that it reads: what --columns may have on the left of =
    instead_of: tuple[str, ...] = ()  # names of more general classes, which yield where both fit
    read: ClassVar[Callable | None] = None  # (path, on_bad) -> rows, where a file is not simply one row an item

    @staticmethod
    @abstractmethod
    def fits(row: dict[str, Any]) -> bool:
        """Return whether this is a row of the class. Asked of the first row, when --data_path names no class."""

    @staticmethod
    @abstractmethod
    def record(row: dict[str, Any], where: str) -> Record:
        """Return a row as a record; `where` is its file:line. Raises RecordError, or LeftOut."""


class NamedOnly(RawDataset):
    """A format that cannot be told from its first row: --data_path has to name the class."""

    @staticmethod
    def fits(row):
        return False


def raw_dataset(*names: str) -> Callable[[type[RawDataset]], type[RawDataset]]:
    """Return a decorator that registers a class under its names."""

    def register(cls: type[RawDataset]) -> type[RawDataset]:
        if inspect.isabstract(cls):
            raise TypeError(f"{cls.__name__} lacks {' and '.join(sorted(cls.__abstractmethods__))}")
        cls.name = names[0]
        for name in names:
            if name in RAW_DATASETS:
                raise ValueError(f"two raw-dataset classes are called {name!r}")
            RAW_DATASETS[name] = cls
        return cls

    return register


def named(name: str) -> type[RawDataset]:
    """Return the class of that name. Raises UserError."""
    if name not in RAW_DATASETS:
        closest, known = did_you_mean(name, RAW_DATASETS), ", ".join(RAW_DATASETS)
        raise UserError(f"unknown data-set class {name!r}{closest}; known: {known}")
    return RAW_DATASETS[name]


def detect(row: dict[str, Any], where: str) -> type[RawDataset]:
    """Return the one class whose row this is. Raises UserError when none or several are."""
    classes = list(dict.fromkeys(RAW_DATASETS.values()))
    fitting = [cls for cls in classes if cls.fits(row)]
    yielding: set[str] = set()  # more general classes, where a special one fits too
    for cls in fitting:
        yielding.update(cls.instead_of)
    names = [cls.name for cls in fitting if cls.name not in yielding]
    if len(names) == 1:
        return named(names[0])
    found = f"{where}: found the columns {_listed(row)}"
    if names:
        raise UserError(f"{found}, which fit {' and '.join(names)}; name the class, as {names[0]}:PATH")
    closest = "; ".join(f"{cls.name} ({cls.needs})" for cls in _closest(row, classes))
    raise UserError(
        f"{found}, which fit no class; rename them, as --columns prompt=question, to fit one, as {closest}; "
        "docs/data.md lists all classes"
    )


def _closest(row: dict[str, Any], classes: list[type[RawDataset]], most: int = 3) -> list[type[RawDataset]]:
    """The classes whose columns are most like those of the row; of equally close ones, the plain ones come first."""
    words = [str(name).lower() for name in itertools.islice(row, 50)]

    def distance(cls: type[RawDataset]) -> tuple[float, int]:
        alike = 0.0
        for word in words:
            for column in difflib.get_close_matches(word, cls.columns, n=1):
                alike += difflib.SequenceMatcher(None, word, column).ratio()
        return -alike, PLAIN.index(cls.name) if cls.name in PLAIN else len(PLAIN)

    return sorted((cls for cls in classes if not issubclass(cls, NamedOnly)), key=distance)[:most]


def text(row: dict[str, Any], *columns: str, where: str) -> str:
    """Return the text of the first of `columns` that the row has. Raises RecordError."""
    for column in columns:
        if isinstance(row.get(column), str):
            return row[column]
        if column in row:
            raise RecordError(f"{where}: column {column!r} is {str(row[column])[:60]!r}; expected text")
    found = f"found the columns {_listed(row) or 'none'}"
    raise RecordError(f"{where}: no column {' or '.join(map(repr, columns))}; {found}")


def _listed(row: dict[str, Any], most: int = 8, longest: int = 40) -> str:
    """Return the names of columns, cut: one object may hold a whole data set, a prompt to each key."""
    names = []
    for name in map(str, itertools.islice(row, most)):
        if len(name) > longest:
            name = f"{name[:longest]}…"
        names.append(name)
    listed = ", ".join(names)
    if len(row) > most:
        listed += f" and {len(row) - most:,} more"
    return listed


def rest(row: dict[str, Any], used: tuple[str, ...]) -> dict[str, Any]:
    """Return what else the row holds (a task, a difficulty, a source), to be kept in the record's meta."""
    return {name: value for name, value in row.items() if name not in used}


def did_you_mean(word: str, known) -> str:
    """Return a question for the closest known word, to be put into an error; "" when none is close."""
    lower = {name.lower(): name for name in known}
    # 0.5 finds a word with two letters wrong of five; difflib's own 0.6 would not.
    for close in difflib.get_close_matches(word.lower(), lower, n=1, cutoff=0.5):
        return f"; did you mean {lower[close]}?"
    return ""
