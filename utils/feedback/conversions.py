"""Changes of records between the class that reads them and the format that is written."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from functools import partial

from utils.records import Answer, Message, Record, Verdict


def each_turn(records: Iterable[Record]) -> Iterator[Record]:
    """Yield a record for every answer of a conversation, with the turns before it as the prompt."""
    for record in records:
        turns = [*record.prompt, *(Message("assistant", answer.text) for answer in record.answers)]
        for number, message in enumerate(turns):
            if message.role == "assistant":
                yield Record(tuple(turns[:number]), (Answer(message.content),), where=record.where)


def without_repeats(records: Iterable[Record]) -> Iterator[Record]:
    """Leave out verdicts that are exact copies of earlier ones on the same prompt."""
    for record in records:
        unlike: dict[tuple[str, str, str], Verdict] = {}
        for verdict in record.verdicts:
            a, b = record.answers[verdict.a].text, record.answers[verdict.b].text
            unlike.setdefault((a, b, verdict.preferred), verdict)
        yield dataclasses.replace(record, verdicts=tuple(unlike.values()))


def together(records: Iterable[Record], distinct: bool = False) -> Iterator[Record]:
    """Return one record a prompt, with all its answers; `distinct` leaves out texts that it has."""
    found: dict[tuple, tuple[Record, list[Answer]]] = {}
    known: dict[tuple, set[str]] = {}
    for record in records:
        _, answers = found.setdefault(record.prompt, (record, []))
        texts = known.setdefault(record.prompt, set())
        answers += [answer for answer in record.answers if not distinct or answer.text not in texts]
        texts.update(answer.text for answer in record.answers)
    for first, answers in found.values():
        yield dataclasses.replace(first, answers=tuple(answers), id="")


# (class that reads, format to write) -> what is done in between
STEPS = {
    ("conversations", "formatted"): each_turn,
    ("tutoring", "formatted"): each_turn,
    ("rankings-feedback-csv", "rm-json"): without_repeats,
    # A CSV file has a row for each rating or each pair; these formats have one entry a prompt.
    ("ratings-csv", "responses"): together,
    ("ratings-csv", "generations-n"): together,
    ("ratings-csv", "completions"): together,
    ("rankings-csv", "responses"): partial(together, distinct=True),
    ("rankings-csv", "generations-n"): partial(together, distinct=True),
}
