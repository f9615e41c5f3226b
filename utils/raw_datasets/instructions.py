"""An instruction and its input as one user message, and the words that other systems put around them."""

from __future__ import annotations

import re
from typing import Any

from utils.raw_datasets.base import text
from utils.records import Message, Record, RecordError

INPUT = "\n\n### Input:\n"  # the words of the alpaca template, which finds them again
# What pandas reads from a CSV file as no text at all, without being asked to.
MISSING = {
    *("", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA"),
    *("NULL", "NaN", "None", "n/a", "nan", "null"),
}
_TASK = "Below is an instruction that describes a task"
_WITH_INPUT = ", paired with an input that provides further context"
_REQUEST = ". Write a response that appropriately completes the request.\n\n### Instruction:\n"
_ALPACA = re.compile(f"{_TASK}({_WITH_INPUT})?{re.escape(_REQUEST)}(.*)\n\n### Response: ?", re.DOTALL)


def instruct(instruction: str, given: str, meta: dict[str, Any] | None = None) -> dict[str, Any]:
    """{prompt, meta} of a Record: the input `given` stands under a line of its own. Where the two texts cannot be told
    apart again in the message, meta keeps them."""
    written = bool(given.strip())
    content = f"{instruction}{INPUT}{given}" if written else instruction
    meta = meta or {}
    if split(content) != (instruction, given):
        meta = {**meta, "instruction": instruction, "input": given}
    return {"prompt": (Message("user", content),), "meta": meta}


def split(content: str) -> tuple[str, str]:
    """(instruction, input) of a user message."""
    instruction, _, given = content.partition(INPUT)
    return instruction, given


def instruction_of(record: Record) -> tuple[str, str]:
    """(instruction, input) of a prompt that is one user message: the inverse of instruct()."""
    content = only_message(record)
    kept = {"instruction", "input"} <= record.meta.keys() and (record.meta["instruction"], record.meta["input"])
    if kept and all(isinstance(part, str) for part in kept) and instruct(*kept)["prompt"] == record.prompt:
        return kept
    return split(content)


def only_message(record: Record) -> str:
    """The text of a prompt that is one user message. Raises RecordError."""
    if len(record.prompt) > 1:
        roles = ", ".join(message.role for message in record.prompt)
        raise RecordError(f"{record.where}: the prompt has the turns {roles}; expected one instruction alone")
    return record.prompt[0].content


def alpaca_prompt(instruction: str, given: str) -> str:
    """The public Alpaca format, with the space that some leave after its last colon."""
    head, body = (_TASK + _WITH_INPUT, instruction + INPUT + given) if given else (_TASK, instruction)
    return f"{head}{_REQUEST}{body}\n\n### Response: "


def from_alpaca_prompt(prompt: str) -> tuple[str, str]:
    """(instruction, input) of such a text, or of a text that is the instruction itself. An input "nan" is none: pandas
    reads an empty one so, and the text was then formatted with it."""
    found = _ALPACA.fullmatch(prompt)
    if not found:
        return prompt, ""
    instruction, given = split(found[2]) if found[1] else (found[2], "")
    return instruction, "" if given == "nan" else given


def texts(row: dict[str, Any], column: str, where: str) -> list[str]:
    """The list of texts in a column. Raises RecordError."""
    value = row.get(column)
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise RecordError(f"{where}: column {column!r} is {str(value)[:60]!r}; expected a list of texts")
    return value


def optional(row: dict[str, Any], column: str, where: str) -> str:
    """The text of a column that may be absent or null."""
    return "" if row.get(column) is None else text(row, column, where=where)
