"""A prompt and the answers of named models to it: what is asked about, once it is grouped."""

from __future__ import annotations

from typing import Any

from utils.raw_datasets.base import RawDataset, raw_dataset, rest
from utils.raw_datasets.dialogue import prompt_of
from utils.records import Answer, Record, RecordError


@raw_dataset("outputs")
class Outputs(RawDataset):
    needs = "prompt, output or outputs: an object of model and text"
    columns = ("prompt", "output", "outputs")
    instead_of = ("prompt_answer", "pairs")

    @staticmethod
    def fits(row):
        return "prompt" in row and "feedback" not in row and isinstance(row.get("output", row.get("outputs")), dict)

    @staticmethod
    def record(row, where):
        prompt, _ = prompt_of(row.get("prompt"), where)
        return Record(prompt, answers_of(row, where), where=where, meta=rest(row, Outputs.columns))


def answers_of(row: dict[str, Any], where: str) -> tuple[Answer, ...]:
    """Return the answers of `output` (or `outputs`), an object of model and text. Raises RecordError."""
    found = row.get("output", row.get("outputs"))
    if not isinstance(found, dict) or not found or not all(isinstance(answer, str) for answer in found.values()):
        raise RecordError(f"{where}: column 'output' is {str(found)[:60]!r}; expected an object of model and text")
    return tuple(Answer(answer, model) for model, answer in found.items())
