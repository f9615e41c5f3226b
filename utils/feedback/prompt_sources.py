"""Public data sets as sources of prompts: the shape of each set's rows, and the prompts in them.

A source is a function `name(row, where, num_turns)` under @source, which yields the prompts of one row. It raises
RecordError for a row of another shape, and LeftOut for a good row that is of no use.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from utils.feedback.source_prompt import Found, SourcePrompt, prompt_from
from utils.raw_datasets.base import LeftOut, text
from utils.raw_datasets.dialogue import merged, messages, prompt_of
from utils.raw_datasets.hh_rlhf import HHRLHF
from utils.raw_datasets.instructions import INPUT, optional
from utils.records import Message, RecordError

SUMMARY = "Please summarize the following Reddit post in no more than 100 words: "
END_MARKS = ("<s>", "</s>", "<|endoftext|>")
_CITATION = re.compile(r"\s*\[\d+(?:\s*,\s*\d+)*\]")


class PromptSource(NamedTuple):
    """A source: the task of its prompts, the columns of its rows in words, and its function."""

    task: str
    needs: str
    read: Callable[[dict[str, Any], str, int], Iterator[Found]]


SOURCES: dict[str, PromptSource] = {}


def source(task: str, needs: str) -> Callable:
    """Register a source. `needs` names the columns of its rows, in words."""

    def register(read: Callable) -> Callable:
        SOURCES[read.__name__] = PromptSource(task, needs, read)
        return read

    return register


def prompts_of(name: str, row: Any, where: str, num_turns: int = 1) -> Iterator[SourcePrompt | LeftOut]:
    """Read the prompts of one row.

    Args:
        name: the source, of SOURCES.
        row: the row as read.
        where: file:line, for messages.
        num_turns: prompts to take of one ShareGPT chat.

    Yields:
        Prompts, and LeftOut with the reason for one that is of no use.

    Raises:
        RecordError: for a row of another shape.
    """
    if not isinstance(row, dict):
        raise RecordError(f"{where}: found {str(row)[:60]!r}; expected an object of columns")
    task, _, read = SOURCES[name]
    try:
        for found in read(row, where, num_turns):
            yield prompt_from(found, task, source=name, where=where)
    except LeftOut as left:
        yield left


def _asked(instruction: str, given: str = "") -> Found:
    if given.strip():
        instruction = f"{instruction.strip()}{INPUT}{given.strip()}"
    return Found((Message("user", instruction),))


# ---- dialogues, questions, posts


@source("dialog", "chosen and rejected dialogues of Human and Assistant; or prompt")
def hh(row, where, num_turns):
    """Anthropic's HH-RLHF and its kin."""
    if {"chosen", "rejected"} & row.keys():
        record = HHRLHF.record(row, where)
        yield Found(record.prompt, tuple(answer.text for answer in record.answers))
    else:
        prompt, *_ = prompt_of(text(row, "prompt", where=where), where)
        yield Found(prompt)


@source("qa", "question (text, or an object with full_text); perhaps answer_0, answer_1, score_0, score_1")
def webgpt(row, where, num_turns):
    """OpenAI's WebGPT comparisons, without the numbers of citations. Answers of equal score are left out."""
    question = row
    if isinstance(row.get("question"), dict):
        question = row["question"]
    asked = text(question, "full_text", "question", where=where)
    if "score_0" not in row:
        yield Found((Message("user", asked),))
        return
    first_score, second_score = _number(row, "score_0", where), _number(row, "score_1", where)
    if first_score == second_score:
        raise LeftOut("ties in score")
    # The numbers point to pages that the writers saw and a model does not.
    first = _CITATION.sub("", text(row, "answer_0", where=where)).strip()
    second = _CITATION.sub("", text(row, "answer_1", where=where)).strip()
    answers = (first, second)
    if second_score > first_score:
        answers = (second, first)
    yield Found((Message("user", asked),), answers)


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
        names = ()
        if "label" in row:
            names = ("label",)
        elif "chosen" in row:
            names = ("chosen", "rejected")
        answers = tuple([text(row, name, where=where).strip() for name in names])
    yield Found((Message("user", SUMMARY + post.strip()),), answers)


def _compared(row: dict[str, Any], where: str) -> tuple[str, ...]:
    both, choice = row.get("summaries"), row.get("choice")
    if not isinstance(both, list) or len(both) != 2 or choice not in (0, 1):
        return ()
    chosen, rejected = both[choice], both[1 - choice]
    return text(chosen, "text", where=where).strip(), text(rejected, "text", where=where).strip()


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
    task = row["Definition"]
    if isinstance(task, list):
        task = "\n".join(map(str, task))
    task = str(task)
    for instance in _instances(row, "Instances", where):
        yield _asked(task, text(instance, "input", where=where))


def _instances(row: dict[str, Any], column: str, where: str) -> list[dict[str, Any]]:
    found = row.get(column)
    if not isinstance(found, list) or not all(isinstance(instance, dict) for instance in found):
        raise RecordError(f"{where}: column {column!r} is {str(found)[:60]!r}; expected a list of {{input, output}}")
    return found


@source("dialog", "conversations: a list of {from, value}")
def sharegpt(row, where, num_turns):
    """ShareGPT: the first human turns, each with the turns before it."""
    conversation = row.get("conversations")
    if not conversation:
        raise LeftOut("empty conversations")
    dialogue = messages(conversation, f"{where}: conversations")
    for turn in dialogue:
        # The end token of another model's template would be learned as text.
        if any(mark in turn.content for mark in END_MARKS):
            raise LeftOut(f"conversations with {', '.join(END_MARKS)}")
    spoken = merged([turn for turn in dialogue if turn.role != "system"])
    # Without its question the assistant's first turn cannot be learned from.
    if not spoken or spoken[0].role == "assistant":
        raise LeftOut("chats that start with the assistant")
    for number in range(0, min(2 * num_turns, len(spoken)), 2):
        yield Found(spoken[: number + 1])
