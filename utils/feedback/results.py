"""Files of what was learned. Each is written whole, beside its place, from the rows and the ledger alone.

A .csv file takes ratings or verdicts in C's form, a .json file completions in E's or lessons in B's; any other name is
JSON Lines, in which a line of prompt and outputs keeps its fields and every other row becomes a record.
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
from utils.feedback.cases import Case, Told
from utils.feedback.comparisons import BY_ORDER, SWAPPED, combined
from utils.feedback.lessons import tutoring_row
from utils.feedback.rows import FEEDBACK_TYPES
from utils.feedback.tutor_turns import INSTRUCTION
from utils.formats.files import replacing
from utils.raw_datasets.instructions import instruction_of
from utils.records import Record, write_jsonl

CSV = {"rating": "ratings-feedback-csv", "preference": "rankings-feedback-csv", "ranking": "rankings-feedback-csv"}
JSON = {"completion": "completions", "conversation": None, "label": "annotations"}
OF_LINES = (*FEEDBACK_TYPES.values(), "improve", "explain", "completion")  # kinds that a line has fields for
SHOWN = 3  # rows named for each reason
TYPE_OF = {kind: name for name, kind in FEEDBACK_TYPES.items()}
DISAGREE = "Answer: C"  # the feedback of a line whose two orders disagree: their tie, in the form of a reply


def check_output(path: Path, cases: Iterable[Case]) -> None:
    """Refuse, before anything is asked, what could not be written. Raises UserError."""
    for case in cases:
        known = {".csv": CSV, ".json": JSON}.get(path.suffix)
        if known is not None and case.kind not in known:
            can = f"{path.suffix} holds {', '.join(known)}"
            raise UserError(f"--output_file {path}: {can}; give a name that ends in .jsonl for --kind {case.kind}")
        if path.suffix == ".csv" or (path.suffix == ".json" and case.kind == "completion"):
            instruction_of(case.record)


def write_results(path: Path, kind: str, told: Iterable[Told]) -> Counter[str]:
    """Reads `told` once. What became of the rows: "rows" written, and the others by reason. Raises UserError where
    none would be written."""
    if path.suffix == ".csv":
        return _foreign(CSV[kind], path, map(_news, told))
    if path.suffix == ".json" and JSON[kind]:
        return _foreign(JSON[kind], path, map(_news, told))
    tally: Counter[str] = Counter()
    rows = _lessons(told, tally) if kind == "conversation" else (row for each in told for row in _row(each, tally))
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
    """A file of utils/formats. A row that it cannot hold is counted: the others have been paid for."""
    refused: list[UserError] = []
    written = formats.write(name, path, records, refused.append)
    kept = {what: count for what, count in written.items() if what == "rows" or what.startswith("records without")}
    return Counter({**kept, **Counter(str(error) for error in refused)})


def _news(told: Told) -> Record:
    """The record without the verdicts, and for a completion the answers, that it had before."""
    before, record = told.case.record, told.record
    answers = record.answers[len(before.answers) :] if told.case.kind == "completion" else record.answers
    return dataclasses.replace(record, answers=answers, verdicts=record.verdicts[len(before.verdicts) :])


def _lessons(told: Iterable[Told], tally: Counter[str]) -> Iterator[dict[str, Any]]:
    for number, each in enumerate(told):
        if "lesson" not in each.record.meta:
            tally["objectives without a lesson"] += 1
            continue
        meta = each.record.meta
        row = tutoring_row(f"identity_{number}", INSTRUCTION, meta["lesson"])
        yield {**row, "objective": each.record.prompt[-1].content, "problem": meta["problem"]}


def _row(told: Told, tally: Counter[str]) -> Iterator[Any]:
    """The row to be written, or none and why."""
    if told.case.kind == "completion" and len(told.record.answers) == len(told.case.record.answers):
        tally["answers that did not come to their end"] += told.settled
        tally["prompts without an answer"] += not told.settled
    elif told.case.source is None or told.case.kind not in OF_LINES:
        yield told.record
    else:
        fields = _LINES[told.case.kind](told)
        if fields is None:
            tally["lines without feedback"] += 1
        else:
            yield {**told.case.source, **_in_order(told.case), **fields}


def _in_order(case: Case) -> dict[str, Any]:
    """The row's outputs, those that were asked about first: A and B of the reply are the first and the second."""
    name = "outputs" if "outputs" in case.source else "output"
    outputs = case.source.get(name)
    if not isinstance(outputs, dict):
        return {}
    asked = [case.record.answers[number].model for number in case.numbers]
    return {name: {model: outputs[model] for model in dict.fromkeys([*asked, *outputs])}}


def _feedback(told: Told) -> dict[str, Any] | None:
    """The reply as it came, and what was asked; with both orders both replies, and the one that they agree on."""
    texts = [outcome.text for outcome in told.outcomes]
    if not texts or None in texts:
        return None if told.outcomes else {"feedback_type": "prefer", "feedback": DISAGREE}  # identical answers
    fields = {"feedback_type": TYPE_OF[told.case.kind], "feedback": texts[0], "prompt-api": _prompt(told)}
    if len(texts) == 1:
        return fields
    first, second = told.outcomes
    said = [outcome.value if outcome.state == "parsed" else "failed" for outcome in (first, second)]
    agreed = combined([said[0], SWAPPED.get(said[1], said[1])])
    if agreed != said[0]:
        fields["feedback"] = texts[1] if agreed == "failed" else DISAGREE
    return {**fields, "feedback-both": texts}


def _improved(told: Told) -> dict[str, Any] | None:
    number = told.case.numbers[0]
    new, old = told.record.answers[number].refinement, told.record.answers[number].text
    return {"prompt-api": _prompt(told), "chosen": new, "reject": old} if new else None


def _explained(told: Told) -> dict[str, Any] | None:
    return {"judge": told.outcomes[0].text, "prompt-api": _prompt(told)} if told.outcomes[0].text else None


def _completed(told: Told) -> dict[str, Any] | None:
    answer = told.record.answers[-1]
    had = told.case.source.get("outputs", told.case.source.get("output"))
    return {"outputs": {**(had if isinstance(had, dict) else {}), answer.model: answer.text}}


_LINES = {
    **dict.fromkeys(FEEDBACK_TYPES.values(), _feedback),
    "improve": _improved,
    "explain": _explained,
    "completion": _completed,
}


def _prompt(told: Told) -> str:
    return told.questions[0].request.body["messages"][-1]["content"]


class Summary:
    """What came of the questions, which rows have no value and why, and what a judge's place in the order was worth."""

    def __init__(self) -> None:
        self.states: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self._rows: dict[str, list[str]] = {}  # the first rows of each reason
        self._alike, self._pairs, self._first, self._decided = 0, 0, 0, 0
        self._aspects: dict[str, Counter[str]] = {}

    def watch(self, told: Iterable[Told]) -> Iterator[Told]:
        """The same, counted on the way."""
        for each in told:
            self._add(each)
            yield each

    def _add(self, told: Told) -> None:
        for outcome in told.outcomes:
            self.states[outcome.state] += 1
            if outcome.state != "parsed":
                what = f"{outcome.state}: {outcome.reason}" if outcome.reason else outcome.state
                self.reasons[what] += 1
                rows = self._rows.setdefault(what, [])
                if len(rows) <= SHOWN and told.case.record.where not in rows:
                    rows.append(told.case.record.where)
        before, after = (record.meta.get(BY_ORDER, []) for record in (told.case.record, told.record))
        for pair in after[len(before) :]:
            self._pairs += 1
            self._alike += pair["ab"] == pair["ba"]
            self._decided += sum(pair[order] in ("a", "b") for order in ("ab", "ba"))
            self._first += sum(pair[order] == order[0] for order in ("ab", "ba"))
        for found in told.record.meta.get("explain", []) if told.case.kind == "explain" else []:
            name = (told.case.source or told.record.meta).get("feedback_type") or found["of"]
            self._aspects.setdefault(str(name), Counter())[found["aspect"] or "unparsed"] += 1

    def lines(self) -> list[str]:
        """Printable."""
        states = ", ".join(f"{count} {state}" for state, count in self.states.most_common()) or "none"
        lines = [f"{self.states.total()} questions: {states}"]
        for what, count in self.reasons.most_common():
            rows = self._rows[what]
            lines.append(f"  {count} {what} ({', '.join(rows[:SHOWN])}{', …' if len(rows) > SHOWN else ''})")
        if self._decided:
            lines.append(f"both orders: {self._alike} of {self._pairs} pairs judged alike; the answer shown first won "
                         f"{self._first} of {self._decided}")  # fmt: skip
        for name, counts in self._aspects.items():
            told = (f"{aspect} {counts[aspect]}" for aspect in ("A", "B", "C", "unparsed") if counts[aspect])
            lines.append(f"{name}: {', '.join(told)}")
        return lines
