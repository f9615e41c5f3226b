"""Parsers of replies that are texts or JSON documents."""

from __future__ import annotations

import re
from typing import Any

from utils.parsing.base import Unparsed, is_refusal, json_value, missing, parser, refuse_echo
from utils.parsing.wrapping import without_announcement, without_remarks

# In quotes it repeats the prompt.
_TRIGGER = re.compile(
    r"(?<![`\"'“«\w])(?:(?:A|The|My) )?(?:better|improved|revised) (?:answer|response|summary)(?: is| would be)?"
    r"\*{0,2}\s*:\*{0,2}(?![`\"'”»])"
    r"|\bEine bessere (?:Antwort|Zusammenfassung) (?:ist|wäre|lautet)\*{0,2}\s*:\*{0,2}"
    r"|\b(?:Une meilleure réponse|Un meilleur résumé) (?:est|serait)\*{0,2}\s*:\*{0,2}"
    r"|\bUna (?:mejor respuesta|respuesta mejor) (?:es|sería)\*{0,2}\s*:\*{0,2}"
    r"|更好的(?:回答|答案|摘要)(?:是|为)?\*{0,2}\s*[:：]\*{0,2}",
    re.IGNORECASE,
)
_MARKUP = " \t#*_>-"
PROBLEM = ("Problem", "SubProblems", "Facts", "Solution")
SUBPROBLEM = ("Question", "Answer", "Hint", "Incorrect Response", "Feedback")
SPOKEN = "Student"
TURN = (SPOKEN, "Evaluation of Student Response", "Action Based on Evaluation", "Subproblem State", "Subproblem",
        "Tutorbot")  # fmt: skip


@parser("completion", version=1)
def completion(text: str) -> str:
    """Return the text itself."""
    # A teacher that declines has answered, too: its words are what a student should learn.
    return text


@parser("critique", version=2)
def critique(text: str) -> str:
    """Return free text. Raises Unparsed for a refusal or the prompt itself."""
    refuse_echo(text)
    if is_refusal(text):
        raise Unparsed("refusal")
    return text


@parser("refinement", version=2)
def refinement(text: str) -> str:
    """Return what follows the last `A better answer is:` (or response, summary) that begins a line, or the only one."""
    marks = list(_TRIGGER.finditer(text))
    if not marks:
        raise missing(text, "trigger")
    leading = []
    for mark in marks:
        before = text[text.rfind("\n", 0, mark.start()) + 1 : mark.start()]
        if not before.strip(_MARKUP):
            leading.append(mark)
    if not leading and len(marks) > 1:
        raise Unparsed("different triggers")
    answer = text[(leading or marks)[-1].end() :].strip()
    answer = without_remarks(without_announcement(answer.removeprefix("TL;DR:")))
    if not answer:
        raise Unparsed("nothing after the trigger")
    return answer


@parser("improve", version=2)
def improve(text: str) -> str:
    """Return a rewritten answer without what models write around it: an announcement, the question, remarks on the
    changes. Raises Unparsed where it is not clear what belongs to the answer."""
    refuse_echo(text)
    if is_refusal(text):
        raise Unparsed("refusal")
    answer = without_remarks(without_announcement(text))
    if not answer:
        raise Unparsed("nothing left")
    return answer


@parser("problem", version=2)
def problem(text: str) -> dict[str, Any]:
    """Read a tutoring problem with its subproblems, as JSON."""
    value = _document(text)
    _need(value, PROBLEM)
    if not isinstance(value["SubProblems"], list) or not value["SubProblems"]:
        raise Unparsed("no subproblems")
    for each in value["SubProblems"]:
        _need(each, SUBPROBLEM)
    return value


@parser("conversation", version=2)
def conversation(text: str) -> list[dict[str, Any]]:
    """Read a mock tutoring dialogue: a JSON list of turns, each the student's words and the tutor's coded ones."""
    value = _document(text)
    if not isinstance(value, list) or not value:
        raise Unparsed("not a list of turns")
    for turn in value:
        _need(turn, TURN)
        for name in (SPOKEN, "Tutorbot"):
            if not isinstance(turn[name], str):
                raise Unparsed(f"not text: {name}")
    return value


def _document(text: str) -> Any:
    if is_refusal(text):
        raise Unparsed("refusal")
    return json_value(text)


def _need(value: Any, fields: tuple[str, ...]) -> None:
    if not isinstance(value, dict):
        raise Unparsed("not a JSON object")
    for name in fields:
        if name not in value:
            raise Unparsed(f"field missing: {name}")
