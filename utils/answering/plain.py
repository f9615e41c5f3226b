"""The columns of plain rows that hold answers, and numbers in the shape of these columns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from utils.records import Answer, RecordError

SAMPLED = ("greedy", "sample")  # what chatbot.py adds
GIVEN = ("output", "outputs", "response", "responses")  # what a row may have had before
ANSWER_COLUMNS = (*SAMPLED, *GIVEN)
GENERATOR = "generator"  # the model of `output` and `outputs`; that of `sample` is in `sample_generator`


def answers_of(row: dict[str, Any], where: str) -> Iterator[Answer]:
    """Yield the answers that a plain row holds, in the order of ANSWER_COLUMNS. Raises RecordError."""
    for column in ANSWER_COLUMNS:
        if column not in row:
            continue
        value = texts = row[column]
        names = [row.get(f"{column}_{GENERATOR}") if column in SAMPLED else row.get(GENERATOR)]
        if isinstance(value, dict):
            names, texts = list(value), list(value.values())
        elif not isinstance(value, list):
            texts = [value]
        if not all(isinstance(text, str) for text in texts):
            raise RecordError(f"{where}: column {column!r} is {str(value)[:60]!r}; expected text, or a list of texts")
        if len(names) != len(texts):
            names = names[:1] * len(texts)
        finished = row.get(f"{column}_finished", True)
        if not isinstance(finished, list) or len(finished) != len(texts):
            # An answer counts as finished unless the row says that it was cut.
            finished = [finished is not False] * len(texts)
        for text, name, end in zip(texts, names, finished, strict=True):
            yield Answer(text, name or None, finished=bool(end))


def numbers_in(value: Any) -> Iterator[float]:
    """Yield the numbers of a value that has the shape of answers: a number, a list, or an object of these."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from numbers_in(item)
    else:
        yield value


def shaped_like(value: Any, numbers: Iterable[float]) -> Any:
    """Return the next numbers in the shape of `value`."""
    if isinstance(value, list):
        return [next(numbers) for _ in value]
    if isinstance(value, dict):
        return {name: next(numbers) for name in value}
    return next(numbers)
