"""The formats of other systems: which rows a record becomes, which file holds them, and what they cannot hold."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utils.errors import UserError
from utils.formats.files import File, replacing
from utils.raw_datasets.feedback_csv import RatingVerdicts, asked_verdicts
from utils.records import Record, RecordError, content_id

Rows = Callable[[Record], Iterable[Any]]
OnBad = Callable[[RecordError], None]

# What a record may hold beside one question and its answer. A format names what it keeps of this. What else a record
# holds is lost when it is written, and counted; but a record whose STRUCTURE does not fit is refused, because its
# answers would be read as answers to something else.
STRUCTURE = ("system messages", "earlier turns", "several answers")
OF_ANSWERS = {  # the field of an answer -> what it is called
    "model": "models",
    "sampling": "sampling settings",
    "rating": "ratings",
    "rank": "ranks",
    "thumb": "thumbs",
    "critique": "critiques",
    "refinement": "refinements",
    "scores": "scores",
}
OF_VERDICTS = {"a": "preferences", "b": "preferences", "tie": "ties", "failed": "failures", "refused": "refusals"}
COLUMNS, SPACE = "further columns", "outer white space"
UNRATED, UNCOMPARED = "unrated answers", "uncompared answers"
FACTS = (
    *STRUCTURE,
    *OF_ANSWERS.values(),
    *dict.fromkeys(OF_VERDICTS.values()),
    *("marks of cut answers", "judges", "orders", "ids", COLUMNS, SPACE, UNRATED, UNCOMPARED),
)
TURNS = ("system messages", "earlier turns")
MANY = ("several answers", UNRATED, UNCOMPARED)  # every answer is written, whatever is known of it


@dataclass(frozen=True)
class Format:
    """A format of files, as @writes registers it."""

    name: str
    file: File  # how rows are written
    about: str  # a line for people
    keeps: Iterable[str] = ()  # of FACTS
    needs: tuple[str, ...] = ()  # facts without any of which a record has no rows
    writing: str = ""  # what else is lost when it is written, in words
    reading: str = ""  # and when it is read
    empty: str = ""  # what to call records that have no rows; "": by what the format needs
    # From a record to its rows; raises RecordError for one that the format cannot hold. @writes fills it in.
    rows: Rows | None = None


FORMATS: dict[str, Format] = {}


def writes(form: Format) -> Callable[[Rows], Rows]:
    """Return a decorator that makes a function from a record to its rows the writer of a format."""
    keeps = frozenset(form.keeps)
    if keeps - set(FACTS):
        raise ValueError(f"{form.name} keeps {sorted(keeps - set(FACTS))}; expected facts of FACTS")
    empty = form.empty or f"records without {' or '.join(form.needs) or 'answers'}"

    def register(rows: Rows) -> Rows:
        FORMATS[form.name] = dataclasses.replace(form, keeps=keeps, empty=empty, rows=rows)
        return rows

    return register


def facts(record: Record) -> Iterator[str]:
    """Yield what of FACTS the record holds."""
    roles = [message.role for message in record.prompt]
    if "system" in roles:
        yield "system messages"
    if len(roles) - roles.count("system") > 1:
        yield "earlier turns"
    if len(record.answers) > 1:
        yield "several answers"
    if not all(answer.finished for answer in record.answers):
        yield "marks of cut answers"
    # Verdicts that ratings imply are left out: whoever reads the ratings again has them again.
    asked = asked_verdicts(record)
    if any(verdict.judge for verdict in asked):
        yield "judges"
    if any(verdict.order for verdict in asked):
        yield "orders"
    if record.id != content_id(record.prompt, record.answers):
        yield "ids"
    if _further_columns(record):
        yield COLUMNS
    yield from _facts_of_some_answers(record)
    texts = [*(message.content for message in record.prompt), *texts_of(record)]
    if texts != list(map(str.strip, texts)):
        yield SPACE
    yield from dict.fromkeys(OF_VERDICTS[verdict.preferred] for verdict in asked)
    for name, fact in OF_ANSWERS.items():
        if any(getattr(answer, name) not in (None, {}) for answer in record.answers):
            yield fact


def texts_of(record: Record) -> list[str]:
    """Return the text of every answer."""
    return [answer.text for answer in record.answers]


def _facts_of_some_answers(record: Record) -> Iterator[str]:
    """Yield whether some answers are rated, or compared, and others not: a format of ratings loses those."""
    rated = sum(answer.rating is not None for answer in record.answers)
    if 0 < rated < len(record.answers):
        yield UNRATED
    if isinstance(record.verdicts, RatingVerdicts):
        # All answers are rated, and so compared.
        return
    compared = set()
    for verdict in record.verdicts:
        if verdict.preferred in ("a", "b", "tie"):
            compared |= {verdict.a, verdict.b}
    if 0 < len(compared) < len(record.answers):
        yield UNCOMPARED


def _further_columns(record: Record) -> dict[str, Any]:
    # `instruct` keeps these two in meta where the message alone cannot tell them apart; they are not further columns.
    return {name: value for name, value in record.meta.items() if name not in ("instruction", "input")}


def with_columns(row: dict[str, Any], record: Record) -> dict[str, Any]:
    """Return the row and the further columns of its record. Raises RecordError where both have one of the same name."""
    further = _further_columns(record)
    for name, value in further.items():
        if name in row and value != row[name]:
            raise RecordError(f"{record.where}: a further column is called {name!r}, as one of the format itself")
    return {**row, **further}


def write(name: str, path: Path | str, records: Iterable[Record], on_bad: OnBad | None = None) -> Counter[str]:
    """Write records to a file of a format.

    Args:
        name: of FORMATS.
        path: the file, written beside and renamed.
        records: what to write.
        on_bad: gets every record that the format cannot hold; None raises it.

    Returns:
        The number of "rows" written and, for every fact that was lost, in how many records.

    Raises:
        UserError: an unknown name, or nothing to write.
        RecordError: a record that the format cannot hold.
    """
    if name not in FORMATS:
        raise UserError(f"{name!r} is no format that can be written; known: {', '.join(FORMATS)}")
    tally: Counter[str] = Counter()
    with replacing(Path(path)) as out:
        FORMATS[name].file.write(out, _rows(FORMATS[name], records, on_bad, tally))
        # Still inside: an error here removes the new file and leaves an older one in its place.
        if not tally["rows"]:
            found = f"{path}: no rows left to write as {name}"
            for what, count in tally.items():
                found += f"; {count} {what}"
            raise UserError(found)
    return tally


def _rows(form: Format, records: Iterable[Record], on_bad: OnBad | None, tally: Counter[str]) -> Iterator[Any]:
    """Yield the rows of the records, and count in `tally` what becomes of each."""
    for record in records:
        try:
            lost = [fact for fact in facts(record) if fact not in form.keeps]
            beyond = [fact for fact in lost if fact in STRUCTURE]
            # Not counted as lost: its answers would be read as answers to another prompt.
            if beyond:
                raise RecordError(
                    f"{record.where}: the record has {' and '.join(beyond)}, which {form.name} cannot say"
                )
            rows = list(form.rows(record))
        except RecordError as error:
            _bad(error, on_bad)
            continue
        except UnicodeEncodeError as error:
            _bad(RecordError(f"{record.where}: a text holds half a character: {error.object[error.start]!r}"), on_bad)
            continue
        tally.update(lost)
        if not rows:
            tally[form.empty] += 1
        # A record's good rows are written though another of its rows is bad: they are answers of their own.
        for row in rows:
            try:
                form.file.check(row, record.where)
            except RecordError as error:
                _bad(error, on_bad)
                continue
            tally["rows"] += 1
            yield row


def _bad(error: RecordError, on_bad: OnBad | None) -> None:
    if on_bad is None:
        raise error
    on_bad(error)
