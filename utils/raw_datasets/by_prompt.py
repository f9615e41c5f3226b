"""One JSON object that holds a whole data set, a prompt to each key: completions, samples, pairs for reward models."""

from pathlib import Path

from utils.raw_datasets.base import NamedOnly, raw_dataset
from utils.raw_datasets.dialogue import prompt_of
from utils.raw_datasets.feedback_csv import compared
from utils.raw_datasets.instructions import from_alpaca_prompt, instruct, texts
from utils.raw_datasets.sources import OnBad, Rows
from utils.records import Answer, Message, Record, RecordError
from utils.records.lines import read_jsonl


class _ByPrompt(NamedOnly):
    columns = ("prompt", "answers")

    @staticmethod
    def read(path: Path, on_bad: OnBad | None = None) -> Rows:
        """Yield {prompt, answers} of each key and its value."""
        for row, where in read_jsonl(path, on_bad):
            if not isinstance(row, dict):
                raise RecordError(f"{where}: found {type(row).__name__}; expected one object with a prompt to each key")
            # The number of the key stands for a line's: the whole object may be one line.
            for number, (prompt, answers) in enumerate(row.items(), start=1):
                yield {"prompt": prompt, "answers": answers}, f"{path}[{number}]"


@raw_dataset("completions")
class Completions(_ByPrompt):
    needs = "one object, {instruction: [text, …], …}"

    @staticmethod
    def record(row, where):
        return Record((Message("user", row["prompt"]),), _answers(row, where), where=where)


@raw_dataset("samples")
class Samples(_ByPrompt):
    needs = "one object, {prompt as 'Human: …\\n\\nAssistant: ': [text, …], …}"

    @staticmethod
    def record(row, where):
        return Record(prompt_of(row["prompt"], where)[0], _answers(row, where), where=where)


@raw_dataset("rm-json")
class RmJson(_ByPrompt):
    needs = "one object, {Alpaca prompt: {sentences: [[better, worse], …]}, …}"

    @staticmethod
    def record(row, where):
        value = row["answers"]
        pairs = value.get("sentences") if isinstance(value, dict) else None
        if not isinstance(pairs, list) or not all(map(_is_pair, pairs)):
            found = f"{where}: found {str(value)[:60]!r}"
            raise RecordError(f"{found}; expected an object with sentences, a list of pairs of texts")
        answers, verdicts = compared((better, worse, "a") for better, worse in pairs)
        asked = from_alpaca_prompt(row["prompt"])
        return Record(**instruct(*asked), answers=answers, verdicts=verdicts, where=where)


def _answers(row, where: str) -> tuple[Answer, ...]:
    return tuple(map(Answer, texts(row, "answers", where)))


def _is_pair(value) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(isinstance(each, str) for each in value)
