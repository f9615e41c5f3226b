"""Feedback on single answers, and new answers."""

from __future__ import annotations

import dataclasses

from utils.feedback.cases import SETTLED, Asker, Case, Steps, kind
from utils.feedback.pairs.pairing import NOT_IMPROVED, UNCHANGED
from utils.records import Answer, Record

STOP = "stop"  # the finish reason of an answer that came to its own end


def with_facts(record: Record, field: str, facts: dict[int, object]) -> Record:
    """The record with a field of some of its answers set: {number of the answer: value}."""
    answers = tuple(
        dataclasses.replace(answer, **{field: facts[number]}) if number in facts else answer
        for number, answer in enumerate(record.answers)
    )
    return dataclasses.replace(record, answers=answers)


def _of_each(case: Case, asker: Asker, prompt: str, field: str) -> Steps:
    outcomes = yield [asker.question(prompt, case, [text]) for text in case.texts]
    known = zip(case.numbers, outcomes, strict=True)
    return with_facts(case.record, field, {number: told.value for number, told in known if told.state == "parsed"})


@kind("critique", "critique")
def critique(case: Case, asker: Asker) -> Steps:
    """faults of an answer and advice, in words"""
    return (yield from _of_each(case, asker, "critique", "critique"))


@kind("refinement", "refinement")
def refinement(case: Case, asker: Asker) -> Steps:
    """a better answer"""
    return (yield from _of_each(case, asker, "refinement", "refinement"))


@kind("rating", "rating")
def rating(case: Case, asker: Asker) -> Steps:
    """a number on --scale"""
    return (yield from _of_each(case, asker, "rating", "rating"))


@kind("improve", "improve", needs="an answer with a critique (--kind critique)")
def improve(case: Case, asker: Asker) -> Steps:
    """an answer rewritten as its critique asks; one that comes back as it was is no improvement"""
    answers = {n: case.record.answers[n] for n in case.numbers if case.record.answers[n].critique}
    outcomes = yield [asker.question("improve", case, [a.text], comment=a.critique) for a in answers.values()]
    changed, without = {}, []
    for (number, answer), told in zip(answers.items(), outcomes, strict=True):
        if told.state == "parsed" and told.value != answer.text.strip():
            changed[number] = told.value
        elif told.state in SETTLED:
            why = UNCHANGED if told.state == "parsed" else told.reason or told.state
            without.append({"answer": number, "why": why})
    record = with_facts(case.record, "refinement", changed)
    return dataclasses.replace(record, meta={**record.meta, NOT_IMPROVED: without}) if without else record


@kind("completion", "completion", answers=0)
def completion(case: Case, asker: Asker) -> Steps:
    """an answer of --api_type to the prompt, for supervised fine-tuning; dropped unless it came to its own end"""
    (told,) = yield [asker.next_turn(case)]
    if told.state != "parsed" or told.finish_reason != STOP:
        return case.record
    sampling = {"temperature": asker.temperature, **({"max_tokens": asker.max_tokens} if asker.max_tokens else {})}
    answer = Answer(told.value, asker.model, sampling)
    return dataclasses.replace(case.record, answers=(*case.record.answers, answer))
