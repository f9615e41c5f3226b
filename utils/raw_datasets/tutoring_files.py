"""The other files of coded tutoring: conversations, coded or not, and a model's answers beside the ones expected."""

import ast
import json

from utils.raw_datasets.base import NamedOnly, RawDataset, raw_dataset, rest, text
from utils.raw_datasets.chat import ShareGPT
from utils.raw_datasets.dialogue import prompt_of
from utils.raw_datasets.sources.tables import csv_rows
from utils.raw_datasets.tutoring import Tutoring
from utils.records import Answer, Record

EXPECTED, GIVEN = "gpt", "response"  # the columns, and the models that answered


@raw_dataset("conversations")
class Conversations(NamedOnly):
    needs = "conversations: a list of {from, value}; coded tutor turns are read as such"
    columns = ("conversations",)

    @staticmethod
    def record(row, where):
        if Tutoring.fits(row):
            return Tutoring.record(row, where)
        return ShareGPT.record(row, where)


@raw_dataset("responses-csv")
class ResponsesCSV(RawDataset):
    needs = "prompt, response, gpt: a model's answer and the one expected"
    columns = ("prompt", GIVEN, EXPECTED)
    instead_of = ("prompt_answer",)
    read = staticmethod(csv_rows)  # whatever the file is called

    @staticmethod
    def fits(row):
        return {"prompt", GIVEN, EXPECTED} <= set(row)

    @staticmethod
    def record(row, where):
        """Return both answers, the expected one first. An object in Python's spelling is read as JSON."""
        answers = tuple(Answer(from_python(text(row, name, where=where)), name) for name in (EXPECTED, GIVEN))
        words = text(row, "prompt", where=where)
        if words.rstrip().endswith("Tutorbot:"):
            prompt = Tutoring.record({"prompt": words, "chosen": ""}, where).prompt
        else:
            prompt, _ = prompt_of(words, where)
        return Record(prompt, answers, where=where, meta=rest(row, ResponsesCSV.columns))


def from_python(words: str) -> str:
    """Return a dict in Python's spelling as JSON; any text that would not be spelled so again stays as it is."""
    try:
        value = ast.literal_eval(words)
        if not isinstance(value, dict):
            return words
        spelled = json.dumps(value, ensure_ascii=False)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return words
    return spelled if to_python(spelled) == words else words


def to_python(words: str) -> str:
    """Return a JSON object in Python's spelling: the inverse of from_python."""
    try:
        value = json.loads(words)
    except (json.JSONDecodeError, RecursionError):
        return words
    if isinstance(value, dict) and json.dumps(value, ensure_ascii=False) == words:
        return repr(value)
    return words
