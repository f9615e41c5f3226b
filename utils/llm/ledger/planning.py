"""The plan of a run: its questions, and the queue of its requests that have no answer."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from utils.llm.ledger.steps import SETTLED
from utils.llm.providers import Request, canonical

# A question of this run whose answer has no value. The answer to a request that another question has a value of stays.
_IN_VAIN = """
    SELECT key FROM questions AS asked JOIN requests USING (key) WHERE key = ?1 AND state = 'answered'
    AND asked.reason IS NOT NULL AND NOT EXISTS (SELECT 1 FROM questions WHERE key = ?1 AND value IS NOT NULL)
"""


@dataclass(frozen=True)
class Question:
    """A request and how its answer is read: `parser` names one of utils.parsing, called with `parser_args`."""

    request: Request
    parser: str
    parser_args: dict[str, Any] = field(default_factory=dict)


def forget_run(db: sqlite3.Connection) -> None:
    """Empty the lists of the run before."""
    for table in ("wanted", "queue", "settled_elsewhere"):
        db.execute(f"DELETE FROM temp.{table}")


def plan(db: sqlite3.Connection, process: int, questions: Iterable[Question]) -> None:
    """Add the questions that are new, and put into this run's queue the requests that have no answer."""
    requests, asked, keys = [], [], []
    for question in questions:
        request, key = question.request, question.request.key
        requests.append((key, request.provider, request.model, request.body_text, request.sample))
        asked.append((key, question.parser, canonical(question.parser_args)))
        keys.append((key,))
    db.executemany(
        "INSERT OR IGNORE INTO requests(key, provider, model, body, sample) VALUES (?, ?, ?, ?, ?)", requests
    )
    db.executemany("INSERT OR IGNORE INTO questions(key, parser, args) VALUES (?, ?, ?)", asked)
    db.executemany("INSERT OR IGNORE INTO wanted VALUES (?, ?, ?)", asked)
    # A request that failed in an earlier run is asked again: the reason may be gone, and a failure costs nothing.
    db.executemany(
        "UPDATE requests SET state = 'planned', reason = NULL WHERE key = ?1 AND state = 'failed'"
        " AND NOT EXISTS (SELECT 1 FROM attempts WHERE key = ?1 AND owner = ?2)",
        [(key, process) for (key,) in keys],
    )
    db.executemany(
        f"INSERT OR IGNORE INTO queue(key) SELECT key FROM requests WHERE key = ? AND state NOT IN {SETTLED}", keys
    )


def retry_unparsed(db: sqlite3.Connection, process: int) -> None:
    """Plan again those of this run's requests whose answers have no value, and that this process has not asked."""
    wanted = db.execute("SELECT DISTINCT key FROM wanted").fetchall()
    mine = "SELECT 1 FROM attempts WHERE key = ?1 AND owner = ?2"
    for (key,) in wanted:
        if not db.execute(f"{_IN_VAIN} AND NOT EXISTS ({mine})", (key, process)).fetchone():
            continue
        db.execute("UPDATE requests SET state = 'planned', owner = NULL WHERE key = ?", (key,))
        db.execute("UPDATE questions SET version = NULL, value = NULL, reason = NULL WHERE key = ?", (key,))
        db.execute("INSERT OR IGNORE INTO queue(key) VALUES (?)", (key,))


def unanswered(db: sqlite3.Connection, questions: Iterable[Question], retry: bool) -> Iterator[Question]:
    """Yield the questions whose requests a run would send, each request once. Only the temporary queue is written.

    Args:
        db: the connection.
        questions: the questions of the run.
        retry: whether answers without a value are asked for again.

    Yields:
        The questions.
    """
    settled = f"SELECT 1 FROM requests WHERE key = ? AND state IN {SETTLED} AND state <> 'failed'"
    for question in questions:
        key = question.request.key
        if not db.execute("INSERT OR IGNORE INTO queue(key) VALUES (?)", (key,)).rowcount:
            continue
        if not db.execute(settled, (key,)).fetchone() or (retry and db.execute(_IN_VAIN, (key,)).fetchone()):
            yield question


def known(db: sqlite3.Connection) -> tuple[int, int]:
    """Return (this run's requests that are not in its queue, all of this run's requests)."""
    (total,) = db.execute("SELECT count(*) FROM (SELECT DISTINCT key FROM wanted)").fetchone()
    (queued,) = db.execute("SELECT count(*) FROM queue").fetchone()
    return total - queued, total
