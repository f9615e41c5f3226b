"""The labelled replies of tests/replies: what judges write, and what a careful person reads out of it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utils.parsing import PARSERS, Unparsed

FOLDER = Path(__file__).parent / "replies"
UNREADABLE = None
_HEAD = re.compile(r"=== (?P<parser>\w+)(?: (?P<arguments>\S+))? -> (?P<label>.+)")


@dataclass(frozen=True)
class Reply:
    """A reply, the parser that it is for, the parser's arguments, and its value: None where it is unreadable."""

    parser: str
    arguments: dict[str, Any]
    text: str
    value: Any
    where: str

    def read(self) -> Any:
        """Return what the parser reads: a value or None."""
        try:
            return PARSERS[self.parser].parse(self.text, **self.arguments)
        except Unparsed:
            return UNREADABLE


def replies_of(name: str) -> list[Reply]:
    """Read a file of labelled replies."""
    found: list[Reply] = []
    blocks: list[tuple[re.Match, list[str], str]] = []
    for number, line in enumerate((FOLDER / name).read_text(encoding="utf-8").splitlines(), start=1):
        head = _HEAD.fullmatch(line)
        if head:
            blocks.append((head, [], f"{name}:{number}"))
        elif blocks:
            blocks[-1][1].append(line)
    for head, lines, where in blocks:
        text, _, read_as = "\n".join(lines).partition("\n--- read as\n")
        arguments = _arguments(head["parser"], head["arguments"])
        value = _value(head["parser"], head["label"], text.strip(), read_as.strip())
        found.append(Reply(head["parser"], arguments, text.strip(), value, where))
    return found


def _arguments(parser: str, words: str | None) -> dict[str, Any]:
    if parser == "rating":
        low, high = words.split(",")
        return {"low": int(low), "high": int(high)}
    if parser == "order":
        return {"count": int(words)}
    return {}


def _value(parser: str, label: str, text: str, read_as: str) -> Any:
    if label == "unreadable":
        return UNREADABLE
    if label == "whole":
        return text
    if label == "text":
        return read_as
    if parser == "rating":
        return float(label)
    if parser == "order":
        groups = []
        for group in label.split(" > "):
            groups.append(sorted("ABCDEFGH".index(letter) for letter in group.split(" = ")))
        return groups
    return label


@dataclass(frozen=True)
class Count:
    """How the parsers did: of `clear` readable and `unclear` other replies, those read wrongly and those lost."""

    clear: int
    unclear: int
    wrong: list[Reply]
    lost: list[Reply]


def count(replies: list[Reply]) -> Count:
    """Compare what the parsers read with the labels."""
    wrong, lost = [], []
    for reply in replies:
        value = reply.read()
        if value == reply.value:
            continue
        if value is UNREADABLE:
            lost.append(reply)
        else:
            wrong.append(reply)
    clear = sum(reply.value is not UNREADABLE for reply in replies)
    return Count(clear, len(replies) - clear, wrong, lost)
