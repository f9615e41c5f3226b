"""Feedback on answers compared with one another. Judges have position bias, so both orders are asked by default."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

from utils.feedback.cases import Asker, Case, Steps, hashed, kind, refusal_or_failure
from utils.llm.asking import Outcome
from utils.records import Record, RecordError, Verdict

SWAPPED = {"a": "b", "b": "a"}
# The judge of a tie between answers of one text, which no model has to be asked about.
IDENTICAL = "identical answers"
BY_ORDER = "by_order"  # in a record's meta: the verdicts on a pair in either order
_SHOWN = {"both": ("ab", "ba"), "fixed": ("ab",)}


def combined(verdicts: Sequence[str]) -> str:
    """Return one verdict for one or two orders: what they agree on, a tie where they do not, or what is missing."""
    # A failure before a refusal: a failed question is asked again by the next run.
    for missing in ("failed", "refused"):
        if missing in verdicts:
            return missing
    first, *others = verdicts
    if any(verdict != first for verdict in others):
        return "tie"
    return first


Judged = list[tuple[int, int, dict[str, str | None]]]  # a, b, {order: verdict, None where there is none yet}


def _verdict(outcome: Outcome, order: str) -> str | None:
    """Return the verdict on the answers themselves, whichever was shown first."""
    if outcome.state != "parsed":
        return refusal_or_failure(outcome)
    if order == "ba":
        return SWAPPED.get(outcome.value, outcome.value)
    return outcome.value


def _orders(asker: Asker, default: str, key: str) -> tuple[str, ...]:
    """Return the orders in which a pair is shown; a hash of `key` draws one where the order is random."""
    orders = asker.orders or default
    return _SHOWN.get(orders) or (("ab", "ba")[hashed(key, 2)],)


def with_verdicts(record: Record, judged: Judged, judge: str) -> Record:
    """Return the record with a verdict on each pair whose questions are answered, and both orders of it in its meta."""
    verdicts, both = [], []
    for a, b, said in judged:
        if None in said.values():
            continue
        if not said:
            verdicts.append(Verdict(a, b, "tie", judge=IDENTICAL))
            continue
        order = None
        if len(said) == 1:
            (order,) = said
        verdicts.append(Verdict(a, b, combined(list(said.values())), judge=judge, order=order))
        if len(said) == 2:
            both.append({"a": a, "b": b, **said})
    meta = dict(record.meta)
    if both:
        meta[BY_ORDER] = [*meta.get(BY_ORDER, []), *both]
    return dataclasses.replace(record, verdicts=(*record.verdicts, *verdicts), meta=meta)


def _pairwise(case: Case, asker: Asker, pairs: list[tuple[int, int]], default: str, key: str = "") -> Steps:
    """Ask for a verdict on each pair of answers, in the orders that the asker or `default` says."""
    asked, questions = [], []
    for a, b in pairs:
        first, second = case.record.answers[a].text, case.record.answers[b].text
        # Answers of one text are equal without a question.
        orders = ()
        if first != second:
            orders = _orders(asker, default, key or f"{case.record.id} {a} {b}")
        asked.append((a, b, orders))
        shown = {"ab": [first, second], "ba": [second, first]}
        questions += [asker.question("preference", case, shown[order]) for order in orders]
    outcomes = iter((yield questions))
    judged = []
    for a, b, orders in asked:
        judged.append((a, b, {order: _verdict(next(outcomes), order) for order in orders}))
    return with_verdicts(case.record, judged, asker.model)


@kind("preference", "preference", answers=2)
def preference(case: Case, asker: Asker) -> Steps:
    """which of two answers is better, or neither"""
    if len(case.numbers) != 2:
        found = f"{case.record.where}: {len(case.numbers)} answers to compare"
        raise RecordError(f"{found}; name two models with --base_models a,b, or ask for --kind ranking")
    return (yield from _pairwise(case, asker, [case.numbers], default="both"))


@kind("label", "preference", answers=2)
def label(case: Case, asker: Asker) -> Steps:
    """which of two generators answers better; the order shown is drawn by a hash of the instruction"""
    key = case.record.prompt[-1].content
    record = yield from _pairwise(case, asker, [case.numbers], default="random", key=key)
    verdicts = tuple(dataclasses.replace(verdict, judge=asker.model) for verdict in record.verdicts)
    return dataclasses.replace(record, verdicts=verdicts)


@kind("ranking", "preference", "order", answers=2)
def ranking(case: Case, asker: Asker) -> Steps:
    """all pairs of k answers; with --listwise one order of all k"""
    if not asker.listwise:
        pairs = list(itertools.combinations(case.numbers, 2))
        return (yield from _pairwise(case, asker, pairs, default="both"))
    count = len(case.numbers)
    if count > 26:
        raise RecordError(f"{case.record.where}: {count} answers; --listwise names them by letter, 26 at most")
    shown, questions = _rows_shown(case, asker), []
    for row in shown:
        texts = [case.record.answers[number].text for number in row]
        questions.append(asker.question("order", case, texts))
    outcomes = yield questions
    judged = []
    for a, b in itertools.combinations(case.numbers, 2):
        said = {}
        for row, outcome in zip(shown, outcomes, strict=True):
            order = "ba"
            if row.index(a) < row.index(b):
                order = "ab"
            said[order] = _placed(row, outcome, a, b)
        judged.append((a, b, said))
    return _with_ranks(with_verdicts(case.record, judged, asker.model), case.numbers, judged)


def _rows_shown(case: Case, asker: Asker) -> list[tuple[int, ...]]:
    """Return the order, or the two orders, in which all answers are shown."""
    if asker.orders == "fixed":
        return [case.numbers]
    if asker.orders == "both":
        return [case.numbers, case.numbers[::-1]]
    # A hash instead of a random generator: the same record is shown in the same order by every run.
    return [tuple(sorted(case.numbers, key=lambda number: hashed(f"{case.record.id} {number}", 1 << 62)))]


def _placed(row: tuple[int, ...], outcome: Outcome, a: int, b: int) -> str | None:
    """Return the verdict on two answers of a row shown, from the order of all of them."""
    if outcome.state != "parsed":
        return refusal_or_failure(outcome)
    place = {}
    for number, group in enumerate(outcome.value):
        for letter in group:
            place[row[letter]] = number
    if place[a] == place[b]:
        return "tie"
    if place[a] < place[b]:
        return "a"
    return "b"


def _with_ranks(record: Record, numbers: tuple[int, ...], judged: Judged) -> Record:
    """Return the record with ranks (1 + the number of better answers), or as it is where a verdict is missing."""
    better = dict.fromkeys(numbers, 0)
    for a, b, said in judged:
        verdict = combined(list(said.values()))
        if verdict == "a":
            better[b] += 1
        elif verdict == "b":
            better[a] += 1
        elif verdict != "tie":
            return record
    answers = list(record.answers)
    for number, count in better.items():
        answers[number] = dataclasses.replace(answers[number], rank=1 + count)
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
    for found, outcome in zip(what, outcomes, strict=True):
        found["aspect"] = outcome.value  # None unless it is parsed
    return dataclasses.replace(record, meta={**record.meta, "explain": what})
