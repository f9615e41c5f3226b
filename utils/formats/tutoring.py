"""Files of coded tutoring, where every tutor turn is an object in JSON or in Python's spelling."""

from __future__ import annotations

from utils.formats.base import COLUMNS, TURNS, UNRATED, with_columns, writes
from utils.formats.dialogues import FROM
from utils.formats.files import Csv, JsonColumns, JsonList
from utils.formats.instructions import decided
from utils.raw_datasets.tutoring import Tutoring, coded
from utils.raw_datasets.tutoring_files import EXPECTED, GIVEN, Conversations, to_python
from utils.records import Message, Record, RecordError

NAMES = {"user": "Student", "assistant": "Tutorbot"}


@writes(
    "conversations",
    JsonList(),
    "JSON list of id, conversations: {from, value}; the first turn ends with 'Student: ' and the question",
    keeps=(*TURNS, COLUMNS, "ids"),
    reading="the tutor's thoughts, N/A for codes, turns that cannot be parsed",
)
def conversations(record: Record):
    system, *others = record.prompt if record.prompt[0].role == "system" else (None, *record.prompt)
    said = [*others, *(Message("assistant", answer.text) for answer in record.answers)]
    tutored = all(coded(message.content) for message in said if message.role == "assistant")
    if system and tutored:
        said[0] = Message("user", f"{system.content}\nStudent: {said[0].content}")
    elif system:
        said = [system, *said]
    turns = [{"from": FROM[message.role], "value": message.content} for message in said]
    row = {"id": record.meta.get("id", record.id), "conversations": turns}
    read = Conversations.record(row, record.where)
    if not _same(read, record):
        raise RecordError(f"{record.where}: the conversation would be read with other turns: {said[0].content[-60:]!r}")
    yield with_columns(row, record)


@writes(
    "formatted",
    JsonColumns(),
    "JSON object of columns: prompt as 'System: … Student: …\\n\\nTutorbot:', chosen, perhaps rejected",
    keeps=(*TURNS, "several answers", UNRATED, "preferences"),
    empty="records without an answer or a preference",
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
    "responses-csv",
    Csv(("prompt", GIVEN, EXPECTED), shared=False),
    "CSV: prompt, response, gpt: a model's answer and the one expected, in Python's spelling where they are objects",
    keeps=(*TURNS, "several answers", "models"),
    needs=("several answers",),
)
def responses_csv(record: Record):
    models = [answer.model for answer in record.answers]
    if len(models) != 2 or models.count(EXPECTED) != 1:
        found = f"{record.where}: found answers of {', '.join(map(str, models))}"
        raise RecordError(f"{found}; expected two, one of them of the model {EXPECTED!r}")
    expected = models.index(EXPECTED)
    texts = [to_python(record.answers[k].text) for k in (1 - expected, expected)]
    yield tutor_prompt(record), *texts


def tutor_prompt(record: Record) -> str:
    """The prompt as one text, up to the tutor's mark. Raises RecordError where it would be read as another prompt."""
    system = "".join(f"System: {m.content.strip()} " for m in record.prompt[:1] if m.role == "system")
    said = "\n".join(f"{NAMES.get(m.role, 'System')}: {m.content.strip()}" for m in record.prompt[bool(system) :])
    text = f"{system}{said}\n\nTutorbot:"
    if Tutoring.record({"prompt": text, "chosen": ""}, record.where).prompt != _stripped(record.prompt):
        raise RecordError(f"{record.where}: the prompt would be read with other turns: {text[-60:]!r}")
    return text


def _same(read: Record, record: Record) -> bool:
    """Do two records hold the same turns, the spelling of coded ones and white space at the ends aside?"""
    both = [
        _stripped(each.prompt + tuple(Message("assistant", a.text) for a in each.answers)) for each in (read, record)
    ]
    return both[0] == both[1]


def _stripped(messages) -> tuple[Message, ...]:
    return tuple(Message(m.role, (m.role == "assistant" and coded(m.content)) or m.content.strip()) for m in messages)
