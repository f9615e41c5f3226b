"""Plain rows that inference/chatbot.py has answered: what they were, and `greedy` or `sample`."""

from utils.raw_datasets.base import RawDataset, detect, raw_dataset, rest, text
from utils.raw_datasets.instructions import texts
from utils.records import Answer, Record, RecordError

ANSWERS = ("greedy", "greedy_finished", "sample", "sample_finished")


@raw_dataset("chatbot")
class Chatbot(RawDataset):
    needs = "the columns of any class, and greedy: a text, or sample: a list of texts"
    columns = ANSWERS
    instead_of = ("prompt_answer", "alpaca", "pairs", "sharegpt", "messages", "hh_rlhf", "tutoring", "responses")

    @staticmethod
    def fits(row):
        return isinstance(row.get("greedy"), str) or isinstance(row.get("sample"), list)

    @staticmethod
    def record(row, where):
        """The prompt of the row before it was answered, with the new answers alone; the rest of it is kept in meta."""
        asked = rest(row, ANSWERS)
        cls = detect(asked, where)
        answers = []
        for column, outputs in (("greedy", _greedy(row, where)), ("sample", _sampled(row, where))):
            finished = row.get(f"{column}_finished", [True] * len(outputs))
            finished = finished if isinstance(finished, list) else [finished]
            if len(finished) != len(outputs):
                raise RecordError(f"{where}: {len(outputs)} answers and {len(finished)} marks in {column}_finished")
            answers += [Answer(a, finished=end is not False) for a, end in zip(outputs, finished, strict=True)]
        inner = cls.record(asked, where)
        return Record(inner.prompt, tuple(answers), where=where, meta=inner.meta)


def _greedy(row, where: str) -> list[str]:
    return [text(row, "greedy", where=where)] if "greedy" in row else []


def _sampled(row, where: str) -> list[str]:
    return texts(row, "sample", where) if "sample" in row else []
