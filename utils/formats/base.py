"""What a format is: the rows that a record becomes, the file that holds them, and what they can and cannot say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utils.errors import UserError
from utils.formats.files import File, replacing
from utils.raw_datasets.feedback_csv import BY_RATING
from utils.records import Record, RecordError, content_id

Rows = Callable[[Record], Iterable[Any]]
OnBad = Callable[[RecordError], None]

# What a record may say beside one question and its answer. A format names what it keeps of this; a record that says
# more loses it, and that is counted; but a record whose STRUCTURE it cannot hold is refused.
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
    """`rows` are a record's rows (RecordError: it cannot be said), `file` writes them; `keeps` are of FACTS."""

    name: str
    about: str
    rows: Rows
    file: File
    keeps: frozenset[str]
    needs: tuple[str, ...]  # facts without any of which a record has no rows
    writing: str  # what else is lost when it is written, in words
    reading: str  # and when it is read
    empty: str  # what a record is that has no rows


FORMATS: dict[str, Format] = {}


def writes(
    name: str,
    file: File,
    about: str,
    keeps: Iterable[str] = (),
    needs: tuple[str, ...] = (),
    writing: str = "",
    reading: str = "",
    empty: str | None = None,
) -> Callable[[Rows], Rows]:
    """Decorator: the function from a record to its rows becomes a format."""
    keeps = frozenset(keeps)
    if keeps - set(FACTS):
        raise ValueError(f"{name} keeps {sorted(keeps - set(FACTS))}, which nothing is called")

    def register(rows: Rows) -> Rows:
        nothing = empty or f"records without {' or '.join(needs) or 'answers'}"
        FORMATS[name] = Format(name, about, rows, file, keeps, needs, writing, reading, nothing)
        return rows

    return register


def facts(record: Record) -> Iterator[str]:
    """What of FACTS the record says."""
    roles = [message.role for message in record.prompt]
    texts = [message.content for message in record.prompt] + [answer.text for answer in record.answers]
    asked = [verdict for verdict in record.verdicts if verdict.judge != BY_RATING]  # the ratings say these themselves
    answers = record.answers
    rated = [answer for answer in answers if answer.rating is not None]
    compared = {k for v in record.verdicts if v.preferred in ("a", "b", "tie") for k in (v.a, v.b)}
    said = {
        "system messages": "system" in roles,
        "earlier turns": len(roles) - roles.count("system") > 1,
        "several answers": len(answers) > 1,
        "marks of cut answers": not all(answer.finished for answer in answers),
        "judges": any(verdict.judge for verdict in asked),
        "orders": any(verdict.order for verdict in asked),
        "ids": record.id != content_id(record.prompt, answers),
        COLUMNS: bool(record.meta.keys() - {"instruction", "input"}),
        UNRATED: 0 < len(rated) < len(answers),
        UNCOMPARED: 0 < len(compared) < len(answers),
        SPACE: any(text != text.strip() for text in texts),
    }
    yield from (fact for fact, is_so in said.items() if is_so)
    yield from {OF_VERDICTS[verdict.preferred] for verdict in asked}
    for name, fact in OF_ANSWERS.items():
        if any(getattr(answer, name) not in (None, {}) for answer in answers):
            yield fact


def with_columns(row: dict[str, Any], record: Record) -> dict[str, Any]:
    """The row and the further columns of its record. Raises RecordError where both have one of the same name."""
    further = {name: value for name, value in record.meta.items() if name not in ("instruction", "input")}
    both = [name for name in further if name in row and further[name] != row[name]]
    if both:
        raise RecordError(f"{record.where}: a further column is called {both[0]!r}, as one of the format itself")
    return {**row, **further}


def write(name: str, path: Path | str, records: Iterable[Record], on_bad: OnBad | None = None) -> Counter[str]:
    """Write a file of that format, beside `path` and renamed. Returns what became of the records: "rows" written, and
    whatever was lost -> in how many records. A record that the format cannot say goes to `on_bad`, or raises
    RecordError. Raises UserError for a name that is none, and when nothing would be written."""
    if name not in FORMATS:
        raise UserError(f"{name!r} is no format that can be written; known: {', '.join(FORMATS)}")
    tally: Counter[str] = Counter()
    with replacing(Path(path)) as out:
        FORMATS[name].file.write(out, _rows(FORMATS[name], records, on_bad, tally))
        if not tally["rows"]:
            reasons = "".join(f"; {count} {what}" for what, count in tally.items() if what != "rows")
            raise UserError(f"{path}: no rows left to write as {name}{reasons}")
    return tally


def _rows(form: Format, records: Iterable[Record], on_bad: OnBad | None, tally: Counter[str]) -> Iterator[Any]:
    for record in records:
        try:
            lost = [fact for fact in facts(record) if fact not in form.keeps]
            beyond = [fact for fact in lost if fact in STRUCTURE]
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
