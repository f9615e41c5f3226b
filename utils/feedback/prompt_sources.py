"""Prompts in data sets of other people: what the rows of each look like, and the prompts in them.

A source is a function `name(row, where, num_turns)` under @source, which yields the prompts of one row. It raises
RecordError for a row of another shape, and LeftOut for a good row that is of no use.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from utils.raw_datasets.base import LeftOut, text
from utils.raw_datasets.dialogue import merged, messages, prompt_of
from utils.raw_datasets.hh_rlhf import HHRLHF
from utils.raw_datasets.instructions import INPUT, optional, split
from utils.records import Answer, Message, Record, RecordError, Verdict

CUES = {"dialog": "\n\nAssistant: ", "qa": "\n\nAssistant:", "summary": "\n\nAssistant: TL;DR:"}  # how prompts end
TASKS = {**{task: task for task in CUES}, "dialogue": "dialog", "question": "qa"}
RECORDS = "records"  # the source that is anything --data_path of a stage reads
SUMMARY = "Please summarize the following Reddit post in no more than 100 words: "
MARKS_INSIDE = "text that holds the mark of a turn, as \\n\\nHuman:"
END_MARKS = ("<s>", "</s>", "<|endoftext|>")
_CITATION = re.compile(r"\s*\[\d+(?:\s*,\s*\d+)*\]")


@dataclass(frozen=True)
class Prompt:
    """`text` is the prompt as one text: turns of Human and Assistant, then the cue of its task.

    `answers`: what people wrote or compared, the preferred one first; one, two or none.
    """

    text: str
    task: str  # dialog | qa | summary
    source: str
    answers: tuple[str, ...] = ()
    where: str = ""

    @property
    def messages(self) -> tuple[Message, ...]:
        return prompt_of(self.text, self.where)[0]

    def line(self, keep_answers: bool = False) -> dict[str, str]:
        """The prompt as a row of text columns; an answer that was preferred is `chosen`, the other one `reject`."""
        known = dict(zip(("chosen", "reject"), self.answers if keep_answers else (), strict=False))
        return {"prompt": self.text, "task": self.task, "source": self.source, **known}

    def record(self, keep_answers: bool = False) -> Record:
        answers = tuple(map(Answer, self.answers)) if keep_answers else ()
        verdicts = (Verdict(0, 1, "a", judge="human"),) if len(answers) == 2 else ()
        return Record(self.messages, answers, verdicts, meta={"task": self.task, "source": self.source})

    def instruction(self) -> dict[str, str]:
        """A prompt of one message as instruction and input."""
        (message,) = self.messages
        instruction, given = split(message.content)
        return {"instruction": instruction, "input": given, "source": self.source}


class Found(NamedTuple):
    """One prompt of a row, before it is written as text."""

    turns: tuple[Message, ...]
    answers: tuple[str, ...] = ()


class Source(NamedTuple):
    task: str
    needs: str  # the columns of its rows, in words
    read: Callable[[dict[str, Any], str, int], Iterator[Found]]


SOURCES: dict[str, Source] = {}


def source(task: str, needs: str) -> Callable:
    def register(read: Callable) -> Callable:
        SOURCES[read.__name__] = Source(task, needs, read)
        return read

    return register


def prompts_of(name: str, row: Any, where: str, num_turns: int = 1) -> Iterator[Prompt | LeftOut]:
    """The prompts of one row of the source, and why one is of no use. Raises RecordError."""
    if not isinstance(row, dict):
        raise RecordError(f"{where}: found {str(row)[:60]!r}; expected an object of columns")
    task, _, read = SOURCES[name]
    try:
        for found in read(row, where, num_turns):
            yield _prompt(found, task, name, where)
    except LeftOut as left:
        yield left


def prompt_of_record(record: Record) -> Prompt | LeftOut:
    """The prompt of a record, whose task stands in its meta (dialog, unless said). Raises RecordError."""
    said = record.meta.get("task", "dialog")
    if said not in TASKS:
        raise RecordError(f"{record.where}: task is {said!r}; expected one of {', '.join(TASKS)}")
    turns = record.prompt
    if TASKS[said] == "summary":  # its cue is written with the text
        turns = (*turns[:-1], Message("user", turns[-1].content.removesuffix("TL;DR:")))
    return _prompt(Found(turns), TASKS[said], RECORDS, record.where)


def _prompt(found: Found, task: str, name: str, where: str) -> Prompt | LeftOut:
    turns = tuple(Message(turn.role, turn.content.strip()) for turn in found.turns)
    if not turns or turns[-1].role != "user" or not turns[-1].content:
        return LeftOut("empty prompts")
    prompt = Prompt(_written(turns, task), task, name, found.answers, where)
    cue = "\n\nTL;DR:" if task == "summary" else ""
    if prompt.messages != (*turns[:-1], Message("user", turns[-1].content + cue)):
        return LeftOut(MARKS_INSIDE)
    return prompt


def _written(turns: tuple[Message, ...], task: str) -> str:
    names = {"system": "", "user": "Human: ", "assistant": "Assistant: "}
    return "\n\n".join(names[turn.role] + turn.content for turn in turns) + CUES[task]


def _asked(instruction: str, given: str = "") -> Found:
    content = f"{instruction.strip()}{INPUT}{given.strip()}" if given.strip() else instruction
    return Found((Message("user", content),))


# ---- dialogues, questions, posts


@source("dialog", "chosen and rejected dialogues of Human and Assistant; or prompt")
def hh(row, where, num_turns):
    """Anthropic's HH-RLHF and its kin."""
    if {"chosen", "rejected"} & row.keys():
        record = HHRLHF.record(row, where)
        yield Found(record.prompt, tuple(answer.text for answer in record.answers))
    else:
        yield Found(prompt_of(text(row, "prompt", where=where), where)[0])


@source("qa", "question (text, or an object with full_text); perhaps answer_0, answer_1, score_0, score_1")
def webgpt(row, where, num_turns):
    """OpenAI's WebGPT comparisons, without the numbers of citations. Answers of equal score are left out."""
    question = row["question"] if isinstance(row.get("question"), dict) else row
    asked = text(question, "full_text", "question", where=where)
    if "score_0" not in row:
        yield Found((Message("user", asked),))
        return
    scores = [_number(row, name, where) for name in ("score_0", "score_1")]
    if scores[0] == scores[1]:
        raise LeftOut("ties in score")
    answers = [_CITATION.sub("", text(row, name, where=where)).strip() for name in ("answer_0", "answer_1")]
    better = scores[1] > scores[0]
    yield Found((Message("user", asked),), (answers[better], answers[not better]))


def _number(row: dict[str, Any], column: str, where: str) -> float:
    try:
        return float(row[column])
    except (KeyError, TypeError, ValueError):
        raise RecordError(f"{where}: column {column!r} is {row.get(column)!r}; expected a number") from None


@source("summary", "prompt (SUBREDDIT, TITLE, POST), perhaps label or chosen and rejected; or info, summaries")
def tldr(row, where, num_turns):
    """OpenAI's TL;DR posts and comparisons, and CarperAI's texts of them."""
    if isinstance(row.get("info"), dict):
        info = row["info"]
        parts = [f"{name.upper()}: {text(info, name, where=where)}" for name in ("subreddit", "title", "post")]
        post, answers = "\n".join(parts), _compared(row, where)
    else:
        post = text(row, "prompt", where=where).strip().removesuffix("TL;DR:")
        names = ("label",) if "label" in row else ("chosen", "rejected") if "chosen" in row else ()
        answers = tuple(text(row, name, where=where).strip() for name in names)
    yield Found((Message("user", SUMMARY + post.strip()),), answers)


def _compared(row: dict[str, Any], where: str) -> tuple[str, ...]:
    both, choice = row.get("summaries"), row.get("choice")
    if not isinstance(both, list) or len(both) != 2 or choice not in (0, 1):
        return ()
    return tuple(text(both[number], "text", where=where).strip() for number in (choice, 1 - choice))


# ---- instructions


@source("qa", "instruction, context, response")
def dolly(row, where, num_turns):
    """Databricks' Dolly; the context is the instruction's input."""
    yield _asked(text(row, "instruction", where=where), optional(row, "context", where))


@source("qa", "instruction, instances: a list of {input, output}")
def self_instruct(row, where, num_turns):
    """Self-Instruct's user-oriented instructions and its seed tasks: one prompt an instance."""
    for instance in _instances(row, "instances", where):
        yield _asked(text(row, "instruction", where=where), optional(instance, "input", where))


@source("qa", "Definition and Instances, as a task's file holds them; or instruction and input")
def natural_instructions(row, where, num_turns):
    """Super-NaturalInstructions: one prompt an instance of the task."""
    if "Definition" not in row:
        yield _asked(text(row, "instruction", where=where), optional(row, "input", where))
        return
    definition = row["Definition"]
    task = "\n".join(map(str, definition)) if isinstance(definition, list) else str(definition)
    for instance in _instances(row, "Instances", where):
        yield _asked(task, text(instance, "input", where=where))


def _instances(row: dict[str, Any], column: str, where: str) -> list[dict[str, Any]]:
    found = row.get(column)
    if not isinstance(found, list) or not all(isinstance(instance, dict) for instance in found):
        raise RecordError(f"{where}: column {column!r} is {str(found)[:60]!r}; expected a list of {{input, output}}")
    return found


@source("dialog", "conversations: a list of {from, value}")
def sharegpt(row, where, num_turns):
    """ShareGPT: the first human turns, each with what was said before it."""
    conversation = row.get("conversations")
    if not conversation:
        raise LeftOut("empty conversations")
    dialogue = messages(conversation, f"{where}: conversations")
    if any(mark in turn.content for turn in dialogue for mark in END_MARKS):
        raise LeftOut(f"conversations with {', '.join(END_MARKS)}")
    spoken = merged([turn for turn in dialogue if turn.role != "system"])
    if not spoken or spoken[0].role == "assistant":
        raise LeftOut("chats that start with the assistant")
    for number in range(0, min(2 * num_turns, len(spoken)), 2):
        yield Found(spoken[: number + 1])
