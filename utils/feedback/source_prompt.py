"""A prompt of a source of prompts, as text, as a record and as an instruction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from utils.raw_datasets.base import LeftOut
from utils.raw_datasets.dialogue import prompt_of
from utils.raw_datasets.instructions import split
from utils.records import Answer, Message, Record, RecordError, Verdict

# The ends of prompts, by task, where the answer begins.
CUES = {"dialog": "\n\nAssistant: ", "qa": "\n\nAssistant:", "summary": "\n\nAssistant: TL;DR:"}
TASKS = {**{task: task for task in CUES}, "dialogue": "dialog", "question": "qa"}
RECORDS = "records"  # the source that is anything --data_path of a stage reads
MARKS_INSIDE = "text that holds the mark of a turn, as \\n\\nHuman:"


@dataclass(frozen=True)
class SourcePrompt:
    """One prompt of a source.

    Args:
        text: the prompt as one text: turns of Human and Assistant, then the cue of its task.
        task: dialog, qa or summary.
        source: the name of the source.
        answers: what people wrote or compared, the preferred one first; one, two or none.
        where: file:line, for messages.
    """

    text: str
    task: str
    source: str
    answers: tuple[str, ...] = ()
    where: str = ""

    @property
    def messages(self) -> tuple[Message, ...]:
        """The prompt's turns."""
        prompt, *_ = prompt_of(self.text, self.where)
        return prompt

    def line(self, keep_answers: bool = False) -> dict[str, str]:
        """Return the prompt as a row of text columns. A preferred answer is `chosen`, the other one `reject`."""
        row = {"prompt": self.text, "task": self.task, "source": self.source}
        if keep_answers:
            row |= zip(("chosen", "reject"), self.answers, strict=False)
        return row

    def record(self, keep_answers: bool = False) -> Record:
        """Return the prompt as a record, with people's verdict where there are two answers."""
        answers, verdicts = (), ()
        if keep_answers:
            answers = tuple(map(Answer, self.answers))
        if len(answers) == 2:
            verdicts = (Verdict(0, 1, "a", judge="human"),)
        return Record(self.messages, answers, verdicts, meta={"task": self.task, "source": self.source})

    def instruction(self) -> dict[str, str]:
        """Return a prompt of one message as instruction and input."""
        (message,) = self.messages
        instruction, given = split(message.content)
        return {"instruction": instruction, "input": given, "source": self.source}


class Found(NamedTuple):
    """One prompt of a row, before it is written as text."""

    turns: tuple[Message, ...]
    answers: tuple[str, ...] = ()


def prompt_from(found: Found, task: str, source: str, where: str) -> SourcePrompt | LeftOut:
    """Write turns as the text of a prompt.

    Args:
        found: the turns, and the answers that people gave.
        task: dialog, qa or summary.
        source: the name of the source.
        where: file:line, for messages.

    Returns:
        The prompt, or LeftOut with the reason where it is of no use.
    """
    turns = tuple(Message(turn.role, turn.content.strip()) for turn in found.turns)
    if not turns or turns[-1].role != "user" or not turns[-1].content:
        return LeftOut("empty prompts")
    prompt = SourcePrompt(_written(turns, task), task, source=source, answers=found.answers, where=where)
    cue = ""
    if task == "summary":
        cue = "\n\nTL;DR:"
    # Read back: content with a mark such as "\n\nHuman:" in it would become further turns.
    if prompt.messages != (*turns[:-1], Message("user", turns[-1].content + cue)):
        return LeftOut(MARKS_INSIDE)
    return prompt


def prompt_of_record(record: Record) -> SourcePrompt | LeftOut:
    """Return the prompt of a record, whose task is in its meta (dialog by default). Raises RecordError."""
    name = record.meta.get("task", "dialog")
    if name not in TASKS:
        raise RecordError(f"{record.where}: task is {name!r}; expected one of {', '.join(TASKS)}")
    turns = record.prompt
    if TASKS[name] == "summary":
        # The cue of a summary is written after the text again, from CUES.
        turns = (*turns[:-1], Message("user", turns[-1].content.removesuffix("TL;DR:")))
    return prompt_from(Found(turns), TASKS[name], source=RECORDS, where=record.where)


def _written(turns: tuple[Message, ...], task: str) -> str:
    names = {"system": "", "user": "Human: ", "assistant": "Assistant: "}
    return "\n\n".join([names[turn.role] + turn.content for turn in turns]) + CUES[task]
