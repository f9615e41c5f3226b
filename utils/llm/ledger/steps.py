"""The steps from a planned request to a settled one, each a few statements inside the caller's transaction."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from utils.llm.ledger import processes
from utils.llm.providers import Price, Reply, Request, canonical

SETTLED = "('answered', 'refused', 'failed')"


@dataclass(frozen=True)
class Question:
    """A request and how its answer is read: `parser` names one of utils.parsing, called with `parser_args`."""

    request: Request
    parser: str
    parser_args: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Reading:
    """What one version of a parser made of an answer: a JSON value, or the reason why there is none."""

    version: int
    value: Any = None
    reason: str | None = None

    @property
    def columns(self) -> tuple[str | None, str | None]:
        """Return (value, reason) as the table questions holds them."""
        if self.reason is None:
            return canonical(self.value), None
        return None, self.reason


def forget_run(db: sqlite3.Connection) -> None:
    """Empty the lists of the run before."""
    db.execute("DELETE FROM temp.wanted")
    db.execute("DELETE FROM temp.queue")


def plan(db: sqlite3.Connection, process: int, questions: Iterable[Question]) -> None:
    """Add the questions that are new, and put into this run's queue the requests that have no answer."""
    # A request that failed in an earlier run is asked again: the reason may be gone, and a failure costs nothing.
    for question in questions:
        request, key = question.request, question.request.key
        asked = (key, question.parser, canonical(question.parser_args))
        row = (key, request.provider, request.model, canonical(request.body), request.sample)
        db.execute("INSERT OR IGNORE INTO requests(key, provider, model, body, sample) VALUES (?, ?, ?, ?, ?)", row)
        db.execute("INSERT OR IGNORE INTO questions(key, parser, args) VALUES (?, ?, ?)", asked)
        db.execute("INSERT OR IGNORE INTO wanted VALUES (?, ?, ?)", asked)
        db.execute(
            "UPDATE requests SET state = 'planned', reason = NULL WHERE key = ?1 AND state = 'failed'"
            " AND NOT EXISTS (SELECT 1 FROM attempts WHERE key = ?1 AND owner = ?2)",
            (key, process),
        )
        db.execute(
            f"INSERT OR IGNORE INTO queue(key) SELECT key FROM requests WHERE key = ? AND state NOT IN {SETTLED}",
            (key,),
        )


def take_over(db: sqlite3.Connection) -> None:
    """Free the requests that dead processes held."""
    free(db, processes.mark_dead(db))


def free(db: sqlite3.Connection, owners: list[int]) -> None:
    """Put all requests that these processes hold back to planned."""
    theirs, numbers = "owner IN (SELECT value FROM json_each(?))", json.dumps(owners)
    db.execute(f"UPDATE requests SET state = 'planned', owner = NULL WHERE {theirs}", (numbers,))
    # What they had in flight may have been billed. Batches go on without the process that sent them.
    lost = f"ended IS NULL AND batch IS NULL AND {theirs}"
    db.execute(f"UPDATE attempts SET ended = ?, result = 'given up in flight' WHERE {lost}", (time.time(), numbers))


def claim(db: sqlite3.Connection, process: int, count: int) -> list[Request]:
    """Give up to `count` queued requests to this process, and return them."""
    found = db.execute(
        "SELECT key, provider, body, sample FROM queue JOIN requests USING (key)"
        " WHERE state = 'planned' AND owner IS NULL ORDER BY position LIMIT ?",
        (count,),
    ).fetchall()
    for key, *_ in found:
        db.execute("UPDATE requests SET owner = ? WHERE key = ?", (process, key))
        db.execute("DELETE FROM queue WHERE key = ?", (key,))
    return [Request(provider, json.loads(body), sample) for _, provider, body, sample in found]


def left(db: sqlite3.Connection) -> tuple[int, int]:
    """Return (requests of the queue that other processes have settled, requests that remain in it)."""
    settled = db.execute(f"DELETE FROM queue WHERE key IN (SELECT key FROM requests WHERE state IN {SETTLED})").rowcount
    return settled, db.execute("SELECT count(*) FROM queue").fetchone()[0]


def forget_plan(db: sqlite3.Connection) -> None:
    """Take back what was planned and never sent, after a dry run."""
    never = "SELECT key FROM queue WHERE NOT EXISTS (SELECT 1 FROM attempts WHERE attempts.key = queue.key)"
    db.execute(f"DELETE FROM requests WHERE key IN ({never}) AND state = 'planned' AND owner IS NULL")
    db.execute(f"DELETE FROM questions WHERE key IN ({never}) AND key NOT IN (SELECT key FROM requests)")


def set_price(db: sqlite3.Connection, model: str, price: Price) -> None:
    """Price the answers that had no price when they were asked for."""
    db.execute(
        "UPDATE attempts SET usd = (input_tokens * ? + output_tokens * ?) / 1e6 WHERE usd IS NULL AND billed"
        " AND key IN (SELECT key FROM requests WHERE model = ?)",
        (price.input, price.output, model),
    )


def count_budget(db: sqlite3.Connection) -> int:
    """Add up what was spent, at the most where it is not known. Returns how many attempts have no known limit."""
    db.execute("UPDATE budget SET usd = (SELECT TOTAL(COALESCE(usd, most_usd)) FROM attempts)")
    return db.execute("SELECT count(*) FROM attempts WHERE COALESCE(usd, most_usd) IS NULL").fetchone()[0]


def send(db: sqlite3.Connection, process: int, key: str, most_usd: float | None, max_usd: float | None) -> int | None:
    """Mark a request as sent, before it is sent: a kill in between is then counted as possibly billed.

    Args:
        db: the connection, in a transaction.
        process: the number of the process that sends.
        key: the request's key.
        most_usd: the most that the request can cost in USD, or None where that is not known.
        max_usd: USD that all runs on the ledger may spend, or None.

    Returns:
        The number of the attempt, or None where its worst case does not fit what is left of `max_usd`.
    """
    room = db.execute("UPDATE budget SET usd = usd + ?1 WHERE ?2 IS NULL OR usd + ?1 <= ?2", (most_usd or 0.0, max_usd))
    if not room.rowcount:
        return None
    db.execute("UPDATE requests SET state = 'sent' WHERE key = ? AND state = 'planned'", (key,))
    row = (key, process, time.time(), most_usd)
    return db.execute("INSERT INTO attempts(key, owner, began, most_usd) VALUES (?, ?, ?, ?)", row).lastrowid


def end(
    db: sqlite3.Connection, attempt: int, result: str, reply: Reply | None, price: Price | None, free: bool
) -> float | None:
    """End an attempt, and put its request back to planned.

    Args:
        db: the connection, in a transaction.
        attempt: the number of the attempt.
        result: answered, refused, or the reason of the failure.
        reply: what the server sent, or None.
        price: the model's price, or None where it is not known.
        free: whether the attempt surely cost nothing.

    Returns:
        The cost in USD, or None where it is not known.
    """
    row = db.execute("SELECT key, COALESCE(usd, most_usd, 0) FROM attempts WHERE id = ?", (attempt,)).fetchone()
    key, before = row
    reply = reply or Reply()
    counted = reply.input_tokens is not None and reply.output_tokens is not None
    # Whether an attempt without a reply or without counted tokens was billed is not known: NULL in the table.
    billed = usd = None
    if free:
        billed, usd = False, 0.0
    elif counted or result in ("answered", "refused"):
        billed = True
        if price and counted:
            usd = price.of(reply.input_tokens, reply.output_tokens)
    db.execute(
        "UPDATE attempts SET ended = ?, result = ?, billed = ?, input_tokens = ?, output_tokens = ?, usd = ?,"
        " request_id = ?, raw = ? WHERE id = ?",
        (time.time(), result, billed, reply.input_tokens, reply.output_tokens, usd, reply.request_id, reply.raw,
         attempt),
    )  # fmt: skip
    db.execute("UPDATE requests SET state = 'planned' WHERE key = ? AND state = 'sent'", (key,))
    # The budget held the attempt at its worst until now; where the cost is not known it stays so.
    if usd is not None:
        db.execute("UPDATE budget SET usd = usd + ?", (usd - before,))
    return usd


def settle(db: sqlite3.Connection, key: str, state: str, reason: str | None, reply: Reply | None) -> None:
    """Give a request its last state.

    Args:
        db: the connection, in a transaction.
        key: the request's key.
        state: answered, refused or failed.
        reason: why there is no answer, or None.
        reply: what the server sent, or None.
    """
    reply = reply or Reply()
    # The first answer is kept, should a process come back that was taken for dead.
    db.execute(
        "UPDATE requests SET state = ?, owner = NULL, reason = ?, text = ?, finish_reason = ?"
        " WHERE key = ? AND state NOT IN ('answered', 'refused')",
        (state, reason, reply.text, reply.finish_reason, key),
    )


def store(
    db: sqlite3.Connection, attempt: int, key: str, reply: Reply, price: Price | None
) -> tuple[float | None, list[tuple[str, str]]]:
    """Store an answer, or a reply in which the model declines.

    Args:
        db: the connection, in a transaction.
        attempt: the number of the attempt.
        key: the request's key.
        reply: what the server sent.
        price: the model's price, or None where it is not known.

    Returns:
        The cost in USD (None where it is not known), and how the answer is to be read, as (parser, args); nothing
        reads a refusal.
    """
    if reply.refused:
        usd = end(db, attempt, "refused", reply=reply, price=price, free=False)
        settle(db, key, "refused", reason="the model or a filter declined", reply=reply)
        return usd, []
    usd = end(db, attempt, "answered", reply=reply, price=price, free=False)
    settle(db, key, "answered", reason=None, reply=reply)
    return usd, db.execute("SELECT parser, args FROM questions WHERE key = ?", (key,)).fetchall()


def parsed(db: sqlite3.Connection, key: str, parser: str, args: str, reading: Reading) -> None:
    """Store what a parser made of an answer.

    Args:
        db: the connection, in a transaction.
        key: the request's key.
        parser: the parser's name.
        args: the parser's arguments, as JSON.
        reading: the value, or the reason why there is none.
    """
    db.execute(
        "UPDATE questions SET version = ?, value = ?, reason = ? WHERE key = ? AND parser = ? AND args = ?",
        (reading.version, *reading.columns, key, parser, args),
    )
