"""AlpacaEval's annotations: two outputs for an instruction, and which of them a judge prefers."""

import math

from utils.raw_datasets.base import RawDataset, raw_dataset, rest, text
from utils.raw_datasets.instructions import optional
from utils.records import Answer, Message, Record, RecordError, Verdict

TIE, FAILED = 0, None  # as they are written; 1.5 is a tie as well, -1 and NaN are failures
# How far from 0, 1, 1.5 and 2 a preference may be: AlpacaEval's averages of log-probs give 1.0000048.
NOISE = 0.01


@raw_dataset("annotations")
class Annotations(RawDataset):
    needs = "instruction, output_1, output_2, preference: 1, 2, 0 or 1.5 for a tie, null for no answer"
    columns = ("instruction", "output_1", "generator_1", "output_2", "generator_2", "annotator", "preference")
    instead_of = ("alpaca", "generations")

    @staticmethod
    def fits(row):
        return {"instruction", "output_1", "output_2", "preference"} <= set(row)

    @staticmethod
    def record(row, where):
        """Read the two outputs and the preference. One that is not simply 1, 2, 0 or null is kept in meta as it was."""
        first_model = optional(row, "generator_1", where) or None
        # Files of one model against a reference name the model in `generator` alone.
        second_model = optional(row, "generator_2", where) or optional(row, "generator", where) or None
        first = Answer(text(row, "output_1", where=where), first_model)
        second = Answer(text(row, "output_2", where=where), second_model)
        if "preference" not in row:
            raise RecordError(f"{where}: no column 'preference'; found the columns {', '.join(row)}")
        preferred = preference(row["preference"], where)
        meta = rest(row, (*Annotations.columns, "generator"))
        if row["preference"] != written(preferred):
            meta["preference"] = row["preference"]
            # NaN is no JSON, and the meta is written as JSON.
            if row["preference"] != row["preference"]:
                meta["preference"] = None
        verdict = Verdict(0, 1, preferred, judge=optional(row, "annotator", where) or None)
        prompt = (Message("user", text(row, "instruction", where=where)),)
        return Record(prompt, (first, second), (verdict,), where=where, meta=meta)


def preference(value, where: str) -> str:
    """Return a | b | tie | failed. Raises RecordError."""
    if value is None or value in (-1, FAILED) or value != value:
        return "failed"
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not number or not (abs(value) < NOISE or 1 - NOISE < value < 2 + NOISE):
        raise RecordError(f"{where}: preference is {str(value)[:60]!r}; expected 1, 2, 0 or 1.5 for a tie, or null")
    if abs(value) < NOISE or abs(value - 1.5) < NOISE:
        return "tie"
    return "a" if value < 1.5 else "b"


def written(preferred: str) -> int | None:
    """Return the number of a verdict in these files."""
    return {"a": 1, "b": 2, "tie": TIE}.get(preferred, FAILED)
