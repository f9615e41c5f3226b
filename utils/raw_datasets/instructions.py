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
    """Return {prompt, meta} of a Record: the input `given` is written under a line of its own. Where the two texts
    cannot be told apart again in the message, meta keeps them."""
    content = instruction
    if given.strip():
        content = f"{instruction}{INPUT}{given}"
    meta = meta or {}
    if split(content) != (instruction, given):
        meta = {**meta, "instruction": instruction, "input": given}
    return {"prompt": (Message("user", content),), "meta": meta}


def split(content: str) -> tuple[str, str]:
    """Return (instruction, input) of a user message."""
    instruction, _, given = content.partition(INPUT)
    return instruction, given


def instruction_of(record: Record) -> tuple[str, str]:
    """Return (instruction, input) of a prompt that is one user message: the inverse of instruct()."""
    content = only_message(record)
    instruction, given = record.meta.get("instruction"), record.meta.get("input")
    # What meta keeps counts only while it gives the same message: a program may have changed the prompt.
    both = isinstance(instruction, str) and isinstance(given, str)
    if both and instruct(instruction, given)["prompt"] == record.prompt:
        return instruction, given
    return split(content)


def only_message(record: Record) -> str:
    """Return the text of a prompt that is one user message. Raises RecordError."""
    if len(record.prompt) > 1:
        roles = ", ".join(message.role for message in record.prompt)
        raise RecordError(f"{record.where}: the prompt has the turns {roles}; expected one instruction alone")
    (message,) = record.prompt
    return message.content


def alpaca_prompt(instruction: str, given: str) -> str:
    """Return the public Alpaca format, with the space that some leave after its last colon."""
    if given:
        return f"{_TASK}{_WITH_INPUT}{_REQUEST}{instruction}{INPUT}{given}\n\n### Response: "
    return f"{_TASK}{_REQUEST}{instruction}\n\n### Response: "


def from_alpaca_prompt(prompt: str) -> tuple[str, str]:
    """Return (instruction, input) of such a text, or of a text that is the instruction itself."""
    found = _ALPACA.fullmatch(prompt)
    if not found:
        return prompt, ""
    with_input, body = found.groups()
    if not with_input:
        return body, ""
    instruction, given = split(body)
    # pandas reads an empty input as nan, and the text was then formatted with it.
    return instruction, "" if given == "nan" else given


def texts(row: dict[str, Any], column: str, where: str) -> list[str]:
    """Return the list of texts in a column. Raises RecordError."""
    value = row.get(column)
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise RecordError(f"{where}: column {column!r} is {str(value)[:60]!r}; expected a list of texts")
    return value


def optional(row: dict[str, Any], column: str, where: str) -> str:
    """Return the text of a column that may be absent or null."""
    if row.get(column) is None:
        return ""
    return text(row, column, where=where)
