"""Files of what was learned. Each is written whole, beside its place, from the rows and the ledger alone.

A .csv file takes ratings or verdicts in C's form, a .json file completions in E's or lessons in B's; any other name is
JSON Lines, in which a line of prompt and outputs keeps its fields and every other row becomes a record.
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from utils import formats
from utils.errors import UserError
from utils.feedback.cases import Case, Told
from utils.feedback.comparisons import BY_ORDER, SWAPPED, combined
from utils.feedback.lessons import tutoring_row
from utils.feedback.rows import FEEDBACK_TYPES
from utils.formats.files import replacing
from utils.raw_datasets.instructions import instruction_of
from utils.records import Record, write_jsonl
from utils.tutor_turns import INSTRUCTION

CSV = {"rating": "ratings-feedback-csv", "preference": "rankings-feedback-csv", "ranking": "rankings-feedback-csv"}
JSON = {"completion": "completions", "conversation": None, "label": "annotations"}
OF_LINES = (*FEEDBACK_TYPES.values(), "improve", "explain", "completion")  # kinds that a line has fields for
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


def write_results(path: Path, told: Iterable[Told]) -> Counter[str]:
    """What became of the rows: "rows" written, and the others by reason."""
    told = list(told)
    kind = told[0].case.kind
    tally: Counter[str] = Counter()
    if path.suffix == ".csv":
        return _foreign(CSV[kind], path, (_new_verdicts(each) for each in told))
    if path.suffix == ".json" and JSON[kind]:
        return _foreign(JSON[kind], path, (_new_verdicts(_new_answer(each)) for each in told))
    if kind == "conversation":
        rows = list(_lessons(told, tally))
        if path.suffix == ".json":
            with replacing(path) as out:
                json.dump(rows, out, ensure_ascii=False, indent=1)
        else:
            write_jsonl(path, rows)
    else:
        rows = [row for each in told for row in _row(each, tally)]
        write_jsonl(path, rows)
    tally["rows"] = len(rows)
    return tally


def _foreign(name: str, path: Path, records: Iterable[Record]) -> Counter[str]:
    """A file of utils/formats. A row that it cannot hold is counted: the others have been paid for."""
    refused: list[UserError] = []
    written = formats.write(name, path, records, refused.append)
    kept = {what: count for what, count in written.items() if what == "rows" or what.startswith("records without")}
    return Counter({**kept, **Counter(str(error) for error in refused)})


def _new_verdicts(told: Told) -> Record:
    return dataclasses.replace(told.record, verdicts=told.record.verdicts[len(told.case.record.verdicts) :])


def _new_answer(told: Told) -> Told:
    if told.case.kind != "completion":
        return told
    answers = told.record.answers[len(told.case.record.answers) :]
    return dataclasses.replace(told, record=dataclasses.replace(told.record, answers=answers))


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


def summary(told: Iterable[Told]) -> list[str]:
    """Printable lines: what came of the questions, the rows without a value by reason, and what a judge's place in the
    order was worth."""
    told = list(told)
    states, reasons, first = Counter(), Counter(), {}
    for each in told:
        for outcome in each.outcomes:
            states[outcome.state] += 1
            if outcome.state != "parsed":
                what = f"{outcome.state}: {outcome.reason}" if outcome.reason else outcome.state
                reasons[what] += 1
                first.setdefault(what, []).append(each.case.record.where)
    lines = [f"{states.total()} questions: " + (", ".join(f"{n} {s}" for s, n in states.most_common()) or "none")]
    for what, count in reasons.most_common():
        rows = list(dict.fromkeys(first[what]))
        lines.append(f"  {count} {what} ({', '.join(rows[:3])}{', …' if len(rows) > 3 else ''})")
    return lines + _places(told) + _aspects(told)


def _places(told: list[Told]) -> list[str]:
    both = []
    for each in told:
        before, after = (record.meta.get(BY_ORDER, []) for record in (each.case.record, each.record))
        both += after[len(before) :]
    said = [(order, pair[order]) for pair in both for order in ("ab", "ba") if pair[order] in ("a", "b")]
    if not said:
        return []
    same = sum(pair["ab"] == pair["ba"] for pair in both)
    first = sum(order[0] == preferred for order, preferred in said)
    return [f"both orders: {same} of {len(both)} pairs judged alike; the answer shown first won {first} of {len(said)}"]


def _aspects(told: list[Told]) -> list[str]:
    tally: dict[str, Counter[str]] = {}
    for each in told:
        source = each.case.source or each.record.meta
        for found in each.record.meta.get("explain", []) if each.case.kind == "explain" else []:
            name = str(source.get("feedback_type") or found["of"])
            tally.setdefault(name, Counter())[found["aspect"] or "unparsed"] += 1
    return [
        f"{name}: "
        + ", ".join(f"{aspect} {counts[aspect]}" for aspect in ("A", "B", "C", "unparsed") if counts[aspect])
        for name, counts in tally.items()
    ]
