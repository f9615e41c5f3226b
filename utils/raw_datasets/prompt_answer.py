"""A prompt and at most one answer: demonstrations, questions with their answers, prompts alone."""

from utils.raw_datasets.base import RawDataset, raw_dataset, rest, text
from utils.raw_datasets.dialogue import prompt_of
from utils.records import Answer, Record, RecordError

ANSWER = ("answer", "completion", "response", "output", "chosen")


@raw_dataset("prompt_answer")
class PromptAnswer(RawDataset):
    needs = f"prompt, and the answer, if there is one, as {' or '.join(ANSWER)}"
    columns = ("prompt", *ANSWER)

    @staticmethod
    def fits(row):
        return isinstance(row.get("prompt"), str) and not {"answers", "rejected", "reject"} & set(row)

    @staticmethod
    def record(row, where):
        if "prompt" not in row:
            raise RecordError(f"{where}: no column 'prompt'; found the columns {', '.join(row)}")
        prompt, formatted = prompt_of(row["prompt"], where)
        columns = [name for name in ANSWER if name in row]
        if len(columns) > 1:
            raise RecordError(f"{where}: found {' and '.join(columns)}; expected one of them")
        answers = [text(row, name, where=where) for name in columns]
        # "Assistant: Fig.": the space belongs to the format.
        if formatted:
            answers = list(map(str.strip, answers))
        meta = rest(row, PromptAnswer.columns)
        return Record(prompt, tuple(map(Answer, answers)), where=where, meta=meta)
