"""Problems grouped by difficulty: the answers of one or two models joined by prompt, and what each group is asked for.

Difficulty is the mean negative log-likelihood of a token of the first model's own answer (arXiv 2310.06450); easy
problems get a critique, medium ones a refinement, hard ones a preference, or whatever else `assign` says.
"""

from __future__ import annotations

import dataclasses
import math
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utils.raw_datasets.base import RAW_DATASETS
from utils.raw_datasets.dialogue import prompt_of
from utils.records import Answer, Record, RecordError, read_jsonl

LEVELS = ("easy", "medium", "hard")
KINDS = {"c": "critic", "r": "refine", "p": "prefer"}
ANSWERS = ("greedy", "sample", "output", "response")  # where a plain row keeps its answer; of several the first is read
LOSSES = ("ppl", "nll_per_token", "loss")
OLD = ("chosen", "reject", "rejected")  # somebody else's preference: the new one will have these names
MEASURED = ("greedy_finished", "sample_finished", "sample_temperature", "perplexity")


@dataclass(frozen=True)
class Answered:
    """A row of a model's answers, as chatbot.py writes it: `plain` columns, or None where the row is a record."""

    record: Record
    answer: Answer
    loss: float | None  # mean negative log-likelihood of a token of `answer`
    plain: dict[str, Any] | None = None

    @property
    def key(self) -> tuple[tuple[str, str], ...]:
        """What two rows of one problem share."""
        return tuple((message.role, message.content.strip()) for message in self.record.prompt)

    @property
    def task(self) -> str:
        return str((self.record.meta if self.plain is None else self.plain).get("task", "dialog"))


def read_answered(path: Path) -> list[Answered]:
    """The rows of a file. Raises RecordError for one without an answer."""
    return [_answered(row, where) for row, where in read_jsonl(path)]


def _answered(row: Any, where: str) -> Answered:
    if not isinstance(row, dict):
        raise RecordError(f"{where}: found {str(row)[:60]!r}; expected a JSON object")
    records = RAW_DATASETS["records"]
    if records.fits(row):
        record = records.record(row, where)
        if not record.answers:
            raise RecordError(f"{where}: the record has no answer; expected one that chatbot.py wrote")
        answer = record.answers[0]
        return Answered(record, answer, _loss(answer.scores, where))
    column = next((name for name in ANSWERS if name in row), None)
    if column is None or "prompt" not in row:
        raise RecordError(f"{where}: found the columns {', '.join(row)}; expected prompt and {' or '.join(ANSWERS)}")
    prompt = prompt_of(row["prompt"], where)[0]
    return Answered(
        Record(prompt, where=where).check(), Answer(_text(row[column], column, where)), _loss(row, where), row
    )


def _text(value: Any, column: str, where: str) -> str:
    first = value[0] if isinstance(value, list) and value else value
    if not isinstance(first, str):
        raise RecordError(f"{where}: column {column!r} is {str(value)[:60]!r}; expected a text, or a list of texts")
    return first


def _loss(found: dict[str, Any], where: str) -> float | None:
    value = next((found[name] for name in LOSSES if name in found), None)
    value = value[0] if isinstance(value, list) and value else value
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise RecordError(f"{where}: the loss of the answer is {value!r}; expected a finite number")
    return float(value)


def joined(
    files: Sequence[Sequence[Answered]], names: Sequence[str]
) -> tuple[list[tuple[Answered, ...]], Counter[str]]:
    """The rows of one prompt in all files, in the order of the first, and how many did not match. Of a prompt that
    stands twice in a file the first row counts."""
    tally: Counter[str] = Counter()
    by_prompt: list[dict[Any, Answered]] = []
    for rows, name in zip(files, names, strict=True):
        found: dict[Any, Answered] = {}
        for row in rows:
            found.setdefault(row.key, row)
        tally[f"repeated in {name}"] = len(rows) - len(found)
        by_prompt.append(found)
    common = set.intersection(*map(set, by_prompt))
    for found, name in zip(by_prompt, names, strict=True):
        tally[f"only in {name}" if len(names) == 2 else f"in {name}, not in all"] = len(found.keys() - common)
    problems = [tuple(found[key] for found in by_prompt) for key in by_prompt[0] if key in common]
    tally["matched"] = len(problems)
    tally["the same answer by all"] = sum(len({row.answer.text for row in p}) == 1 for p in problems if len(p) > 1)
    return problems, tally


def levels(losses: Sequence[float], quantiles: Sequence[float] = ()) -> list[int]:
    """0, 1 or 2 for each: its place in the ascending order, cut at l // 3 and 2 l // 3, or at floor(q l). Equal losses
    stay in their order."""
    count = len(losses)
    order = sorted(range(count), key=lambda i: (losses[i], i))
    return _cut(order, quantiles)


def random_levels(count: int, quantiles: Sequence[float], key: str) -> list[int]:
    """Groups of the same sizes, drawn at random: the baseline."""
    order = list(range(count))
    random.Random(key).shuffle(order)
    return _cut(order, quantiles)


def _cut(order: Sequence[int], quantiles: Sequence[float]) -> list[int]:
    count = len(order)
    # 1e-9: 0.29 * 100 is 28.999999999999996
    low, high = [math.floor(q * count + 1e-9) for q in quantiles] if quantiles else (count // 3, 2 * count // 3)
    out = [0] * count
    for place, number in enumerate(order):
        out[number] = (place >= low) + (place >= high)
    return out


def grouped_row(problem: Sequence[Answered], names: Sequence[str], level: int, kind: str) -> dict[str, Any]:
    """The row that asks for feedback: the problem, its loss, difficulty, feedback_type, and the answers by model."""
    first = problem[0]
    facts = {"loss": first.loss, "difficulty": LEVELS[level], "feedback_type": KINDS[kind]}
    if first.plain is not None:
        kept = {k: v for k, v in first.plain.items() if k not in (*ANSWERS, *LOSSES, *MEASURED, *OLD)}
        return {**kept, **facts, "output": {n: row.answer.text for n, row in zip(names, problem, strict=True)}}
    answers = tuple(dataclasses.replace(row.answer, model=n) for n, row in zip(names, problem, strict=True))
    record = first.record
    return Record(record.prompt, answers, id=record.id, meta={**record.meta, **facts}).to_json()
