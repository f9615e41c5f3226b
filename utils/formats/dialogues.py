"""Files of whole dialogues: records, preference pairs, conversations, feedback in a language model's own words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from utils.formats.base import COLUMNS, FACTS, MANY, SPACE, TURNS, UNRATED, with_columns, writes
from utils.formats.files import JsonLines, JsonList
from utils.formats.instructions import decided
from utils.raw_datasets.dialogue import prompt_of, turns
from utils.records import Message, Record, RecordError

PAIRS = {"keeps": ("several answers", UNRATED, "preferences", COLUMNS, *TURNS), "needs": ("preferences",)}
WORDS = {"a": "(A)", "b": "(B)", "tie": "(C)"}  # of a decision
CUE = "\n\nTL;DR:"  # of a summary: it belongs to the answer's turn
NAMES = {"user": "Human", "assistant": "Assistant"}
FROM = {"system": "system", "user": "human", "assistant": "gpt"}


@writes("records", JsonLines(), "JSON Lines: the records of docs/data.md", keeps=FACTS)
def records(record: Record):
    yield record.to_json()


@writes("pairs", JsonLines(), "JSON Lines: prompt as '\\n\\nHuman: …\\n\\nAssistant:', chosen, rejected", **PAIRS)
def pairs(record: Record):
    for chosen, rejected in decided(record):
        row = {"prompt": human_assistant(record), "chosen": f" {chosen}", "rejected": f" {rejected}"}
        yield with_columns(row, record)


@writes("pairs-reject", JsonLines(), "JSON Lines: prompt as 'Human: …\\n\\nAssistant:', chosen, reject", **PAIRS)
def pairs_reject(record: Record):
    for chosen, rejected in decided(record):
        prompt = human_assistant(record).lstrip("\n")
        yield with_columns({"prompt": prompt, "chosen": chosen, "reject": rejected}, record)


@writes("hh", JsonLines(), "JSON Lines: chosen, rejected: whole dialogues, '\\n\\nHuman: …\\n\\nAssistant: …'", **PAIRS)
def hh(record: Record):
    for pair in decided(record):
        whole = [_text(record, "") + f" {answer}" for answer in pair]
        for text, answer in zip(whole, pair, strict=True):
            if turns(text) != [*_stripped(record), Message("assistant", answer.strip())]:
                raise RecordError(f"{record.where}: a text would be read as several turns: {text[:60]!r}")
        yield with_columns(dict(zip(("chosen", "rejected"), whole, strict=True)), record)


@writes("sharegpt", JsonList(), "JSON list of conversations: {from, value}", keeps=(*TURNS, SPACE, COLUMNS))
def sharegpt(record: Record):
    said = [*record.prompt, *(Message("assistant", answer.text) for answer in record.answers)]
    yield with_columns({"conversations": [{"from": FROM[m.role], "value": m.content} for m in said]}, record)


@writes("messages", JsonLines(), "JSON Lines of messages: {role, content}", keeps=(*TURNS, SPACE, COLUMNS))
def messages(record: Record):
    said = [*record.prompt, *(Message("assistant", answer.text) for answer in record.answers)]
    yield with_columns({"messages": [{"role": m.role, "content": m.content} for m in said]}, record)


@writes(
    "feedback-lines",
    JsonLines(),
    "JSON Lines: prompt, outputs by model, feedback_type (critic, refine, prefer), feedback in words",
    keeps=(*TURNS, *MANY, "models", "critiques", "refinements", "preferences", "ties", "failures", COLUMNS),
    needs=("critiques", "refinements", "preferences"),
)
def feedback_lines(record: Record):
    """A line for each feedback; the answers that it is about are the first of its outputs."""
    if len({answer.model for answer in record.answers} - {None}) < len(record.answers):
        raise RecordError(f"{record.where}: expected every answer to name its model, and all models to differ")
    said = [((), {})] if {"feedback", "feedback_type"} <= record.meta.keys() else _feedback(record)
    for about, feedback in said:
        order = [*about, *(k for k in range(len(record.answers)) if k not in about)]
        outputs = {record.answers[k].model: record.answers[k].text for k in order}
        row = with_columns({"prompt": human_assistant(record).lstrip("\n"), "outputs": outputs} | feedback, record)
        yield {name: value for name, value in row.items() if name != "unparsed"}  # which follows from the feedback


def _feedback(record: Record) -> Iterator[tuple[tuple[int, ...], dict[str, Any]]]:
    """(the answers that it is about, its columns) of every critique, refinement and decision."""
    for k, answer in enumerate(record.answers):
        if answer.critique:
            yield (k,), {"feedback_type": "critic", "feedback": answer.critique}
        if answer.refinement:
            yield (k,), {"feedback_type": "refine", "feedback": f"A better answer is: {answer.refinement}"}
    for verdict in record.verdicts:
        if verdict.preferred in WORDS:
            yield (verdict.a, verdict.b), {"feedback_type": "prefer", "feedback": WORDS[verdict.preferred]}


def human_assistant(record: Record) -> str:
    """The prompt as one text, up to the answer's mark. Raises RecordError where it would be read as another prompt."""
    text = _text(record, CUE)
    if prompt_of(text, record.where) != (_stripped(record), True):
        raise RecordError(f"{record.where}: the prompt would be read with other turns: {text[-60:]!r}")
    return text


def _text(record: Record, cue: str) -> str:
    """`cue` is moved from the end of the prompt to the answer's turn."""
    head = "".join(message.content.strip() for message in record.prompt[:1] if message.role == "system")
    said = "".join(f"\n\n{NAMES.get(m.role, 'System')}: {m.content.strip()}" for m in record.prompt[bool(head) :])
    moved = cue and said.endswith(cue)
    return f"{head}{said.removesuffix(cue) if moved else said}\n\nAssistant:{' ' + cue.strip() if moved else ''}"


def _stripped(record: Record) -> tuple[Message, ...]:
    return tuple(Message(message.role, message.content.strip()) for message in record.prompt)
