"""Read comparisons of a model's answers with a reference's, by prompt, from ratings, rankings or records."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from utils.errors import UserError
from utils.raw_datasets.feedback_csv import FEEDBACK, RankingsFeedback, RatingsFeedback, asked, implied
from utils.raw_datasets.sources.tables import csv_rows
from utils.records import Record, RecordError, content_id

OUTCOMES = {"a": 0.0, "tie": 0.5, "b": 1.0}  # a: the reference's answer is preferred, b: the model's
SWAPPED = {"a": "b", "b": "a"}
BY_ORDER = "by_order"  # in a record's meta: the verdicts in either order, of which request.py makes one
IDENTICAL = "identical answers"  # the judge of a tie between answers of one text, as request.py names it
UNKNOWN = "unknown"


@dataclass
class Comparisons:
    """Judged comparisons of a model's answers with a reference's.

    Args:
        sizes: how many rows each input has, by its name.
        outcomes: for each prompt what its judgements say: 1 the model's answer is better, 1/2 a tie, 0 worse.
        differences: for each judgement the length of the model's answer - that of the reference's, in characters.
        first_shown: for each prompt 1 where a judge preferred the answer that it saw first, 1/2 for a tie, 0 the other;
            judgements whose order is known.
        refused: judgements that the judge declined.
        failed: judgements without a readable verdict.
        manifest: what must be equal in two evaluations that are compared, by name (utils/evaluation/manifest.py).
        references: the reference's answers to each prompt.
    """

    sizes: dict[str, int]
    outcomes: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    differences: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    first_shown: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    refused: int = 0
    failed: int = 0
    manifest: dict[str, object] = field(default_factory=dict)
    references: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))

    def add(self, prompt: str, verdict: str, model: str, reference: str) -> None:
        """Count one judgement.

        Args:
            prompt: key of the prompt; judgements of one prompt belong together.
            verdict: a | b | tie | refused | failed, as in utils/records.py; b is the model's answer.
            model: the model's answer.
            reference: the reference's answer.
        """
        self.references[prompt].add(reference)
        if verdict == "refused":
            self.refused += 1
        elif verdict == "failed":
            self.failed += 1
        else:
            self.add_outcome(prompt, OUTCOMES[verdict], model, reference)

    def add_outcome(self, prompt: str, outcome: float, model: str, reference: str) -> None:
        """Count one judgement that is a number.

        Args:
            prompt: key of the prompt.
            outcome: 1 the model's answer is better, 1/2 a tie, 0 worse, or in between.
            model: the model's answer.
            reference: the reference's answer.
        """
        self.references[prompt].add(reference)
        self.outcomes[prompt].append(outcome)
        self.differences[prompt].append(len(model) - len(reference))

    def describe(self, protocol: str, **facts: object) -> None:
        """Set the manifest: the protocol, its facts, and a digest of the prompts and the reference's answers."""
        answers = json.dumps([[prompt, sorted(texts)] for prompt, texts in sorted(self.references.items())])
        self.manifest = {"protocol": protocol, **facts, "reference_answers": key(answers)}


def key(*texts: str) -> str:
    """Return a digest of texts, 16 hexadecimal digits."""
    return hashlib.blake2b(json.dumps(texts).encode(), digest_size=8).hexdigest()


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
            found.add(key(*prompt), implied(other_score, score), answer, other)
    found.describe("ratings", join=join)
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
    for row, where in csv_rows(path, None, RankingsFeedback.columns):
        if tuple(row.values()) == RankingsFeedback.columns:
            raise UserError(f"{where}: the file has a header; expected none")
        found.sizes[str(path)] += 1
        prompt = key(row["instruction"], row["input"])
        found.add(prompt, FEEDBACK.get(row["feedback"], "failed"), row["output2"], row["output1"])
    if not found.outcomes:
        raise UserError(f"{path}: no verdicts; expected instruction,input,output1,output2,feedback without a header")
    found.describe("rankings")
    return found


def of_records(records: Iterable[Record], model: str, reference: str | None) -> Comparisons:
    """Compare the answers of two models by the verdicts of records.

    Args:
        records: with verdicts; both orders of one judgement are two outcomes of the prompt.
        model: name of the model, as in its answers.
        reference: name of the reference; None: every other model.

    Raises:
        UserError: no verdict compares the two, or none that does could be read.
    """
    found = Comparisons({"verdicts": 0})
    models, judges, orders, decodings = set(), set(), set(), set()
    for record in records:
        for verdict in record.verdicts:
            first, second = record.answers[verdict.a], record.answers[verdict.b]
            models |= {str(first.model), str(second.model)}
            if not _compares(first.model, second.model, model, reference):
                continue
            ours, theirs, preferred = second, first, verdict.preferred
            if first.model == model:
                ours, theirs = first, second
                preferred = SWAPPED.get(preferred, preferred)
            prompt = content_id(record.prompt, ())
            found.sizes["verdicts"] += 1
            found.add(prompt, preferred, ours.text, theirs.text)
            # Two equal texts are a tie without a judge, whoever judges the others.
            if verdict.judge != IDENTICAL:
                judges.add(verdict.judge or UNKNOWN)
                orders.add(verdict.order or ("both" if BY_ORDER in record.meta else UNKNOWN))
            decodings.add(decoding(ours.sampling))
        for a, b, outcome in shown_first(record):
            if _compares(record.answers[a].model, record.answers[b].model, model, reference):
                found.first_shown[content_id(record.prompt, ())].append(outcome)
    if not found.sizes["verdicts"]:
        known = ", ".join(sorted(models)) or "none"
        raise UserError(f"no verdict compares --model {model} with {reference or 'another'}; compared models: {known}")
    if not found.outcomes:
        counts = f"{found.refused} were refused, {found.failed} could not be read"
        raise UserError(f"none of {found.sizes['verdicts']} verdicts on {model} decides: {counts}; ask the judge again")
    found.describe("judged", reference=reference, judge=sorted(judges), orders=sorted(orders),
                   decoding=sorted(decodings))  # fmt: skip
    return found


def _compares(first: str | None, second: str | None, model: str, reference: str | None) -> bool:
    """Tell whether one of two answers is the model's, and the other one the reference's (None: any other model's)."""
    names = (first, second)
    return names.count(model) == 1 and (reference is None or reference in names)


def decoding(sampling: dict | None) -> str:
    """Return settings of sampling as text, without the seed: another draw is the same way of decoding."""
    if sampling is None:
        return UNKNOWN
    return json.dumps({name: value for name, value in sampling.items() if name != "seed"}, sort_keys=True)


def shown_first(record: Record) -> Iterator[tuple[int, int, float]]:
    """Yield (a, b, outcome) of each judgement of answers a and b whose order is known.

    The outcome is 1 where the answer that was shown first is preferred, 1/2 for a tie, 0 for the other one.
    """
    judgements = [(verdict.a, verdict.b, verdict.order, verdict.preferred) for verdict in record.verdicts]
    for both in record.meta.get(BY_ORDER, []):
        judgements += [(both["a"], both["b"], order, both.get(order)) for order in ("ab", "ba")]
    for a, b, order, preferred in judgements:
        if order in ("ab", "ba") and preferred in OUTCOMES:
            if order == "ba":
                preferred = SWAPPED.get(preferred, preferred)
            yield a, b, 1 - OUTCOMES[preferred]
