"""Read comparisons of a model's answers with a reference's, by prompt, from ratings, rankings or records."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from utils.errors import UserError
from utils.raw_datasets.feedback_csv import RankingsFeedback, RatingsFeedback, asked, implied
from utils.raw_datasets.sources.tables import csv_rows
from utils.records import Record, RecordError

OUTCOMES = {"a": 0.0, "tie": 0.5, "b": 1.0}  # a: the reference's answer is preferred, b: the model's


@dataclass
class Comparisons:
    """Judged comparisons.

    Args:
        sizes: how many rows each input has, by its name.
        outcomes: for each prompt what its judgements say: 1 the model's answer is better, 1/2 a tie, 0 worse.
        lengths: for each prompt (the model's, the reference's) answer length in characters.
        refused: judgements that the judge declined.
        failed: judgements without a readable verdict.
    """

    sizes: dict[str, int]
    outcomes: list[list[float]] = field(default_factory=list)
    lengths: list[tuple[int, int]] = field(default_factory=list)
    refused: int = 0
    failed: int = 0

    def __post_init__(self) -> None:
        self._row_of: dict[object, int] = {}

    def add(self, prompt: object, verdict: str, model: str, reference: str) -> None:
        """Count one judgement.

        Args:
            prompt: key of the prompt; judgements of one prompt belong together.
            verdict: a | b | tie | refused | failed, as in utils/records; b is the model's answer.
            model: the model's answer; its length is kept for the prompt's first judgement.
            reference: the reference's answer.
        """
        if verdict == "refused":
            self.refused += 1
        elif verdict == "failed":
            self.failed += 1
        else:
            row = self._row_of.setdefault(prompt, len(self.outcomes))
            if row == len(self.outcomes):
                self.outcomes.append([])
                self.lengths.append((len(model), len(reference)))
            self.outcomes[row].append(OUTCOMES[verdict])


def of_rating_files(reference: Path, model: Path, join: Literal["prompt", "instruction"]) -> Comparisons:
    """Compare the ratings of two files, prompt by prompt.

    Args:
        reference: feedback CSV without a header (instruction,input,output,score) of the reference's answers.
        model: the same of the model's answers.
        join: prompt joins rows of equal instruction and input; instruction joins on the instruction alone.

    Returns:
        One outcome for each prompt that both files rate; of a prompt's rows in a file the first counts.

    Raises:
        UserError: a row cannot be read, or no prompt is in both files.
    """
    theirs, ours = _first_ratings(reference, join), _first_ratings(model, join)
    found = Comparisons({str(reference): len(theirs), str(model): len(ours)})
    for prompt, (answer, score) in ours.items():
        if prompt in theirs:
            other, other_score = theirs[prompt]
            found.add(prompt, implied(other_score, score), answer, other)
    if not found.outcomes:
        raise UserError(f"no prompt of {model} is in {reference}; expected ratings of answers to the same prompts")
    return found


def _first_ratings(path: Path, join: str) -> dict[tuple[str, ...], tuple[str, float]]:
    """Return {prompt: (answer, score)} of a ratings file."""
    found: dict[tuple[str, ...], tuple[str, float]] = {}
    for row, where in csv_rows(path, None, RatingsFeedback.columns):
        try:
            instruction, given = asked(row, where)
            score = float(row["score"])
        except ValueError as error:  # RecordError is one
            raise UserError(_not_rated(row, where, error)) from error
        if score != score:
            raise UserError(_not_rated(row, where, None))
        key = (instruction,) if join == "instruction" else (instruction, given)
        found.setdefault(key, (row["output"], score))
    if not found:
        raise UserError(f"{path}: no rows; expected instruction,input,output,score without a header")
    return found


def _not_rated(row: dict[str, str], where: str, error: ValueError | None) -> str:
    if isinstance(error, RecordError):
        return str(error)
    header = " (the file has a header; expected none)" if row["score"] == "score" else ""
    return f"{where}: column 'score' is {row['score'][:60]!r}; expected a number{header}"


def of_ranking_files(path: Path) -> Comparisons:
    """Compare the two answers of each row of a rankings file; output2 is the model's.

    Args:
        path: feedback CSV without a header (instruction,input,output1,output2,feedback), feedback (a), (b) or equal.

    Returns:
        One outcome for each row; another word than (a), (b) or equal counts as failed.

    Raises:
        UserError: a row cannot be read, or none has a verdict.
    """
    found = Comparisons({str(path): 0})
    verdicts = {"(a)": "a", "(b)": "b", "equal": "tie"}
    for number, (row, where) in enumerate(csv_rows(path, None, RankingsFeedback.columns)):
        if tuple(row.values()) == RankingsFeedback.columns:
            raise UserError(f"{where}: the file has a header; expected none")
        found.sizes[str(path)] += 1
        # rows of one prompt count one by one, as in the source's script: the row number is part of the key
        found.add(number, verdicts.get(row["feedback"], "failed"), row["output2"], row["output1"])
    if not found.outcomes:
        raise UserError(f"{path}: no verdicts; expected instruction,input,output1,output2,feedback without a header")
    return found


def of_records(records: Iterable[Record], model: str, reference: str | None) -> Comparisons:
    """Compare the answers of two models by the verdicts of records.

    Args:
        records: with verdicts; both orders of one judgement are two outcomes of the prompt.
        model: name of the model, as in its answers.
        reference: name of the reference; None: every other model.

    Raises:
        UserError: no verdict compares the two.
    """
    found = Comparisons({"verdicts": 0})
    models: set[str] = set()
    for record in records:
        for verdict in record.verdicts:
            first, second = record.answers[verdict.a], record.answers[verdict.b]
            models |= {str(first.model), str(second.model)}
            names = (first.model, second.model)
            if names.count(model) != 1 or (reference is not None and reference not in names):
                continue
            ours, theirs, preferred = second, first, verdict.preferred
            if first.model == model:
                ours, theirs = first, second
                preferred = {"a": "b", "b": "a"}.get(preferred, preferred)
            found.sizes["verdicts"] += 1
            found.add(record.prompt, preferred, ours.text, theirs.text)
    if not found.sizes["verdicts"]:
        known = ", ".join(sorted(models)) or "none"
        raise UserError(f"no verdict compares --model {model} with {reference or 'another'}; compared models: {known}")
    return found
