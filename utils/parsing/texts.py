"""Parsers of replies that are texts or JSON documents."""

from __future__ import annotations

import re
from typing import Any

from utils.parsing.base import Unparsed, is_refusal, json_value, missing, parser, refuse_echo

_TRIGGER = re.compile(
    r"(?<![`\"'“])\*{0,2}\bA better (?:answer|response|summary) is\*{0,2}\s*:\s*\*{0,2}(?![`\"'”])", re.IGNORECASE
)
_LEAD = re.compile(
    r"(?:here is |here's )?(?:the |my )?(?:revised|improved|new) (?:answer|response|summary)\s*:\s*", re.IGNORECASE
)
_AFTERWARDS = re.compile(
    r"\bthe (?:original|revised) (?:answer|response|summary)\b|^(?:Comment|Human|Revised answer|Explanation):"
    r"|^To provide more cont",
    re.IGNORECASE | re.MULTILINE,
)
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


@parser("critique", version=1)
def critique(text: str) -> str:
    """Return free text. Raises Unparsed for a refusal or the prompt itself."""
    refuse_echo(text)
    if is_refusal(text):
        raise Unparsed("refusal")
    return text


@parser("refinement", version=1)
def refinement(text: str) -> str:
    """Return what follows the last `A better answer is:` (or response, summary)."""
    # A trigger in quotes repeats the prompt; _TRIGGER does not match it.
    marks = list(_TRIGGER.finditer(text))
    if not marks:
        raise missing(text, "trigger")
    answer = re.sub(r"\ATL;DR:", "", text[marks[-1].end() :].strip()).strip()
    if not answer:
        raise Unparsed("nothing after the trigger")
    return answer


@parser("improve", version=1)
def improve(text: str) -> str:
    """Return a rewritten answer without what models write around it.

    A first paragraph that repeats the question is cut, and all paragraphs from the first that speaks of the answer or
    opens another turn. A label in front of the answer is taken off."""
    refuse_echo(text)
    if is_refusal(text):
        raise Unparsed("refusal")
    paragraphs = re.split(r"\n\s*\n", text)
    if paragraphs[0].startswith("Human:"):
        paragraphs = paragraphs[1:]
    if paragraphs and _LEAD.match(paragraphs[0]):
        paragraphs[0] = _LEAD.sub("", paragraphs[0], count=1)
    kept = []
    for paragraph in paragraphs:
        if _AFTERWARDS.search(paragraph):
            break
        kept.append(paragraph)
    answer = "\n\n".join(kept).strip()
    if not answer:
        raise Unparsed("nothing left")
    return answer


@parser("problem", version=1)
def problem(text: str) -> dict[str, Any]:
    """Read a tutoring problem with its subproblems, as JSON."""
    value = _document(text)
    _need(value, PROBLEM)
    if not isinstance(value["SubProblems"], list) or not value["SubProblems"]:
        raise Unparsed("no subproblems")
    for each in value["SubProblems"]:
        _need(each, SUBPROBLEM)
    return value


@parser("conversation", version=1)
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
