"""A judge's request by its parts, read from the lines that open them.

`### Task: rating`, `### Conversation`, `### Answer A`, `### Comment`, `### Reply`. A request without a task is a
dialogue, and gets a tutor's next turn.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass

from utils.world.exchanges import Exchange, Turn, read_prompt

# Whole lines alone: an answer may mention a task in the middle of a sentence.
HEADING = re.compile(r"^### (Task: \w+|Conversation|Answer(?: [A-Z])?|Comment|Reply)[ \t]*$", re.MULTILINE)
SPEAKER = re.compile(r"(?:\A|\n\n)(System|Human|Assistant): ")
ROLES = {"System": "system", "Human": "user", "Assistant": "assistant"}


class Unreadable(Exception):  # noqa: N818 - it ends in an honest answer, not in an error
    """A request that lacks a part that its task needs."""


@dataclass(frozen=True)
class Asked:
    """A request by its parts."""

    task: str
    parts: dict[str, str]  # "Conversation", "Answer A", …
    text: str  # all of it
    structured: bool = False  # the reply is to be a JSON object
    sample: object = ""  # tells apart replies to the same request

    def part(self, name: str) -> str:
        """Return a part that the task needs."""
        if name not in self.parts:
            raise Unreadable(name)
        return self.parts[name]

    @property
    def conversation(self) -> str:
        return self.part("Conversation")

    @functools.cached_property
    def answers(self) -> dict[str, str]:
        """Return the answers by their letter, in the order shown; at least two."""
        found = {}
        for name, text in self.parts.items():
            if re.fullmatch("Answer [A-Z]", name):
                found[name.removeprefix("Answer ")] = text
        if len(found) < 2:
            raise Unreadable("Answer A, Answer B")
        return found


def read_request(text: str, structured: bool = False, sample: object = "") -> Asked | None:
    """Return the parts of a user message, or None for one without a task. Of a part that comes twice the first counts:
    an answer that holds headings itself cannot replace what was asked."""
    _, *pieces = HEADING.split(text)
    parts: dict[str, str] = {}
    for name, body in zip(pieces[::2], pieces[1::2], strict=True):
        parts.setdefault(name, body.strip())
    for name in parts:
        if name.startswith("Task: "):
            task = name.removeprefix("Task: ")
            return Asked(task=task, parts=parts, text=text, structured=structured, sample=sample)
    return None


@functools.lru_cache(maxsize=65536)
def read_conversation(conversation: str) -> Exchange:
    """Read a conversation. Raises UserError for one of another world."""
    before, *pieces = SPEAKER.split(conversation)
    turns = []
    if before.strip():
        turns.append(Turn("user", before))
    for name, said in zip(pieces[::2], pieces[1::2], strict=True):
        turns.append(Turn(ROLES[name], said))
    return read_prompt(turns)
