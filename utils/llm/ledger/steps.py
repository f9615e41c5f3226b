"""The steps of a request's life, each a few statements inside somebody's transaction."""

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


def forget_run(db: sqlite3.Connection) -> None:
    db.execute("DELETE FROM temp.wanted")
    db.execute("DELETE FROM temp.queue")


def plan(db: sqlite3.Connection, process: int, questions: Iterable[Question]) -> None:
    """Add what is new, and put into this run's queue what has no answer. What failed in an earlier run is asked again:
    the reason may be gone, and a failure costs nothing."""
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
    """Free what dead processes held."""
    free(db, processes.mark_dead(db))


def free(db: sqlite3.Connection, owners: list[int]) -> None:
    """Back to planned with all that these processes hold; what they had in flight may have been billed. Batches go on
    without them."""
    theirs, numbers = "owner IN (SELECT value FROM json_each(?))", json.dumps(owners)
    db.execute(f"UPDATE requests SET state = 'planned', owner = NULL WHERE {theirs}", (numbers,))
    lost = f"ended IS NULL AND batch IS NULL AND {theirs}"
    db.execute(f"UPDATE attempts SET ended = ?, result = 'given up in flight' WHERE {lost}", (time.time(), numbers))


def claim(db: sqlite3.Connection, process: int, count: int) -> list[Request]:
    """Up to `count` queued requests, from now on this process's."""
    found = db.execute(
        "SELECT key, provider, body, sample FROM queue JOIN requests USING (key)"
        " WHERE state = 'planned' AND owner IS NULL ORDER BY position LIMIT ?",
        (count,),
    ).fetchall()
    for key, *_ in found:
        db.execute("UPDATE requests SET owner = ? WHERE key = ?", (process, key))
        db.execute("DELETE FROM queue WHERE key = ?", (key,))
    return [Request(provider, json.loads(body), sample) for _, provider, body, sample in found]


def page_of_queue(db: sqlite3.Connection, after: int, count: int) -> list[tuple[int, Request]]:
    rows = db.execute(
        "SELECT position, provider, body, sample FROM queue JOIN requests USING (key)"
        " WHERE position > ? ORDER BY position LIMIT ?",
        (after, count),
    )
    return [(position, Request(provider, json.loads(body), sample)) for position, provider, body, sample in rows]


def left(db: sqlite3.Connection) -> tuple[int, int]:
    """Of the requests in the queue: (settled by other processes since, still to be settled)."""
    settled = db.execute(f"DELETE FROM queue WHERE key IN (SELECT key FROM requests WHERE state IN {SETTLED})").rowcount
    return settled, db.execute("SELECT count(*) FROM queue").fetchone()[0]


def unsettled(db: sqlite3.Connection) -> int:
    """How many requests of this run have no last state."""
    which = f"SELECT key FROM requests WHERE state NOT IN {SETTLED}"
    return db.execute(f"SELECT count(DISTINCT key) FROM wanted WHERE key IN ({which})").fetchone()[0]


def models(db: sqlite3.Connection) -> list[str]:
    return [row[0] for row in db.execute("SELECT DISTINCT model FROM requests")]


def wanted_models(db: sqlite3.Connection) -> list[str]:
    """Of what is still to be asked."""
    return [row[0] for row in db.execute("SELECT DISTINCT model FROM queue JOIN requests USING (key)")]


def last_attempt(db: sqlite3.Connection) -> int:
    return db.execute("SELECT COALESCE(MAX(id), 0) FROM attempts").fetchone()[0]


def sent_by(db: sqlite3.Connection, process: int) -> int:
    return db.execute("SELECT count(*) FROM attempts WHERE owner = ?", (process,)).fetchone()[0]


def forget_plan(db: sqlite3.Connection) -> None:
    """Take back what was planned and never sent, as after a dry run."""
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
    """Mark as sent, before it is; returns the attempt. None: its worst case does not fit what is left of `max_usd`."""
    room = db.execute("UPDATE budget SET usd = usd + ?1 WHERE ?2 IS NULL OR usd + ?1 <= ?2", (most_usd or 0.0, max_usd))
    if not room.rowcount:
        return None
    db.execute("UPDATE requests SET state = 'sent' WHERE key = ? AND state = 'planned'", (key,))
    row = (key, process, time.time(), most_usd)
    return db.execute("INSERT INTO attempts(key, owner, began, most_usd) VALUES (?, ?, ?, ?)", row).lastrowid


def end(
    db: sqlite3.Connection, attempt: int, key: str, result: str, reply: Reply | None, price: Price | None, free: bool
) -> float | None:
    """An attempt is over, and its request planned again. `free`: it surely cost nothing. Whether one without a reply
    or without counted tokens was billed is not known. Returns USD, None where they are not known."""
    before = db.execute("SELECT COALESCE(usd, most_usd, 0) FROM attempts WHERE id = ?", (attempt,)).fetchone()[0]
    reply = reply or Reply(None, None, False, None, None, None, None)
    counted = reply.input_tokens is not None and reply.output_tokens is not None
    billed = False if free else True if counted or result in ("answered", "refused") else None
    usd = 0.0 if free else price.of(reply.input_tokens, reply.output_tokens) if price and counted else None
    db.execute(
        "UPDATE attempts SET ended = ?, result = ?, billed = ?, input_tokens = ?, output_tokens = ?, usd = ?,"
        " request_id = ?, raw = ? WHERE id = ?",
        (time.time(), result, billed, reply.input_tokens, reply.output_tokens, usd, reply.request_id, reply.raw,
         attempt),
    )  # fmt: skip
    db.execute("UPDATE requests SET state = 'planned' WHERE key = ? AND state = 'sent'", (key,))
    db.execute("UPDATE budget SET usd = usd + ?", (0.0 if usd is None else usd - before,))
    return usd


def settle(db: sqlite3.Connection, key: str, state: str, reason: str | None, reply: Reply | None) -> None:
    """A request's last state: answered, refused or failed. The first answer stands, should a process come back that
    was taken for dead."""
    text, finish_reason = (reply.text, reply.finish_reason) if reply else (None, None)
    db.execute(
        "UPDATE requests SET state = ?, owner = NULL, reason = ?, text = ?, finish_reason = ?"
        " WHERE key = ? AND state NOT IN ('answered', 'refused')",
        (state, reason, text, finish_reason, key),
    )


def store(
    db: sqlite3.Connection, attempt: int, key: str, reply: Reply, price: Price | None
) -> tuple[float | None, list[tuple[str, str]]]:
    """An answer, or that the model declines. Returns what it cost, and how the answer is read, as (parser, args)."""
    state = "refused" if reply.refused else "answered"
    usd = end(db, attempt, key, state, reply, price, free=False)
    settle(db, key, state, "the model or a filter declined" if reply.refused else None, reply)
    asked = db.execute("SELECT parser, args FROM questions WHERE key = ?", (key,)).fetchall()
    return usd, [] if reply.refused else asked


def parsed(
    db: sqlite3.Connection, key: str, parser: str, args: str, version: int, value: Any, reason: str | None
) -> None:
    """What version `version` of a parser made of an answer: a JSON value, or the reason why there is none."""
    db.execute(
        "UPDATE questions SET version = ?, value = ?, reason = ? WHERE key = ? AND parser = ? AND args = ?",
        (version, *stored(value, reason), key, parser, args),
    )


def stored(value: Any, reason: str | None) -> tuple[str | None, str | None]:
    """(value, reason) as the columns hold them."""
    return (canonical(value), None) if reason is None else (None, reason)
