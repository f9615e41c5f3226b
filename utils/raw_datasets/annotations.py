"""AlpacaEval's annotations: two outputs for an instruction, and which of them a judge prefers."""

import math

from utils.raw_datasets.base import RawDataset, raw_dataset, rest, text
from utils.raw_datasets.instructions import optional
from utils.records import Answer, Message, Record, RecordError, Verdict

TIE, FAILED = 0, None  # as they are written; 1.5 is a tie as well, -1 and NaN are failures
NOISE = 0.01  # how far from its value a preference may lie: averages of log-probs give 1.0000048


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
        """A preference that is not simply 1, 2, 0 or null is kept in meta as it was."""
        models = [optional(row, f"generator_{n}", where) or None for n in (1, 2)]
        models[1] = models[1] or optional(row, "generator", where) or None
        texts = [text(row, f"output_{n}", where=where) for n in (1, 2)]
        if "preference" not in row:
            raise RecordError(f"{where}: no column 'preference'; found the columns {', '.join(row)}")
        preferred = preference(row["preference"], where)
        meta = rest(row, (*Annotations.columns, "generator"))
        if row["preference"] != written(preferred):
            meta["preference"] = row["preference"] if row["preference"] == row["preference"] else None
        verdict = Verdict(0, 1, preferred, judge=optional(row, "annotator", where) or None)
        answers = tuple(Answer(content, model) for content, model in zip(texts, models, strict=True))
        prompt = (Message("user", text(row, "instruction", where=where)),)
        return Record(prompt, answers, (verdict,), where=where, meta=meta)


def preference(value, where: str) -> str:
    """a | b | tie | failed. Raises RecordError."""
    if value is None or value in (-1, FAILED) or value != value:
        return "failed"
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not number or not (abs(value) < NOISE or 1 - NOISE < value < 2 + NOISE):
        raise RecordError(f"{where}: preference is {str(value)[:60]!r}; expected 1, 2, 0 or 1.5 for a tie, or null")
    if abs(value) < NOISE or abs(value - 1.5) < NOISE:
        return "tie"
    return "a" if value < 1.5 else "b"


def written(preferred: str) -> int | None:
    return {"a": 1, "b": 2, "tie": TIE}.get(preferred, FAILED)
