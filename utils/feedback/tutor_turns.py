"""Tutoring conversations of coded turns: cleaned, written as prompts, and compared with a model's own turns.

A tutor's turn is an object of FIELDS. The codes and the shapes of the files are those of Tutorbot-Spock
(arXiv 2402.05000).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from utils.raw_datasets.dialogue import messages
from utils.raw_datasets.tutoring import literal, without_thoughts
from utils.records import Message

EVALUATION, ACTION, STATE = "Evaluation of Student Response", "Action Based on Evaluation", "Subproblem State"
FIELDS = (EVALUATION, ACTION, STATE, "Subproblem", "Tutorbot")
REASONS = ("unparsable", "incomplete", "evaluation", "action", "state")  # why a pair is kept, in the order of asking

EVALUATIONS = {
    "a": "what the student says is wrong",
    "b": "it is right",
    "c": "a part of it is right",
    "d": "it is unclear or too short to judge",
    "e": "it has left the topic",
    "f": "the student asks for something",
    "g": "not applicable",
}
ACTIONS = {  # evaluation -> its actions
    "a": {
        "1": "say that it is wrong, show where, and give a hint",
        "2": "after several failed attempts, give the solution",
    },
    "b": {"3": "confirm it, and ask for what is still missing"},
    "c": {
        "4": "name the right part, correct the rest, and give a hint",
        "5": "after several attempts, give the solution",
    },
    "d": {"6": "ask what is meant"},
    "e": {"7": "lead back to the topic"},
    "f": {
        "8": "give the hint that was asked for",
        "9": "give the solution that was asked for, and close the subproblem",
        "10": "go back to the previous subproblem",
        "11": "help with anything else",
    },
    "g": {"12": "not applicable"},
}
STATES = {
    "w": "not applicable",
    "x": "in progress",
    "y": "finished; the next subproblem begins",
    "z": "finished, and with it the problem",
}


def _instruction() -> str:
    lines = ["You are a tutor. Cut the student's question into subproblems and work on one at a time with the student.",
             "Guide: do not give solutions away. Classify the student's turn first, then choose what to do.", "",
             f"{EVALUATION} is one of"]  # fmt: skip
    lines += map(": ".join, EVALUATIONS.items())
    lines += ["", f"{ACTION} is one of"]
    for evaluation, actions in ACTIONS.items():
        lines += [f"{code} (after {evaluation}): {meaning}" for code, meaning in actions.items()]
    lines += ["", f"{STATE} is one of"]
    lines += map(": ".join, STATES.items())
    return "\n".join([*lines, "", f"Answer with one JSON object of the keys {', '.join(FIELDS)}.", ""])


INSTRUCTION = _instruction()  # the system message of the tutoring data, unless a person gives another


def cleaned(conversation: Any, instruction: str, where: str) -> list[Message]:
    """Return the turns of a conversation, the tutor's without thoughts and in Python's spelling, N/A as its code.

    The first turn holds `instruction` and the student's question. A tutor's turn that is no object with the three
    codes ends the conversation before the student's turn that it answers; so does a turn of the wrong speaker. May be
    empty.
    """
    out: list[Message] = []
    for turn in messages(conversation, where):
        if turn.role != ("user", "assistant")[len(out) % 2]:
            break
        if turn.role == "user" and out:
            out.append(turn)
            continue
        if turn.role == "user":
            out.append(Message("user", _opening(turn.content, instruction)))
            continue
        said = literal(turn.content)
        # Nothing after a turn without codes is used: its answer would be learned from a broken history.
        if said is None or not {EVALUATION, ACTION, STATE} <= said.keys():
            break
        out.append(Message("assistant", str(without_thoughts(said))))
    # A student's turn at the end has no answer to learn from.
    return out[: len(out) // 2 * 2]


def _opening(first: str, instruction: str) -> str:
    _, mark, question = first.partition("Student: ")
    if not mark:
        question = first
    return f"{instruction.rstrip()}\n\nStudent: {question}"


def prompts_and_turns(dialogue: Sequence[Message]) -> list[tuple[str, str]]:
    """Return (prompt, turn) for every tutor's turn: the history up to the student's words, then the cue."""
    names = {"user": "Student:", "assistant": "Tutorbot:"}
    text, out = f"System: {dialogue[0].content}\n", []
    for message in dialogue[1:]:
        if message.role == "assistant":
            out.append((f"{text}\nTutorbot:", message.content))
        text += f"{names[message.role]} {message.content}\n"
    return out


def is_valid_reference(turn: Mapping[str, Any] | None) -> bool:
    """Return whether the codes of a teacher's turn have the right length (1, at most 2, 1) and its other fields are
    text."""
    if turn is None or not all(isinstance(turn.get(name), str) for name in FIELDS):
        return False
    return len(turn[EVALUATION]) == 1 and len(turn[ACTION]) <= 2 and len(turn[STATE]) == 1


def why_worse(response: str, reference: Mapping[str, str]) -> str | None:
    """Return the first of REASONS to prefer the reference to a model's own turn; None when their three codes agree."""
    turn = literal(response)
    if turn is None:
        return "unparsable"
    if not turn.keys() >= set(FIELDS) or all(turn[name] == "" for name in FIELDS):
        return "incomplete"
    for name, reason in ((EVALUATION, "evaluation"), (ACTION, "action"), (STATE, "state")):
        if str(turn[name]).strip() != reference[name].strip():
            return reason
    return None
