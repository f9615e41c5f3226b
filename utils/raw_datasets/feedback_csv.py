"""Ratings and rankings of answers to an instruction and its input, in CSV files: to be asked for, with a header; or
answered, without one. The rows of one prompt become one record, so that its answers can be compared with one another.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from utils.raw_datasets.base import NamedOnly, RawDataset, raw_dataset, text
from utils.raw_datasets.instructions import MISSING, instruct
from utils.raw_datasets.sources import OnBad, Rows
from utils.raw_datasets.sources.tables import csv_rows
from utils.records import Answer, Record, RecordError, Verdict

BY_RATING = "ratings"  # the judge of a preference that two ratings imply
FEEDBACK = {"(a)": "a", "(b)": "b", "equal": "tie"}  # other feedback is no decision


class RatingVerdicts(Sequence):
    """The verdicts that the ratings of n answers imply of every two: n (n - 1) / 2, each made when it is read."""

    def __init__(self, ratings: Iterable[float]) -> None:
        self._ratings = tuple(ratings)

    def __len__(self) -> int:
        return math.comb(len(self._ratings), 2)

    def __iter__(self) -> Iterator[Verdict]:
        for (a, first), (b, second) in itertools.combinations(enumerate(self._ratings), 2):
            yield Verdict(a, b, implied(first, second), judge=BY_RATING)

    def __getitem__(self, which: int | slice) -> Verdict | tuple[Verdict, ...]:
        return tuple(self)[which]

    def __eq__(self, other: object) -> bool:
        return tuple(self) == tuple(other)

    def __hash__(self) -> int:
        return hash(tuple(self))


def asked_verdicts(record: Record) -> list[Verdict]:
    """Return the verdicts of judges, without those that follow from ratings."""
    if isinstance(record.verdicts, RatingVerdicts):
        return []
    return [verdict for verdict in record.verdicts if verdict.judge != BY_RATING]


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
        answers = (Answer(present(row, "response1", where)), Answer(present(row, "response2", where)))
        return Record(**instruct(*asked(row, where)), answers=answers, where=where)


@raw_dataset("ratings-feedback-csv")
class RatingsFeedback(NamedOnly):
    needs = "no header; instruction, input, output, score"
    columns = ("instruction", "input", "output", "score")

    @staticmethod
    def read(path: Path, on_bad: OnBad | None = None) -> Rows:
        return _by_prompt(path, on_bad, RatingsFeedback.columns, feedback_of=_rated)

    @staticmethod
    def record(row, where):
        """Return the rated answers, and what their ratings imply of every two of them."""
        answers = tuple(Answer(output, rating=score) for output, score in row["feedback"])
        verdicts = RatingVerdicts(answer.rating for answer in answers)
        return Record(**instruct(row["instruction"], row["input"]), answers=answers, verdicts=verdicts, where=where)


@raw_dataset("rankings-feedback-csv")
class RankingsFeedback(NamedOnly):
    needs = "no header; instruction, input, output1, output2, feedback: (a), (b) or equal"
    columns = ("instruction", "input", "output1", "output2", "feedback")

    @staticmethod
    def read(path: Path, on_bad: OnBad | None = None) -> Rows:
        """Read the prompts in the order of the first decision on each: the order of the reward model's file."""
        return _by_prompt(path, on_bad, RankingsFeedback.columns, feedback_of=_ranked, opens=_decided)

    @staticmethod
    def record(row, where):
        answers, verdicts = compared(row["feedback"])
        return Record(**instruct(row["instruction"], row["input"]), answers=answers, verdicts=verdicts, where=where)


def compared(pairs: Iterable[tuple[str, str, str]]) -> tuple[tuple[Answer, ...], tuple[Verdict, ...]]:
    """Return the answers and verdicts of (a text, another, preferred). A text is one answer, unless it is compared with
    itself."""
    places: dict[tuple[str, bool], int] = {}  # (text, whether it is the second copy) -> number of the answer
    verdicts = []
    for first, second, preferred in pairs:
        a = places.setdefault((first, False), len(places))
        # A text against itself takes a second copy: a verdict needs two answers.
        verdicts.append(Verdict(a, places.setdefault((second, second == first), len(places)), preferred))
    return tuple(Answer(text) for text, _ in places), tuple(verdicts)


def implied(first: float, second: float) -> str:
    """Return the verdict of two ratings."""
    if first == second:
        return "tie"
    return "a" if first > second else "b"


def asked(row, where: str) -> tuple[str, str]:
    """Return (instruction, input). An empty input was written as nan by a script that had read it with pandas."""
    given = ""
    if "input" in row:
        given = text(row, "input", where=where)
    instruction = present(row, "instruction", where)
    if given in ("", "nan"):
        return instruction, ""
    return instruction, present(row, "input", where)


def present(row, column: str, where: str) -> str:
    """Return the text of a column, which the programs that share these files must not read as missing."""
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
    output = present(row, "output", where)
    if score.is_integer():
        return output, int(score)
    return output, score


def _ranked(row, where: str):
    first, second = present(row, "output1", where), present(row, "output2", where)
    return first, second, FEEDBACK.get(row["feedback"], "failed")


def _decided(ranked: tuple[str, str, str]) -> bool:
    _, _, preferred = ranked
    return preferred in ("a", "b")


def _by_prompt(path: Path, on_bad: OnBad | None, names, feedback_of: Callable, opens: Callable = bool) -> Rows:
    """Return one row a prompt: {instruction, input, feedback: what each of its lines holds}. Prompts are in the order
    of the first line of each that `opens` it; those without one are last."""
    prompts: dict[tuple[str, str], tuple[dict, str]] = {}  # (instruction, input) -> (row, where)
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
        instruction, given = prompt
        group, _ = prompts.setdefault(prompt, ({"instruction": instruction, "input": given, "feedback": []}, where))
        group["feedback"].append(feedback)
        if opens(feedback):
            opened.setdefault(prompt, number)
    # sorted() is stable: prompts that no line opens keep the order of their first lines.
    in_order = sorted(prompts, key=lambda prompt: opened.get(prompt, math.inf))
    return map(prompts.__getitem__, in_order)
