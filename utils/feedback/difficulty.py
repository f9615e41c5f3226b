"""Problems grouped by difficulty: the answers of one or two models joined by prompt, and the feedback for each group.

A problem's difficulty is the mean negative log-likelihood of a token of the first model's own answer
(arXiv 2310.06450). Easy problems get a critique, medium ones a refinement, hard ones a preference, unless --assign says
otherwise.
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

from utils.feedback.pairs.pairing import PromptKey, prompt_key
from utils.raw_datasets.base import RAW_DATASETS
from utils.raw_datasets.dialogue import prompt_of
from utils.records import Answer, Record, RecordError
from utils.records.lines import read_jsonl

LEVELS = ("easy", "medium", "hard")
KINDS = {"c": "critic", "r": "refine", "p": "prefer"}
# Columns in which a plain row may keep its answer; of several the first is read.
ANSWERS = ("greedy", "sample", "output", "response")
LOSSES = ("ppl", "nll_per_token", "loss")
# Columns of an earlier preference are dropped: the new one will have these names.
OLD = ("chosen", "reject", "rejected")
MEASURED = ("greedy_finished", "sample_finished", "sample_temperature", "perplexity")


@dataclass(frozen=True)
class Answered:
    """A row of a model's answers, as chatbot.py writes it.

    Args:
        record: the row as a record.
        answer: the model's answer.
        loss: mean negative log-likelihood of a token of the answer, in nats; None where it was not measured.
        plain: the columns of the row, or None where the row is a record.
    """

    record: Record
    answer: Answer
    loss: float | None
    plain: dict[str, Any] | None = None

    @property
    def key(self) -> PromptKey:
        """The key by which the rows of one problem are joined."""
        return prompt_key(self.record.prompt)

    @property
    def task(self) -> str:
        """The row's task; dialog unless it names one."""
        fields = self.plain
        if fields is None:
            fields = self.record.meta
        return str(fields.get("task", "dialog"))


def read_answered(path: Path) -> list[Answered]:
    """Read the rows of a file. Raises RecordError for one without an answer."""
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
    columns = [name for name in ANSWERS if name in row]
    if not columns or "prompt" not in row:
        raise RecordError(f"{where}: found the columns {', '.join(row)}; expected prompt and {' or '.join(ANSWERS)}")
    column, *_ = columns
    prompt, *_ = prompt_of(row["prompt"], where)
    record = Record(prompt, where=where).check()
    answer = Answer(_text(row[column], column, where))
    return Answered(record, answer, loss=_loss(row, where), plain=row)


def _text(value: Any, column: str, where: str) -> str:
    first = _first(value)
    if not isinstance(first, str):
        raise RecordError(f"{where}: column {column!r} is {str(value)[:60]!r}; expected a text, or a list of texts")
    return first


def _first(value: Any) -> Any:
    """Return the first element of a list that has one, else the value itself."""
    if isinstance(value, list) and value:
        return value[0]
    return value


def _loss(found: dict[str, Any], where: str) -> float | None:
    value = None
    for name in LOSSES:
        if name in found:
            value = _first(found[name])
            break
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise RecordError(f"{where}: the loss of the answer is {value!r}; expected a finite number")
    return float(value)


def joined(
    files: Sequence[Sequence[Answered]], names: Sequence[str]
) -> tuple[list[tuple[Answered, ...]], Counter[str]]:
    """Return the rows of each prompt that is in all files, in the order of the first file, and counts of what did not
    match. Of a prompt that is twice in a file the first row counts."""
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
        what = f"in {name}, not in all"
        if len(names) == 2:
            what = f"only in {name}"
        tally[what] = len(found.keys() - common)
    problems, alike = [], 0
    for key in by_prompt[0]:
        if key in common:
            problem = tuple(found[key] for found in by_prompt)
            problems.append(problem)
            alike += len(problem) > 1 and len({row.answer.text for row in problem}) == 1
    tally["matched"] = len(problems)
    tally["the same answer by all"] = alike
    return problems, tally


def levels(losses: Sequence[float], quantiles: Sequence[float] = ()) -> list[int]:
    """Return 0, 1 or 2 for each loss: its place in the ascending order, cut at l // 3 and 2 l // 3, or at floor(q l).
    Equal losses stay in their order."""
    count = len(losses)
    # The index as the second key makes the division the same on every machine.
    order = sorted(range(count), key=lambda i: (losses[i], i))
    return _cut(order, quantiles)


def random_levels(count: int, quantiles: Sequence[float], key: str) -> list[int]:
    """Draw groups of the same sizes at random, as the baseline."""
    order = list(range(count))
    # A text seeds by its SHA-512, and so alike in every process; Python's hash() would not.
    random.Random(key).shuffle(order)
    return _cut(order, quantiles)


def _cut(order: Sequence[int], quantiles: Sequence[float]) -> list[int]:
    count = len(order)
    low, high = count // 3, 2 * count // 3
    if quantiles:
        # 1e-9: 0.29 * 100 is 28.999999999999996 in floating point.
        low, high = (math.floor(q * count + 1e-9) for q in quantiles)
    out = [0] * count
    for place, number in enumerate(order):
        out[number] = (place >= low) + (place >= high)
    return out


def grouped_row(problem: Sequence[Answered], names: Sequence[str], level: int, kind: str) -> dict[str, Any]:
    """Return the row that asks for feedback.

    Args:
        problem: the rows of one prompt, a row of each model.
        names: the models' names, in the same order.
        level: difficulty, as an index of LEVELS.
        kind: a letter of KINDS, the feedback to ask for.

    Returns:
        The problem with its loss, difficulty and feedback_type, and the answers by model.
    """
    first = problem[0]
    answers = {name: row.answer for name, row in zip(names, problem, strict=True)}
    facts = {"loss": first.loss, "difficulty": LEVELS[level], "feedback_type": KINDS[kind]}
    if first.plain is not None:
        dropped = (*ANSWERS, *LOSSES, *MEASURED, *OLD)
        kept = {name: value for name, value in first.plain.items() if name not in dropped}
        return {**kept, **facts, "output": {name: answer.text for name, answer in answers.items()}}
    named = [dataclasses.replace(answer, model=name) for name, answer in answers.items()]
    record = first.record
    return Record(record.prompt, tuple(named), id=record.id, meta={**record.meta, **facts}).to_json()
