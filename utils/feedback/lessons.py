"""Tutoring dialogues in two steps: a problem for each learning objective, then a mock lesson on the problem."""

from __future__ import annotations

import dataclasses
import json

from utils.feedback.cases import Asker, Case, Steps, kind
from utils.records import Message

# The key of a turn that holds the student's words; all others are the tutor's.
SPOKEN = "Student"


@kind("conversation", "problem", "conversation", answers=0, steps=2)
def conversation(case: Case, asker: Asker) -> Steps:
    """a tutoring dialogue for each learning objective: first a problem, then a lesson on it"""
    objective = case.record.prompt[-1].content
    (problem,) = yield [asker.question("problem", case, objective=objective)]
    if problem.state != "parsed":
        return case.record
    written = json.dumps(problem.value, ensure_ascii=False)
    # A second round: the lesson is asked for with the problem that came back.
    (lesson,) = yield [asker.question("conversation", case, objective=objective, problem=written)]
    meta = {**case.record.meta, "problem": problem.value}
    if lesson.state == "parsed":
        meta["lesson"] = lesson.value
    return dataclasses.replace(case.record, meta=meta)


def tutoring_row(name: str, instruction: str, lesson: list[dict[str, str]]) -> dict[str, object]:
    """Return a lesson in the form of the tutoring data sets, whose first turn holds the instruction."""
    turns = []
    for turn in lesson:
        said = {key: value for key, value in turn.items() if key != SPOKEN}
        turns += [{"from": "human", "value": str(turn[SPOKEN])}, {"from": "gpt", "value": json.dumps(said)}]
    turns[0]["value"] = f"{instruction}\n\nStudent: {turns[0]['value']}"
    return {"id": name, "conversations": turns}


def objective(text: str) -> tuple[Message, ...]:
    """Return a learning objective as a prompt."""
    return (Message("user", text),)
