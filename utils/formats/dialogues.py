"""Files of whole dialogues: records, preference pairs, conversations, and feedback in a language model's own words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from utils.formats.base import COLUMNS, FACTS, MANY, SPACE, TURNS, UNRATED, Format, with_columns, writes
from utils.formats.files import JsonLines, JsonList
from utils.formats.instructions import decided
from utils.raw_datasets.dialogue import prompt_of, turns
from utils.records import Answer, Message, Record, RecordError

PAIRS = {"keeps": ("several answers", UNRATED, "preferences", COLUMNS, *TURNS), "needs": ("preferences",)}
WORDS = {"a": "(A)", "b": "(B)", "tie": "(C)"}  # of a decision
CUE = "\n\nTL;DR:"  # of a summary: it belongs to the answer's turn
NAMES = {"user": "Human", "assistant": "Assistant"}
FROM = {"system": "system", "user": "human", "assistant": "gpt"}


@writes(
    Format(
        name="records",
        file=JsonLines(),
        about="JSON Lines: the records of docs/data.md",
        keeps=FACTS,
    )
)
def records(record: Record):
    yield record.to_json()


@writes(
    Format(
        name="pairs",
        file=JsonLines(),
        about="JSON Lines: prompt as '\\n\\nHuman: …\\n\\nAssistant:', chosen, rejected",
        **PAIRS,
    )
)
def pairs(record: Record):
    for chosen, rejected in decided(record):
        # DeepSpeed-Chat joins prompt and answer as they stand: the space behind the colon is the answer's.
        row = {"prompt": human_assistant(record), "chosen": f" {chosen}", "rejected": f" {rejected}"}
        yield with_columns(row, record)


@writes(
    Format(
        name="pairs-reject",
        file=JsonLines(),
        about="JSON Lines: prompt as 'Human: …\\n\\nAssistant:', chosen, reject",
        **PAIRS,
    )
)
def pairs_reject(record: Record):
    for chosen, rejected in decided(record):
        prompt = human_assistant(record).lstrip("\n")
        yield with_columns({"prompt": prompt, "chosen": chosen, "reject": rejected}, record)


@writes(
    Format(
        name="hh",
        file=JsonLines(),
        about="JSON Lines: chosen, rejected: whole dialogues, '\\n\\nHuman: …\\n\\nAssistant: …'",
        **PAIRS,
    )
)
def hh(record: Record):
    for pair in decided(record):
        row = {}
        for name, answer in zip(("chosen", "rejected"), pair, strict=True):
            row[name] = f"{_text(record, '')} {answer}"
            # An answer that holds "\n\nHuman:" itself would come back as a longer dialogue.
            if turns(row[name]) != [*_stripped(record), Message("assistant", answer.strip())]:
                raise RecordError(f"{record.where}: a text would be read as several turns: {row[name][:60]!r}")
        yield with_columns(row, record)


@writes(
    Format(
        name="sharegpt",
        file=JsonList(),
        about="JSON list of conversations: {from, value}",
        keeps=(*TURNS, SPACE, COLUMNS),
    )
)
def sharegpt(record: Record):
    yield with_columns({"conversations": from_values(dialogue(record))}, record)


@writes(
    Format(
        name="messages",
        file=JsonLines(),
        about="JSON Lines of messages: {role, content}",
        keeps=(*TURNS, SPACE, COLUMNS),
    )
)
def messages(record: Record):
    rows = [{"role": message.role, "content": message.content} for message in dialogue(record)]
    yield with_columns({"messages": rows}, record)


def dialogue(record: Record) -> list[Message]:
    """Return the prompt and every answer as messages."""
    return [*record.prompt, *(Message("assistant", answer.text) for answer in record.answers)]


def from_values(messages: Sequence[Message]) -> list[dict[str, str]]:
    """Return messages in ShareGPT's spelling."""
    return [{"from": FROM[message.role], "value": message.content} for message in messages]


@writes(
    Format(
        name="feedback-lines",
        file=JsonLines(),
        about="JSON Lines: prompt, outputs by model, feedback_type (critic, refine, prefer), feedback in words",
        keeps=(*TURNS, *MANY, "models", "critiques", "refinements", "preferences", "ties", "failures", COLUMNS),
        needs=("critiques", "refinements", "preferences"),
    )
)
def feedback_lines(record: Record):
    """Yield a line for each feedback; the answers that it is about are the first of its outputs."""
    if len({answer.model for answer in record.answers} - {None}) < len(record.answers):
        raise RecordError(f"{record.where}: expected every answer to name its model, and all models to differ")
    feedback = _feedback(record)
    # Read from such a file: its further columns hold the feedback.
    if {"feedback", "feedback_type"} <= record.meta.keys():
        feedback = [((), {})]
    for about, columns in feedback:
        outputs = {answer.model: answer.text for answer in about}
        for answer in record.answers:
            outputs.setdefault(answer.model, answer.text)
        prompt = human_assistant(record).lstrip("\n")
        row = with_columns({"prompt": prompt, "outputs": outputs, **columns}, record)
        # The reason why a feedback says nothing clear follows from the feedback.
        row.pop("unparsed", None)
        yield row


def _feedback(record: Record) -> Iterator[tuple[tuple[Answer, ...], dict[str, Any]]]:
    """Yield (the answers that it is about, its columns) of every critique, refinement and decision."""
    for answer in record.answers:
        if answer.critique:
            yield (answer,), {"feedback_type": "critic", "feedback": answer.critique}
        if answer.refinement:
            yield (answer,), {"feedback_type": "refine", "feedback": f"A better answer is: {answer.refinement}"}
    for verdict in record.verdicts:
        if verdict.preferred in WORDS:
            about = (record.answers[verdict.a], record.answers[verdict.b])
            yield about, {"feedback_type": "prefer", "feedback": WORDS[verdict.preferred]}


def human_assistant(record: Record) -> str:
    """Return the prompt as one text, up to the answer's mark. Raises RecordError where it would be read as another
    prompt."""
    text = _text(record, CUE)
    if prompt_of(text, record.where) != (_stripped(record), True):
        raise RecordError(f"{record.where}: the prompt would be read with other turns: {text[-60:]!r}")
    return text


def _text(record: Record, cue: str) -> str:
    """Return the prompt as one text; a `cue` at its end is moved to the answer's turn."""
    text = ""
    if record.prompt[0].role == "system":
        text = record.prompt[0].content.strip()
    for message in record.prompt[bool(text) :]:
        text += f"\n\n{NAMES.get(message.role, 'System')}: {message.content.strip()}"
    if cue and text.endswith(cue):
        return f"{text.removesuffix(cue)}\n\nAssistant: {cue.strip()}"
    return f"{text}\n\nAssistant:"


def _stripped(record: Record) -> tuple[Message, ...]:
    return tuple(Message(message.role, message.content.strip()) for message in record.prompt)
