"""Files of feedback, each written whole and beside its place, from the rows and the ledger alone.

A .csv file holds ratings or verdicts, a .json file completions, annotations or lessons, each in the form of another
system (docs/feedback.md). Any other name is JSON Lines, in which a line of prompt and outputs keeps its fields and
every other row becomes a record.
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

from utils import formats
from utils.errors import UserError
from utils.feedback.cases import SETTLED, Case, CaseResult
from utils.feedback.comparisons import SWAPPED, combined
from utils.feedback.lessons import tutoring_row
from utils.feedback.rows import FEEDBACK_TYPES
from utils.feedback.tutor_turns import INSTRUCTION
from utils.formats.files import replacing
from utils.raw_datasets.instructions import instruction_of
from utils.records import Record
from utils.records.files import write_jsonl

CSV = {"rating": "ratings-feedback-csv", "preference": "rankings-feedback-csv", "ranking": "rankings-feedback-csv"}
JSON = {"completion": "completions", "conversation": None, "label": "annotations"}
OF_LINES = (*FEEDBACK_TYPES.values(), "improve", "explain", "completion")  # kinds that a line has fields for
TYPE_OF = {kind: name for name, kind in FEEDBACK_TYPES.items()}
UNANSWERED = "unanswered"  # in a record's meta: why questions about it have no answer yet
# The feedback of a line whose two orders disagree: a tie, in the form of a reply.
DISAGREE = "Answer: C"


def check_output(path: Path, cases: Iterable[Case]) -> Iterator[Case]:
    """Pass the cases on. Raises UserError for one that could not be written, before anything is asked."""
    known = {".csv": CSV, ".json": JSON}.get(path.suffix)
    for case in cases:
        if known is not None and case.kind not in known:
            can = f"{path.suffix} holds {', '.join(known)}"
            raise UserError(f"--output_file {path}: {can}; give a name that ends in .jsonl for --kind {case.kind}")
        if path.suffix == ".csv" or (path.suffix == ".json" and case.kind == "completion"):
            instruction_of(case.record)
        yield case


def write_results(path: Path, kind: str, results: Iterable[CaseResult]) -> Counter[str]:
    """Write a file of feedback.

    Returns counts: "rows" written, and the rows left out by reason. Reads `results` once. Raises UserError where no row
    would be written.
    """
    if path.suffix == ".csv":
        return _foreign(CSV[kind], path, map(_news, results))
    if path.suffix == ".json" and JSON[kind]:
        return _foreign(JSON[kind], path, map(_news, results))
    tally: Counter[str] = Counter()
    if kind == "conversation":
        rows = _lessons(results, tally)
    else:
        rows = chain.from_iterable(_row(result, tally) for result in results)
    # The file is opened when there is a row for it: an earlier one is not replaced by an empty one.
    first = list(islice(rows, 1))
    if not first:
        reasons = "".join(f"; {count} {why}" for why, count in tally.items() if count)
        raise UserError(f"{path}: no rows left to write{reasons}")
    rows = chain(first, rows)
    if path.suffix == ".json":
        rows = list(rows)
        with replacing(path) as out:
            json.dump(rows, out, ensure_ascii=False, indent=1)
        tally["rows"] = len(rows)
    else:
        tally["rows"] = write_jsonl(path, rows)
    return tally


def _foreign(name: str, path: Path, records: Iterable[Record]) -> Counter[str]:
    """Write a file of utils/formats. A row that it cannot hold is counted: the others have been paid for."""
    refused: list[UserError] = []
    written = formats.write(name, path, records, refused.append)
    tally: Counter[str] = Counter()
    for what, count in written.items():
        if what == "rows" or what.startswith("records without"):
            tally[what] = count
    for error in refused:
        tally[str(error)] += 1
    return tally


def _news(result: CaseResult) -> Record:
    """Return the record without the verdicts, and for a completion the answers, that it had before."""
    before, record = result.case.record, result.record
    answers = record.answers
    if result.case.kind == "completion":
        answers = answers[len(before.answers) :]
    return dataclasses.replace(record, answers=answers, verdicts=record.verdicts[len(before.verdicts) :])


def _lessons(results: Iterable[CaseResult], tally: Counter[str]) -> Iterator[dict[str, Any]]:
    for number, result in enumerate(results):
        meta = result.record.meta
        if "lesson" not in meta:
            tally["objectives without a lesson"] += 1
            continue
        row = tutoring_row(f"identity_{number}", INSTRUCTION, meta["lesson"])
        yield {**row, "objective": result.record.prompt[-1].content, "problem": meta["problem"]}


def _row(result: CaseResult, tally: Counter[str]) -> Iterator[Any]:
    """Yield the row to be written, or count why there is none."""
    case = result.case
    if case.kind == "completion" and len(result.record.answers) == len(case.record.answers):
        tally["answers that did not come to their end"] += result.settled
        tally["prompts without an answer"] += not result.settled
    elif case.source is None or case.kind not in OF_LINES:
        yield _with_failures(result)
    else:
        fields = _LINES[case.kind](result)
        if fields is None:
            tally["lines without feedback"] += 1
        else:
            yield {**case.source, **_in_order(case), **fields}


def _with_failures(result: CaseResult) -> Record:
    """Return the record, with the reasons of questions that have no answer yet in its meta: a row that was not judged
    must not pass for one in which the judge found nothing."""
    record, missing = result.record, []
    for outcome in result.outcomes:
        if outcome.state not in SETTLED:
            missing.append(outcome.reason or outcome.state)
    meta = {name: value for name, value in record.meta.items() if name != UNANSWERED}
    if missing:
        meta[UNANSWERED] = missing
    return dataclasses.replace(record, meta=meta)


def _in_order(case: Case) -> dict[str, Any]:
    """Return the row's outputs, those that were asked about first: A and B of a reply are the first and the second."""
    name = "output"
    if "outputs" in case.source:
        name = "outputs"
    outputs = case.source.get(name)
    if not isinstance(outputs, dict):
        return {}
    asked = [case.record.answers[number].model for number in case.numbers]
    return {name: {model: outputs[model] for model in dict.fromkeys([*asked, *outputs])}}


def _feedback(result: CaseResult) -> dict[str, Any] | None:
    """Return the reply as it came, and its prompt; with both orders both replies, and the one that they agree on."""
    if not result.outcomes:
        # Identical answers: nobody was asked.
        return {"feedback_type": "prefer", "feedback": DISAGREE}
    texts = [outcome.text for outcome in result.outcomes]
    if None in texts:
        return None
    fields = {"feedback_type": TYPE_OF[result.case.kind], "feedback": texts[0], "prompt-api": _prompt(result)}
    if len(texts) == 1:
        return fields
    verdicts = []
    for outcome in result.outcomes:
        verdict = "failed"
        if outcome.state == "parsed":
            verdict = outcome.value
        verdicts.append(verdict)
    first, second = verdicts
    agreed = combined([first, SWAPPED.get(second, second)])
    # The reply of the first order is the line's feedback, unless the second order contradicts it.
    if agreed != first:
        fields["feedback"] = DISAGREE
        # The reply that could not be read: the first alone would pass for what both orders agree on.
        if agreed == "failed":
            fields["feedback"] = texts[1]
    return {**fields, "feedback-both": texts}


def _improved(result: CaseResult) -> dict[str, Any] | None:
    number, *_ = result.case.numbers
    answer = result.record.answers[number]
    if not answer.refinement:
        return None
    return {"prompt-api": _prompt(result), "chosen": answer.refinement, "reject": answer.text}


def _explained(result: CaseResult) -> dict[str, Any] | None:
    outcome, *_ = result.outcomes
    if not outcome.text:
        return None
    return {"judge": outcome.text, "prompt-api": _prompt(result)}


def _completed(result: CaseResult) -> dict[str, Any] | None:
    answer, source = result.record.answers[-1], result.case.source
    outputs = source.get("outputs", source.get("output"))
    if not isinstance(outputs, dict):
        outputs = {}
    return {"outputs": {**outputs, answer.model: answer.text}}


_LINES = {
    **dict.fromkeys(FEEDBACK_TYPES.values(), _feedback),
    "improve": _improved,
    "explain": _explained,
    "completion": _completed,
}


def _prompt(result: CaseResult) -> str:
    """Return the words of the user's message in a case's first question."""
    question, *_ = result.questions
    return question.request.body["messages"][-1]["content"]
