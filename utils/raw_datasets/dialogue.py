"""Dialogues written as one text, and lists of messages in the two spellings of the field, as Messages."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from utils.raw_datasets.base import LeftOut
from utils.records import Message, Record, RecordError, comparison

DIFFERS = "pairs that differ before the last turn"
# Names of speakers in public data sets, in lower case.
ROLE = {
    "system": "system",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "student": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "bot": "assistant",
    "chatgpt": "assistant",
    "tutorbot": "assistant",
}
# A name in the middle of a paragraph is not a turn, so the empty line before it is part of the mark.
_HUMAN_ASSISTANT = re.compile(r"(?:\A\s*|\n\n)(Human|Assistant):")
_SUMMARY_CUE = "TL;DR:"


def turns(text: str, marks: re.Pattern = _HUMAN_ASSISTANT) -> list[Message]:
    """Return the turns of a dialogue, text before the first mark as a system message; [] when it has no mark."""
    head, *pieces = marks.split(text)
    found = []
    if pieces and head.strip():
        found.append(Message("system", head.strip()))
    for mark, content in zip(pieces[::2], pieces[1::2], strict=True):
        found.append(Message(ROLE[mark.lower()], content.strip()))
    return found


def prompt_of(value: Any, where: str) -> tuple[tuple[Message, ...], bool]:
    """Return (messages, whether it was formatted) of a list of messages, of a text with Human and Assistant turns, or
    of plain text, which is one user message. The answer to a formatted prompt begins with a space that is not its own.
    """
    if isinstance(value, list):
        return tuple(messages(value, where)), False
    if not isinstance(value, str):
        raise RecordError(f"{where}: prompt is {str(value)[:60]!r}; expected text or a list of messages")
    dialogue = turns(value)
    if len(dialogue) > 1 and dialogue[-1] == Message("assistant", ""):
        return merged(dialogue[:-1]), True
    # The cue belongs to the question: the answer begins behind it.
    if len(dialogue) > 1 and dialogue[-1] == Message("assistant", _SUMMARY_CUE):
        return merged([*dialogue[:-1], Message("user", _SUMMARY_CUE)]), True
    if dialogue and dialogue[0].role == "user":
        if dialogue[-1].role != "user":
            raise RecordError(f"{where}: prompt ends with {value[-40:]!r}; expected it to end with 'Assistant:'")
        return merged(dialogue), True
    return (Message("user", value),), False


def messages(value: Any, where: str) -> list[Message]:
    """Return the messages of a list of {role, content} or {from, value}."""
    if not isinstance(value, list) or not value:
        raise RecordError(f"{where}: found {str(value)[:60]!r}; expected a list of messages")
    return [_message(item, f"{where}: message {number}") for number, item in enumerate(value, start=1)]


def _message(item: Any, at: str) -> Message:
    if not isinstance(item, dict):
        raise RecordError(f"{at} is {str(item)[:60]!r}; expected an object with role and content")
    role, content = item.get("role", item.get("from")), item.get("content", item.get("value"))
    if not isinstance(role, str) or role.lower() not in ROLE:
        raise RecordError(f"{at} has role {role!r}; expected one of {', '.join(ROLE)}")
    if not isinstance(content, str):
        raise RecordError(f"{at} has content {str(content)[:60]!r}; expected text")
    return Message(ROLE[role.lower()], content)


def demonstration(dialogue: Sequence[Message]) -> tuple[tuple[Message, ...], list[str]]:
    """Return (prompt, answers): the last turn is the answer if it is the assistant's, else all of it is a prompt."""
    if dialogue[-1].role == "assistant":
        return merged(dialogue[:-1]), [dialogue[-1].content]
    return merged(dialogue), []


def dialogue_pair(chosen: Sequence[Message], rejected: Sequence[Message], where: str, **more: Any) -> Record:
    """Return a comparison of two whole dialogues, which must be the same up to their last turn, the assistant's.

    Args:
        chosen: the preferred dialogue.
        rejected: the other.
        where: file:line.
        more: further fields of the record.

    Returns:
        The comparison.

    Raises:
        RecordError: a dialogue that does not end with the assistant's turn.
        LeftOut: the dialogues differ before their last turn.
    """
    for name, dialogue in (("chosen", chosen), ("rejected", rejected)):
        if not dialogue or dialogue[-1].role != "assistant":
            found = f"ends with a turn of {dialogue[-1].role}" if dialogue else "has no turns"
            raise RecordError(f"{where}: the {name} dialogue {found}; expected it to end with the assistant's")
    # Losses compare two answers to one prompt. Where dialogues part earlier, the last turns answer different questions,
    # and nothing says which turn was preferred.
    if list(chosen[:-1]) != list(rejected[:-1]):
        raise LeftOut(DIFFERS)
    return comparison(merged(chosen[:-1]), chosen[-1].content, rejected[-1].content, where=where, **more)


def merged(dialogue: Sequence[Message]) -> tuple[Message, ...]:
    """Return neighbouring turns of one speaker as one message: most chat templates refuse two in a row."""
    out: list[Message] = []
    for message in dialogue:
        if out and out[-1].role == message.role:
            message = Message(message.role, f"{out.pop().content}\n\n{message.content}")
        out.append(message)
    return tuple(out)
