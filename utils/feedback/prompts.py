"""Prompt files: the words that a judge reads, with places for the material.

The first line of a file names its use: `kind: rating; task: question; version: 1`. Then comes the system message, a
line `---`, and the user's message; a file without that line has no system message. $conversation, $answer and the like
are places for the material, $$ is a dollar sign, and $reply is the form of the reply that the parser reads.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from utils.errors import UserError
from utils.records import Message

FOLDER = Path(__file__).resolve().parents[2] / "data_collect" / "prompts"
TASKS = {"dialogue": "dialogue", "dialog": "dialogue", "question": "question", "qa": "question", "summary": "summary"}
NAMES = {"system": "System", "user": "Human", "assistant": "Assistant"}
_HEADER = re.compile(r"kind: *([\w-]+)(?:; *task: *(\w+))?; *version: *(\d+) *")
# Lines of the material that a judge could take for lines of the prompt itself.
_LOOKALIKE = re.compile(r"^(?=### (?:Task:|Conversation|Answer|Comment|Reply)|(?:System|Human|Assistant): )", re.M)


@dataclass(frozen=True)
class PromptTemplate:
    """One prompt file.

    Args:
        kind: the kind of prompt, of MATERIAL.
        task: dialogue, question or summary; None where it serves every task.
        version: the number in the file.
        system: the system message, or an empty text.
        user: the user's message, with places.
        path: the file.
    """

    kind: str
    task: str | None
    version: int
    system: str
    user: string.Template
    path: Path

    def messages(self, **material: object) -> list[dict[str, str]]:
        """Return the chat messages of a request; `material` fills the places."""
        messages = [{"role": "user", "content": self.user.substitute(material)}]
        if self.system:
            messages.insert(0, {"role": "system", "content": self.system})
        return messages


def read_prompt_file(path: Path, material: dict[str, tuple[str, ...]]) -> PromptTemplate:
    """Read a prompt file. `material` is {kind: the names of its places}, all of which must be there. Raises
    UserError."""
    try:
        head, _, body = path.read_text(encoding="utf-8-sig").partition("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as text: {getattr(error, 'strerror', None) or error}") from None
    header = _HEADER.fullmatch(head.strip())
    if not header:
        raise UserError(f"{path}:1: found {head[:60]!r}; expected a first line as `kind: rating; version: 1`")
    kind, task, version = header.groups()
    if kind not in material:
        raise UserError(f"{path}:1: no prompt of kind {kind!r} is ever used; known: {', '.join(sorted(material))}")
    if task is not None and task not in TASKS:
        raise UserError(f"{path}:1: unknown task {task!r}; expected dialogue, question or summary")
    system, user = "", body
    if body.startswith("---\n"):
        user = body.removeprefix("---\n")
    elif "\n---\n" in body:
        system, _, user = body.partition("\n---\n")
    template = string.Template(user.strip())
    _check_places(path, template, kind, material[kind])
    return PromptTemplate(
        kind=kind, task=TASKS.get(task), version=int(version), system=system.strip(), user=template, path=path
    )


def _check_places(path: Path, template: string.Template, kind: str, expected: tuple[str, ...]) -> None:
    if not template.is_valid():
        raise UserError(f"{path}: a $ with no name after it; write $$ for a dollar sign")
    found = set(template.get_identifiers())
    unknown, lacking = sorted(found - set(expected)), sorted(set(expected) - found)
    if unknown:
        known = _names(expected)
        raise UserError(f"{path}: ${unknown[0]} stands for nothing in a prompt of kind {kind}; known: {known}")
    if lacking:
        raise UserError(f"{path}: no ${lacking[0]} in it; a prompt of kind {kind} needs {_names(expected)}")


def _names(names: Iterable[str]) -> str:
    return ", ".join(f"${name}" for name in names)


class PromptTemplates:
    """The prompt of every kind and task: a person's own where there is one, else the built-in one."""

    def __init__(self, own: Iterable[Path], material: dict[str, tuple[str, ...]]) -> None:
        self._prompts: dict[tuple[str, str | None], PromptTemplate] = {}
        self.own: list[PromptTemplate] = [read_prompt_file(path, material) for path in own]
        for path in sorted(FOLDER.glob("*.txt")):
            prompt = read_prompt_file(path, material)
            self._prompts[prompt.kind, prompt.task] = prompt
        # A person's own prompt for every task replaces all built-in ones of its kind; one for a single task comes last.
        for prompt in self.own:
            if prompt.task is None:
                for kind, task in list(self._prompts):
                    if kind == prompt.kind:
                        self._prompts[kind, task] = prompt
        for prompt in self.own:
            if prompt.task is not None:
                self._prompts[prompt.kind, prompt.task] = prompt

    def of(self, kind: str, task: str) -> PromptTemplate:
        """Return the template for a kind of prompt and a task."""
        return self._prompts.get((kind, task)) or self._prompts[kind, None]


def conversation_text(messages: Iterable[Message]) -> str:
    """Return the turns as `System: …`, `Human: …`, `Assistant: …`, a blank line between them."""
    return "\n\n".join(f"{NAMES[message.role]}: {material(message.content)}" for message in messages)


def answers_text(answers: Iterable[str]) -> str:
    """Return the answers as blocks `### Answer A`, `### Answer B`, …"""
    lettered = zip(string.ascii_uppercase, answers, strict=False)
    return "\n\n".join(f"### Answer {letter}\n{material(text)}" for letter, text in lettered)


def material(text: str) -> str:
    """Return a text to be judged, with a space before each line that looks like one of the prompt's own."""
    return _LOOKALIKE.sub(" ", text)
