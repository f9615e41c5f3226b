"""Ratings and rankings of answers to an instruction and its input, in CSV files: to be asked for, with a header; or
answered, without one. The rows of one prompt become one record, so that its answers can be compared with one another.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable
from pathlib import Path

from utils.raw_datasets.base import NamedOnly, RawDataset, raw_dataset, text
from utils.raw_datasets.instructions import MISSING, instruct
from utils.raw_datasets.sources import OnBad, Rows, csv_rows
from utils.records import Answer, Record, RecordError, Verdict

BY_RATING = "ratings"  # the judge of a preference that two ratings imply
FEEDBACK = {"(a)": "a", "(b)": "b", "equal": "tie"}  # other feedback is no decision


@raw_dataset("ratings-csv", "ratings-eval-csv")
class RatingsCSV(RawDataset):
    needs = "instruction, input, response"
    columns = ("instruction", "input", "response")
    instead_of = ("alpaca",)
    read = staticmethod(csv_rows)  # whatever the file is called

    @staticmethod
    def fits(row):
        return {"instruction", "response"} <= set(row)

    @staticmethod
    def record(row, where):
        answer = Answer(present(row, "response", where))
        return Record(**instruct(*asked(row, where)), answers=(answer,), where=where)


@raw_dataset("rankings-csv", "rankings-eval-csv")
class RankingsCSV(RawDataset):
    needs = "instruction, input, response1, response2"
    columns = ("instruction", "input", "response1", "response2")
    instead_of = ("alpaca",)
    read = staticmethod(csv_rows)  # whatever the file is called

    @staticmethod
    def fits(row):
        return {"instruction", "response1", "response2"} <= set(row)

    @staticmethod
    def record(row, where):
        answers = tuple(Answer(present(row, name, where)) for name in ("response1", "response2"))
        return Record(**instruct(*asked(row, where)), answers=answers, where=where)


@raw_dataset("ratings-feedback-csv")
class RatingsFeedback(NamedOnly):
    needs = "no header; instruction, input, output, score"
    columns = ("instruction", "input", "output", "score")

    @staticmethod
    def read(path: Path, on_bad: OnBad | None = None) -> Rows:
        return _by_prompt(path, on_bad, RatingsFeedback.columns, _rated)

    @staticmethod
    def record(row, where):
        """The rated answers, and what their ratings imply of every two of them."""
        answers = tuple(Answer(output, rating=score) for output, score in row["feedback"])
        pairs = itertools.combinations(range(len(answers)), 2)
        verdicts = tuple(Verdict(a, b, implied(answers[a].rating, answers[b].rating), BY_RATING) for a, b in pairs)
        return Record(**instruct(row["instruction"], row["input"]), answers=answers, verdicts=verdicts, where=where)


@raw_dataset("rankings-feedback-csv")
class RankingsFeedback(NamedOnly):
    needs = "no header; instruction, input, output1, output2, feedback: (a), (b) or equal"
    columns = ("instruction", "input", "output1", "output2", "feedback")

    @staticmethod
    def read(path: Path, on_bad: OnBad | None = None) -> Rows:
        """In the order of the first decision on each prompt: the order of the reward model's file."""
        return _by_prompt(path, on_bad, RankingsFeedback.columns, _ranked, lambda row: row[2] in ("a", "b"))

    @staticmethod
    def record(row, where):
        answers, verdicts = compared(row["feedback"])
        return Record(**instruct(row["instruction"], row["input"]), answers=answers, verdicts=verdicts, where=where)


def compared(pairs: Iterable[tuple[str, str, str]]) -> tuple[tuple[Answer, ...], tuple[Verdict, ...]]:
    """Answers and verdicts of (a text, another, preferred). A text is one answer, unless it is compared with itself."""
    texts: list[str] = []
    verdicts = [Verdict(_place(texts, a), _place(texts, b, int(a == b)), preferred) for a, b, preferred in pairs]
    return tuple(map(Answer, texts)), tuple(verdicts)


def _place(texts: list[str], wanted: str, copy: int = 0) -> int:
    """The number of the text's first or second copy among `texts`, which gain what they lack."""
    texts += [wanted] * (1 + copy - texts.count(wanted))
    return [n for n, each in enumerate(texts) if each == wanted][copy]


def implied(a: float, b: float) -> str:
    return "tie" if a == b else "a" if a > b else "b"


def asked(row, where: str) -> tuple[str, str]:
    """(instruction, input). An empty input was written as nan by a script that had read it with pandas."""
    given = text(row, "input", where=where) if "input" in row else ""
    return present(row, "instruction", where), "" if given in ("", "nan") else present(row, "input", where)


def present(row, column: str, where: str) -> str:
    """The text of a column, which the programs that share these files must not read as missing."""
    value = text(row, column, where=where)
    if value in MISSING:
        raise RecordError(f"{where}: column {column!r} is {value!r}, which pandas reads as a missing value")
    return value


def _rated(row, where: str):
    try:
        score = float(row["score"])
    except ValueError:
        score = math.nan
    if not math.isfinite(score):
        raise RecordError(f"{where}: column 'score' is {row['score'][:60]!r}; expected a number")
    return present(row, "output", where), int(score) if score.is_integer() else score


def _ranked(row, where: str):
    outputs = [present(row, column, where) for column in ("output1", "output2")]
    return *outputs, FEEDBACK.get(row["feedback"], "failed")


def _by_prompt(path: Path, on_bad: OnBad | None, names, feedback_of: Callable, opens: Callable = bool) -> Rows:
    """One row a prompt: {instruction, input, feedback: what each of its lines says}. Prompts are in the order of the
    first line of each that `opens` it; those without one are last."""
    prompts: dict[tuple[str, str], tuple[dict, str]] = {}
    opened: dict[tuple[str, str], int] = {}
    for number, (row, where) in enumerate(csv_rows(path, on_bad, names)):
        try:
            if tuple(row.values()) == names:
                raise RecordError(f"{where}: the file has a header; expected none")
            prompt, feedback = asked(row, where), feedback_of(row, where)
        except RecordError as error:
            if on_bad is None:
                raise
            on_bad(error)
            continue
        group = {"instruction": prompt[0], "input": prompt[1], "feedback": []}
        prompts.setdefault(prompt, (group, where))[0]["feedback"].append(feedback)
        if opens(feedback):
            opened.setdefault(prompt, number)
    return iter([prompts[prompt] for prompt in sorted(prompts, key=lambda prompt: opened.get(prompt, math.inf))])
