"""Feedback on single answers, and new answers."""

from __future__ import annotations

import dataclasses

from utils.feedback.cases import SETTLED, Asker, Case, Steps, kind
from utils.feedback.pairs.pairing import NOT_IMPROVED, UNCHANGED
from utils.llm.asking import Outcome, Question
from utils.records import Answer, Record

STOP, LENGTH = "stop", "length"  # finish reasons: an answer came to its own end, or was cut at the limit of tokens
CUT = "cut at the limit of tokens"
# Parsers of texts that people or models learn from: half of one is none. A verdict may be read from half a reply.
TEXTS = ("critique", "refinement", "improve", "problem", "conversation")


def whole(question: Question, outcome: Outcome) -> Outcome:
    """Return an outcome; one of a text that was cut is unparsed, and its words are left out."""
    if outcome.state == "parsed" and question.parser in TEXTS and outcome.finish_reason == LENGTH:
        return Outcome("unparsed", finish_reason=LENGTH, reason=CUT)
    return outcome


def with_facts(record: Record, field: str, facts: dict[int, object]) -> Record:
    """Return the record with a field of some of its answers set: {number of the answer: value}."""
    answers = list(record.answers)
    for number, value in facts.items():
        answers[number] = dataclasses.replace(answers[number], **{field: value})
    return dataclasses.replace(record, answers=tuple(answers))


def _of_each(case: Case, asker: Asker, prompt: str, field: str) -> Steps:
    """Ask about each answer by itself, and keep the values in a field of the answers."""
    outcomes = yield [asker.question(prompt, case, [text]) for text in case.texts]
    facts = {}
    for number, outcome in zip(case.numbers, outcomes, strict=True):
        if outcome.state == "parsed":
            facts[number] = outcome.value
    return with_facts(case.record, field, facts)


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
    numbers, questions = [], []
    for number in case.numbers:
        answer = case.record.answers[number]
        if answer.critique:
            numbers.append(number)
            questions.append(asker.question("improve", case, [answer.text], comment=answer.critique))
    outcomes = yield questions
    changed, without = {}, []
    for number, outcome in zip(numbers, outcomes, strict=True):
        if outcome.state == "parsed" and outcome.value != case.record.answers[number].text.strip():
            changed[number] = outcome.value
        elif outcome.state == "parsed":
            without.append({"answer": number, "why": UNCHANGED})
        elif outcome.state in SETTLED:
            without.append({"answer": number, "why": outcome.reason or outcome.state})
    record = with_facts(case.record, "refinement", changed)
    if not without:
        return record
    return dataclasses.replace(record, meta={**record.meta, NOT_IMPROVED: without})


@kind("completion", "completion", answers=0)
def completion(case: Case, asker: Asker) -> Steps:
    """an answer of --api_type to the prompt, for supervised fine-tuning; dropped unless it came to its own end"""
    question = asker.next_turn(case)
    (outcome,) = yield [question]
    # An answer that was cut would teach the student to stop in the middle.
    if outcome.state != "parsed" or outcome.finish_reason != STOP:
        return case.record
    body = question.request.body
    sent = {"temperature": body.get("temperature"), "max_tokens": body.get("max_completion_tokens")}
    sent["max_tokens"] = sent["max_tokens"] or body.get("max_tokens")
    sampling = {name: value for name, value in sent.items() if value is not None}
    answer = Answer(outcome.value, asker.model, sampling)
    return dataclasses.replace(case.record, answers=(*case.record.answers, answer))
