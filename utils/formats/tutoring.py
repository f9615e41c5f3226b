"""Files of coded tutoring, where every tutor turn is an object in JSON or in Python's spelling."""

from __future__ import annotations

from collections.abc import Iterable

from utils.formats.base import COLUMNS, TURNS, UNRATED, Format, with_columns, writes
from utils.formats.dialogues import dialogue, from_values
from utils.formats.files import Csv, JsonColumns, JsonList
from utils.formats.instructions import decided
from utils.raw_datasets.tutoring import Tutoring, coded
from utils.raw_datasets.tutoring_files import EXPECTED, GIVEN, Conversations, to_python
from utils.records import Message, Record, RecordError

NAMES = {"system": "System", "user": "Student", "assistant": "Tutorbot"}


@writes(
    Format(
        name="conversations",
        file=JsonList(),
        about="JSON list of id, conversations: {from, value}; the first turn ends with 'Student: ' and the question",
        keeps=(*TURNS, COLUMNS, "ids"),
        reading="the tutor's thoughts, N/A for codes, turns that cannot be parsed",
    )
)
def conversations(record: Record):
    messages = dialogue(record)
    tutored = all(coded(message.content) for message in messages if message.role == "assistant")
    if tutored and messages[0].role == "system":
        # Coded files hold the instruction and the student's first question in one turn.
        system, question, *others = messages
        messages = [Message("user", f"{system.content}\nStudent: {question.content}"), *others]
    row = {"id": record.meta.get("id", record.id), "conversations": from_values(messages)}
    read = Conversations.record(row, record.where)
    if _stripped(dialogue(read)) != _stripped(dialogue(record)):
        start = messages[0].content[-60:]
        raise RecordError(f"{record.where}: the conversation would be read with other turns: {start!r}")
    yield with_columns(row, record)


@writes(
    Format(
        name="formatted",
        file=JsonColumns(),
        about="JSON object of columns: prompt as 'System: … Student: …\\n\\nTutorbot:', chosen, perhaps rejected",
        keeps=(*TURNS, "several answers", UNRATED, "preferences"),
        empty="records without an answer or a preference",
    )
)
def formatted(record: Record):
    prompt = tutor_prompt(record)
    if record.verdicts:
        for chosen, rejected in decided(record):
            yield {"prompt": prompt, "chosen": chosen, "rejected": rejected}
    elif len(record.answers) > 1:
        raise RecordError(f"{record.where}: {len(record.answers)} answers, none preferred; expected one, or a verdict")
    else:
        for answer in record.answers:
            yield {"prompt": prompt, "chosen": answer.text}


@writes(
    Format(
        name="responses-csv",
        file=Csv(("prompt", GIVEN, EXPECTED), shared=False),
        about="CSV: prompt, response, gpt: a model's answer and the one expected, in Python's spelling where "
        "they are objects",
        keeps=(*TURNS, "several answers", "models"),
        needs=("several answers",),
    )
)
def responses_csv(record: Record):
    models = [answer.model for answer in record.answers]
    # The data's own answer names no model where a model's was sampled beside it.
    name = EXPECTED if EXPECTED in models else None
    if len(models) != 2 or models.count(name) != 1:
        found = f"{record.where}: found answers of {', '.join(map(str, models))}"
        raise RecordError(f"{found}; expected two, one of them of the model {EXPECTED!r}, or of none")
    expected = models.index(name)
    given_text, expected_text = (to_python(record.answers[place].text) for place in (1 - expected, expected))
    yield tutor_prompt(record), given_text, expected_text


def tutor_prompt(record: Record) -> str:
    """Return the prompt as one text, up to the tutor's mark. Raises RecordError where it would be read as another
    prompt."""
    text = ""
    for number, message in enumerate(record.prompt):
        text += f"{NAMES[message.role]}: {message.content.strip()}"
        # The instruction is followed by the question on the same line: "System: … Student: …".
        text += " " if number == 0 and message.role == "system" else "\n"
    text = text.removesuffix("\n") + "\n\nTutorbot:"
    read = Tutoring.record({"prompt": text, "chosen": ""}, record.where).prompt
    # Both in one spelling: the tutor's earlier turns may be objects in Python's.
    if _stripped(read) != _stripped(record.prompt):
        raise RecordError(f"{record.where}: the prompt would be read with other turns: {text[-60:]!r}")
    return text


def _stripped(messages: Iterable[Message]) -> tuple[Message, ...]:
    """Return turns without white space at their ends, and coded ones in one spelling."""
    found = []
    for message in messages:
        content = message.content.strip()
        if message.role == "assistant":
            content = coded(message.content) or content
        found.append(Message(message.role, content))
    return tuple(found)
