"""Plain rows that inference/chatbot.py has answered: what they were, and `greedy` or `sample`."""

from typing import Any

from utils.raw_datasets.base import RawDataset, detect, raw_dataset, rest, text
from utils.raw_datasets.instructions import optional, texts
from utils.records import Answer, Record, RecordError

ANSWERS = ("greedy", "greedy_finished", "greedy_generator", "sample", "sample_finished", "sample_generator")


@raw_dataset("chatbot")
class Chatbot(RawDataset):
    needs = "the columns of any class, and greedy: a text, or sample: a list of texts"
    columns = ANSWERS
    instead_of = ("prompt_answer", "alpaca", "pairs", "sharegpt", "messages", "hh_rlhf", "tutoring", "responses",
                  "generations", "generations-n")  # fmt: skip

    @staticmethod
    def fits(row):
        return isinstance(row.get("greedy"), str) or isinstance(row.get("sample"), list)

    @staticmethod
    def record(row, where):
        """Return the prompt of the row before it was answered, with the new answers alone; what else it holds is kept
        in meta."""
        asked = rest(row, ANSWERS)
        cls = detect(asked, where)
        greedy, sampled = [], []
        if "greedy" in row:
            greedy = [text(row, "greedy", where=where)]
        if "sample" in row:
            sampled = texts(row, "sample", where)
        answers = _marked(row, "greedy", greedy, where=where) + _marked(row, "sample", sampled, where=where)
        inner = cls.record(asked, where)
        return Record(inner.prompt, tuple(answers), where=where, meta=inner.meta)


def _marked(row: dict[str, Any], column: str, outputs: list[str], where: str) -> list[Answer]:
    """Return the answers of a column, those that were cut marked as not finished."""
    marks = row.get(f"{column}_finished", [True] * len(outputs))
    if not isinstance(marks, list):
        marks = [marks]
    if len(marks) != len(outputs):
        raise RecordError(f"{where}: {len(outputs)} answers and {len(marks)} marks in {column}_finished")
    model = optional(row, f"{column}_generator", where) or None
    return [Answer(output, model, finished=mark is not False) for output, mark in zip(outputs, marks, strict=True)]
