"""A model's answers as rows of AlpacaEval: instruction, output, generator, dataset."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from utils.errors import UserError
from utils.raw_datasets import base
from utils.raw_datasets.spec import Spec
from utils.raw_datasets.whole import rows_of
from utils.records import Record, RecordError


def model_outputs(spec: str, generator: str | None) -> Iterator[dict[str, Any]]:
    """Yield one row for each instruction.

    Args:
        spec: [CLASS:]PATH of rows with one answer each: records, outputs, or plain rows that chatbot.py answered.
        generator: the name of all answers; None: the one that they have.

    Raises:
        UserError: there are no rows, a row has no answer or several, an instruction is in two rows, or an answer has no
            name.
    """
    source, seen = Spec.of(spec), {}
    for row, where in rows_of(source.path, source.cls and source.cls.read):
        record = _record(row, where, source)
        if len(record.prompt) > 1:
            raise RecordError(
                f"{where}: the prompt has {len(record.prompt)} messages; AlpacaEval has instructions alone"
            )
        instruction = record.prompt[0].content
        earlier = seen.setdefault(instruction, where)
        if earlier != where:
            raise UserError(f"{where}: the instruction {instruction[:60]!r} is at {earlier}, too; expected each once")
        if len(record.answers) != 1:
            raise UserError(f"{where}: found {len(record.answers)} answers; expected one to each instruction")
        (answer,) = record.answers
        name = generator or answer.model
        if not name:
            raise UserError(f"{where}: the answer has no model's name; give --generator NAME")
        out = {"instruction": instruction, "output": answer.text, "generator": name}
        if "dataset" in record.meta:
            out["dataset"] = record.meta["dataset"]
        yield out
    if not seen:
        raise UserError(f"{spec}: no rows; expected answers to instructions")


def _record(row: Any, where: str, source: Spec) -> Record:
    if not isinstance(row, dict):
        raise RecordError(f"{where}: found {type(row).__name__}; expected an object of columns")
    # In a row of outputs `output` is the reference's; what chatbot.py answered to its instruction is in a new column.
    cls = source.cls
    if cls is None and base.RAW_DATASETS["chatbot"].fits(row):
        cls = base.RAW_DATASETS["chatbot"]
    return (cls or base.detect(row, where)).record(row, where)
