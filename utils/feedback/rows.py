"""Read rows of any raw-dataset class as cases: the answers that are asked about, the kind and the task.

A row of named outputs or with a feedback_type keeps its own fields, to which the feedback is added.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utils.errors import UserError
from utils.feedback.cases import KINDS, Case
from utils.feedback.lessons import objective
from utils.feedback.prompts import TASKS
from utils.raw_datasets import base
from utils.records import Record, RecordError

FEEDBACK_TYPES = {"critic": "critique", "refine": "refinement", "prefer": "preference"}
OF_LINES = ("feedback_type", "outputs", "task", "reject")  # fields that only a line of prompt, outputs, feedback has
# A line has one field for these, which are then about its first model's answer.
SINGLE = ("critique", "refinement", "improve")


@dataclass(frozen=True)
class Choice:
    """The choice of rows and answers to ask about.

    Args:
        kind: the kind of feedback; None is each row's own feedback_type.
        base_models: the models whose answers are asked about; none: all answers.
        first: rows to leave out at the start.
        last: the row to stop before, or None.
        renamed: {their column: ours}.
        draw: the rows to draw at random among those, or None for all.
        seed: of the draw.
        samples: how often to ask about each row.
    """

    kind: str | None = None
    base_models: tuple[str, ...] = ()
    first: int = 0
    last: int | None = None
    renamed: dict[str, str] = dataclasses.field(default_factory=dict)
    draw: int | None = None
    seed: int = 0
    samples: int = 1


def read_case(row: Any, where: str, choice: Choice, cls: type[base.RawDataset] | None = None) -> Case:
    """Read one row, of the class `cls` or else of that which its columns fit. Raises RecordError for one that cannot be
    asked about."""
    if not isinstance(row, dict):
        raise RecordError(f"{where}: found {str(row)[:60]!r}; expected an object of columns")
    row = {choice.renamed.get(name, name): value for name, value in row.items()}
    record = _record(row, where, choice, cls)
    of_line = isinstance(row.get("prompt"), str) and "answers" not in row and any(name in row for name in OF_LINES)
    of_line = of_line or isinstance(row.get("output"), dict)
    kind = choice.kind or _own_kind(row.get("feedback_type", record.meta.get("feedback_type")), where)
    task = _task(row.get("task", record.meta.get("task")), where, of_line)
    numbers = _numbers(record, kind, choice.base_models, of_line)
    if len(numbers) < KINDS[kind].answers:
        found = f"{where}: {len(numbers) or 'no'} answer{'s' * (len(numbers) != 1)}"
        raise RecordError(f"{found}; --kind {kind} needs {KINDS[kind].answers} or more to a prompt")
    source = None
    if of_line:
        source = row
    return Case(record, kind, task, numbers=numbers, source=source)


def _record(row: dict[str, Any], where: str, choice: Choice, cls: type[base.RawDataset] | None) -> Record:
    if not isinstance(row.get("outputs", {}), dict | list):
        raise RecordError(f"{where}: outputs are {str(row['outputs'])[:60]!r}; expected an object of texts by model")
    # A single output is that of the one model that --base_models names.
    if isinstance(row.get("output"), str) and choice.base_models and "prompt" in row:
        row = {**row, "output": {choice.base_models[0]: row["output"]}}
    try:
        record = (cls or base.detect(row, where)).record(row, where)
    except base.LeftOut as left:
        raise RecordError(f"{where}: {left.reason}; leave the row out") from None
    if record.where != where:
        record = dataclasses.replace(record, where=where)
    return record.check()


def _own_kind(name: Any, where: str) -> str:
    if name is None:
        raise RecordError(f"{where}: no feedback_type ({', '.join(FEEDBACK_TYPES)}); or give --kind for all rows")
    if name not in FEEDBACK_TYPES:
        raise RecordError(f"{where}: feedback_type is {name!r}; expected one of {', '.join(FEEDBACK_TYPES)}")
    return FEEDBACK_TYPES[name]


def _task(name: Any, where: str, of_line: bool) -> str:
    """Lines name one of three tasks; the meta of a record may name any, which then counts as a dialogue."""
    if of_line and name is not None and name not in TASKS:
        raise RecordError(f"{where}: task is {str(name)[:60]!r}; expected one of {', '.join(TASKS)}")
    if not isinstance(name, str):
        return "dialogue"
    return TASKS.get(name, "dialogue")


def _numbers(record: Record, kind: str, models: tuple[str, ...], of_line: bool) -> tuple[int, ...]:
    """Return the numbers of the answers that are asked about, model after model."""
    if KINDS[kind].answers == 0:
        return ()
    most = None
    if of_line and kind in SINGLE:
        most = 1
    if not models:
        return tuple(range(len(record.answers)))[:most]
    numbers = []
    for model in models[:most]:
        found = [number for number, answer in enumerate(record.answers) if answer.model == model]
        if not found:
            named = {str(answer.model) for answer in record.answers if answer.model}
            known = ", ".join(sorted(named)) or "no named model"
            raise RecordError(f"{record.where}: no answer of {model!r}; found answers of {known}")
        numbers += found
    return tuple(numbers)


def read_objectives(path: Path) -> list[Case]:
    """Read a learning objective from each line that is not empty. Raises UserError."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as text: {getattr(error, 'strerror', None) or error}") from None
    cases = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            record = Record(objective(line.strip()), where=f"{path}:{number}")
            cases.append(Case(record, "conversation", "dialogue", ()))
    if not cases:
        raise UserError(f"{path}: no rows; expected a learning objective a line")
    return cases


def slice_of(text: str | None, start: int) -> tuple[int, int | None]:
    """Return (first, last) from --nums `a,b` or `n`, and from --start_index. Raises UserError."""
    if text is None:
        return start, None
    words = text.split(",")
    if start or len(words) > 2 or not all(word.strip().isdigit() for word in words):
        found = f"--nums is {text!r}"
        if start:
            found += " beside --start_index"
        raise UserError(f"{found}; expected one of n (the first n rows) or a,b (rows a up to b)")
    *first, last = map(int, words)
    return sum(first), last
