"""Feedback on answers compared with one another. Every judge prefers a place, so both orders are asked by default."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

from utils.feedback.cases import Asker, Case, Steps, hashed, kind, refusal_or_failure
from utils.llm.asking import Outcome
from utils.records import Record, RecordError, Verdict

SWAPPED = {"a": "b", "b": "a"}
IDENTICAL = "identical answers"  # the judge of a tie that nobody has to be asked about
BY_ORDER = "by_order"  # in a record's meta: what the judge said of a pair in either order
_SHOWN = {"both": ("ab", "ba"), "fixed": ("ab",)}


def combined(verdicts: Sequence[str]) -> str:
    """One verdict of one or two orders: what they agree on, a tie where they do not, nothing where one is missing."""
    for missing in ("failed", "refused"):
        if missing in verdicts:
            return missing
    return verdicts[0] if len(set(verdicts)) == 1 else "tie"


Judged = list[tuple[int, int, dict[str, str | None]]]  # a, b, {order: the verdict, None where none is there yet}


def _said(outcome: Outcome, order: str) -> str | None:
    """The verdict on the answers themselves, whichever was shown first."""
    if outcome.state != "parsed":
        return refusal_or_failure(outcome)
    return SWAPPED.get(outcome.value, outcome.value) if order == "ba" else outcome.value


def _orders(asker: Asker, default: str, key: str) -> tuple[str, ...]:
    orders = asker.orders or default
    return _SHOWN.get(orders) or (("ab", "ba")[hashed(key, 2)],)


def with_verdicts(record: Record, judged: Judged, judge: str) -> Record:
    """The record with a verdict on each pair whose questions are answered, and both orders of it in its meta."""
    judged = [(a, b, said) for a, b, said in judged if None not in said.values()]
    verdicts = [
        Verdict(a, b, combined(list(said.values())), judge, next(iter(said)) if len(said) == 1 else None)
        if said
        else Verdict(a, b, "tie", IDENTICAL)
        for a, b, said in judged
    ]
    both = [{"a": a, "b": b, **said} for a, b, said in judged if len(said) == 2]
    meta = {**record.meta, **({BY_ORDER: [*record.meta.get(BY_ORDER, []), *both]} if both else {})}
    return dataclasses.replace(record, verdicts=(*record.verdicts, *verdicts), meta=meta)


def _pairwise(case: Case, asker: Asker, pairs: list[tuple[int, int]], default: str, key: str) -> Steps:
    asked, questions = [], []
    for a, b in pairs:
        first, second = (case.record.answers[number].text for number in (a, b))
        orders = () if first == second else _orders(asker, default, key or f"{case.record.id} {a} {b}")
        asked.append((a, b, orders))
        shown = {"ab": [first, second], "ba": [second, first]}
        questions += [asker.question("preference", case, shown[order]) for order in orders]
    outcomes = iter((yield questions))
    judged = [(a, b, {order: _said(next(outcomes), order) for order in orders}) for a, b, orders in asked]
    return with_verdicts(case.record, judged, asker.model)


@kind("preference", "preference", answers=2)
def preference(case: Case, asker: Asker) -> Steps:
    """which of two answers is better, or neither"""
    if len(case.numbers) != 2:
        found = f"{case.record.where}: {len(case.numbers)} answers to compare"
        raise RecordError(f"{found}; name two models with --base_models a,b, or ask for --kind ranking")
    return (yield from _pairwise(case, asker, [case.numbers], "both", ""))


@kind("label", "preference", answers=2)
def label(case: Case, asker: Asker) -> Steps:
    """which of two generators answers better; the order shown is drawn by a hash of the instruction"""
    record = yield from _pairwise(case, asker, [case.numbers], "random", case.record.prompt[-1].content)
    verdicts = tuple(dataclasses.replace(verdict, judge=asker.model) for verdict in record.verdicts)
    return dataclasses.replace(record, verdicts=verdicts)


@kind("ranking", "preference", "order", answers=2)
def ranking(case: Case, asker: Asker) -> Steps:
    """all pairs of k answers; with --listwise one order of all k"""
    if not asker.listwise:
        pairs = list(itertools.combinations(case.numbers, 2))
        return (yield from _pairwise(case, asker, pairs, "both", ""))
    count = len(case.numbers)
    if count > 26:
        raise RecordError(f"{case.record.where}: {count} answers; --listwise names them by letter, 26 at most")
    shown = _rows_shown(case, asker)
    outcomes = yield [asker.question("order", case, [case.record.answers[n].text for n in row]) for row in shown]
    judged = []
    for a, b in itertools.combinations(case.numbers, 2):
        rows = zip(shown, outcomes, strict=True)
        said = [("ab" if row.index(a) < row.index(b) else "ba", _placed(row, told, a, b)) for row, told in rows]
        judged.append((a, b, dict(said)))
    return _with_ranks(with_verdicts(case.record, judged, asker.model), case.numbers, judged)


def _rows_shown(case: Case, asker: Asker) -> list[tuple[int, ...]]:
    """The order, or the two orders, in which all answers are shown."""
    if asker.orders == "fixed":
        return [case.numbers]
    if asker.orders == "both":
        return [case.numbers, case.numbers[::-1]]
    return [tuple(sorted(case.numbers, key=lambda number: hashed(f"{case.record.id} {number}", 1 << 62)))]


def _placed(row: tuple[int, ...], outcome: Outcome, a: int, b: int) -> str | None:
    """The verdict on two answers of a row shown, from the order of all of them."""
    if outcome.state != "parsed":
        return refusal_or_failure(outcome)
    place = {row[letter]: number for number, group in enumerate(outcome.value) for letter in group}
    return "tie" if place[a] == place[b] else "a" if place[a] < place[b] else "b"


def _with_ranks(record: Record, numbers: tuple[int, ...], judged: Judged) -> Record:
    """The answers' ranks: 1 and how many are better. None where a verdict is missing."""
    verdicts = [(a, b, combined(list(said.values()))) for a, b, said in judged]
    if any(verdict not in ("a", "b", "tie") for _, _, verdict in verdicts):
        return record
    better = dict.fromkeys(numbers, 0)
    for a, b, verdict in verdicts:
        if verdict != "tie":
            better[b if verdict == "a" else a] += 1
    answers = [
        dataclasses.replace(answer, rank=1 + better[number]) if number in better else answer
        for number, answer in enumerate(record.answers)
    ]
    return dataclasses.replace(record, answers=tuple(answers))


@kind("explain", "explain", answers=0, needs="a decided pair, a critique or a refinement")
def explain(case: Case, asker: Asker) -> Steps:
    """in which aspect the chosen answer is better, or a critique would make it so: helpful, correct, or harmless"""
    record = case.record
    questions, what = [], []
    for winner, loser in record.pairs():
        questions.append(asker.question("explain", case, [record.answers[winner].text, record.answers[loser].text]))
        what.append({"of": "preference", "answers": [winner, loser]})
    for number, answer in enumerate(record.answers):
        if answer.critique:
            questions.append(asker.question("explain-comment", case, [answer.text], comment=answer.critique))
            what.append({"of": "critique", "answers": [number]})
        elif answer.refinement:
            questions.append(asker.question("explain", case, [answer.refinement, answer.text]))
            what.append({"of": "refinement", "answers": [number]})
    outcomes = yield questions
    aspects = [told.value if told.state == "parsed" else None for told in outcomes]
    found = [{**each, "aspect": aspect} for each, aspect in zip(what, aspects, strict=True)]
    return dataclasses.replace(record, meta={**record.meta, "explain": found})
