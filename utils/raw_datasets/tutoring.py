"""Tutoring conversations in the coded form: every tutor turn is one JSON object of five keys, Tutorbot the words said.

Two shapes: whole `conversations`, whose first turn holds the instruction and ends with "Student: question"; and prompts
formatted as "System: … Student: …\\nTutorbot: …\\n\\nTutorbot:" with the tutor's turn in `chosen` (and `rejected`).
"""

import ast
import json
import re

from utils.raw_datasets.base import RawDataset, raw_dataset, rest, text
from utils.raw_datasets.dialogue import demonstration, merged, messages, turns
from utils.records import Answer, Message, Record, RecordError, comparison

NOT_APPLICABLE = {  # the code that stands for N/A
    "Evaluation of Student Response": "g",
    "Action Based on Evaluation": "12",
    "Subproblem State": "w",
}
_MARKS = re.compile(r"(?:\A|\n)\s*(Student|Tutorbot):")


@raw_dataset("tutoring", "formatted")
class Tutoring(RawDataset):
    needs = "conversations with coded tutor turns; or prompt ending in 'Tutorbot:', chosen, perhaps rejected"
    columns = ("conversations", "prompt", "chosen", "rejected")
    instead_of = ("sharegpt", "pairs", "prompt_answer")

    @staticmethod
    def fits(row):
        if isinstance(row.get("conversations"), list):
            return re.search(r"""['"]Tutorbot\\?['"]""", str(row["conversations"])) is not None
        return "chosen" in row and str(row.get("prompt")).rstrip().endswith("Tutorbot:")

    @staticmethod
    def record(row, where):
        meta = rest(row, Tutoring.columns)
        if "conversations" in row:
            prompt, answers = demonstration(_conversation(row["conversations"], f"{where}: conversations"))
            return Record(prompt, tuple(map(Answer, answers)), where=where, meta=meta)
        prompt = _prompt(text(row, "prompt", where=where), where)
        chosen = text(row, "chosen", where=where).strip()
        if "rejected" in row:
            return comparison(prompt, chosen, text(row, "rejected", where=where).strip(), where=where, meta=meta)
        return Record(prompt, (Answer(chosen),), where=where, meta=meta)


def coded(turn: str) -> str | None:
    """Return the tutor's turn as JSON without its thoughts, N/A as its code; None when it cannot be parsed."""
    value = literal(turn)
    if value is None or not isinstance(value.get("Tutorbot"), str):
        return None
    return json.dumps(without_thoughts(value), ensure_ascii=False, default=str)


def literal(turn: str) -> dict | None:
    """Return the object that a turn writes in JSON or in Python's spelling; None when it writes none."""
    try:
        value = json.loads(turn)
    except json.JSONDecodeError:
        try:
            # Models that were taught with Python's dicts write single quotes, which are no JSON.
            value = ast.literal_eval(turn.strip())
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            return None
    if isinstance(value, dict):
        return value
    return None


def without_thoughts(turn: dict) -> dict:
    """Return what the student may see, N/A as its code."""
    seen = {}
    for name, value in turn.items():
        if name == "Thoughts of Tutorbot":
            continue
        if value == "N/A":
            value = NOT_APPLICABLE.get(name, value)
        seen[name] = value
    return seen


def _conversation(value, where: str) -> list[Message]:
    """Return the turns up to the first tutor turn that cannot be parsed, which ends it with the student's turn before
    it."""
    first, *others = messages(value, where)
    out = _opening(first.content)
    for message in others:
        if message.role == "user":
            content = message.content.removeprefix("Student:").strip()
        else:
            content = coded(message.content)
        if content is None:
            break
        out.append(Message(message.role, content))
    if out and out[-1].role == "user":
        out.pop()
    if not out or out[-1].role != "assistant":
        raise RecordError(f"{where}: no tutor turn can be parsed; expected an object with the key 'Tutorbot'")
    return list(merged(out))


def _opening(instruction: str) -> list[Message]:
    """Return the system's instruction and the student's first question, which are written in one text."""
    # Without the mark rpartition leaves the whole text as the question.
    system, _, question = instruction.rpartition("Student: ")
    system = system.strip().removeprefix("System:").strip()
    user = Message("user", question.strip())
    if not system:
        return [user]
    return [Message("system", system), user]


def _prompt(formatted: str, where: str) -> tuple[Message, ...]:
    dialogue = turns(formatted, _MARKS)
    if len(dialogue) < 2 or dialogue[-1] != Message("assistant", ""):
        raise RecordError(f"{where}: prompt ends with {formatted[-40:]!r}; expected 'Tutorbot:'")
    first, *others = dialogue[:-1]
    if first.role != "system":
        opening = [first]
    elif "Student: " in first.content:
        opening = _opening(first.content)
    else:
        opening = [Message("system", first.content.removeprefix("System:").strip())]
    return merged([*opening, *others])
