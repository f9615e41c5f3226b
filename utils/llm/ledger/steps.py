"""The steps from a planned request to a settled one, each a few statements inside the caller's transaction."""

from __future__ import annotations

import json
import sqlite3
import time
from dataclasses import dataclass
from typing import Any

from utils.llm.ledger import processes
from utils.llm.providers import Price, Reply, Request, canonical

SETTLED = ("answered", "refused", "failed")  # its repr is a list in SQL, too
NOT_MINE = 0  # instead of the number of an attempt, which is 1 or more: another process took the request over


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
    """Give up to `count` queued requests to this process, and return them. What other processes have settled leaves the
    queue on the way; what they hold goes to its end, where it is not met again by the next claim."""
    # One that was taken for dead must live again before it holds anything.
    processes.beat(db, process)
    (last,) = db.execute("SELECT max(position) FROM queue").fetchone()
    claimed = []
    while len(claimed) < count:
        page = db.execute(
            "SELECT position, key, provider, body, sample, state, owner FROM queue CROSS JOIN requests USING (key)"
            " WHERE position <= ? ORDER BY position LIMIT ?",
            (last, count - len(claimed)),
        ).fetchall()
        if not page:
            break
        for position, key, provider, body, sample, state, owner in page:
            if state == "planned" and owner is None:
                db.execute("UPDATE requests SET owner = ? WHERE key = ?", (process, key))
                claimed.append(Request(provider, json.loads(body), sample))
            elif state in SETTLED:
                db.execute("INSERT INTO settled_elsewhere(key) VALUES (?)", (key,))
            else:
                at_the_end = "UPDATE queue SET position = (SELECT max(position) + 1 FROM queue) WHERE position = ?"
                db.execute(at_the_end, (position,))
                continue
            db.execute("DELETE FROM queue WHERE position = ?", (position,))
    return claimed


def left(db: sqlite3.Connection) -> tuple[int, int]:
    """Return (requests that `claim` found settled by others since the last call, requests in the queue)."""
    settled = db.execute("DELETE FROM settled_elsewhere").rowcount
    return settled, db.execute("SELECT count(*) FROM queue").fetchone()[0]


def set_price(db: sqlite3.Connection, model: str, price: Price) -> int:
    """Price the answers that had no price when they were asked for. Returns how many there were."""
    return db.execute(
        "UPDATE attempts SET usd = (input_tokens * ?1 + output_tokens * ?2) / 1e6 WHERE usd IS NULL AND billed"
        " AND input_tokens IS NOT NULL AND output_tokens IS NOT NULL"
        " AND (SELECT model FROM requests WHERE requests.key = attempts.key) = ?3",
        (price.input, price.output, model),
    ).rowcount


def count_budget(db: sqlite3.Connection) -> None:
    """Add up anew what was spent, at the most where it is not known."""
    db.execute("UPDATE budget SET usd = (SELECT TOTAL(COALESCE(usd, most_usd)) FROM attempts)")


def send(db: sqlite3.Connection, process: int, key: str, most_usd: float | None, max_usd: float | None) -> int | None:
    """Mark a request as sent, before it is sent: a kill in between is then counted as possibly billed.

    Args:
        db: the connection, in a transaction.
        process: the number of the process that sends.
        key: the request's key.
        most_usd: the most that the request can cost in USD, or None where that is not known.
        max_usd: USD that all runs on the ledger may spend, or None.

    Returns:
        The number of the attempt; None where its worst case does not fit what is left of `max_usd`; NOT_MINE where
        this process was taken for dead and does not hold the request any more, which is then queued again.
    """
    # Asked of the file at the moment of sending: what another process has taken over must not be paid for twice.
    held = "UPDATE requests SET state = 'sent' WHERE key = ? AND state = 'planned' AND owner = ?"
    if not db.execute(held, (key, process)).rowcount:
        db.execute("INSERT OR IGNORE INTO queue(key) VALUES (?)", (key,))
        return NOT_MINE
    room = db.execute("UPDATE budget SET usd = usd + ?1 WHERE ?2 IS NULL OR usd + ?1 <= ?2", (most_usd or 0.0, max_usd))
    if not room.rowcount:
        db.execute("UPDATE requests SET state = 'planned' WHERE key = ?", (key,))
        return None
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
    row = db.execute("SELECT key, owner, COALESCE(usd, most_usd, 0) FROM attempts WHERE id = ?", (attempt,)).fetchone()
    key, owner, before = row
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
    # Not while another process has it in flight. In a batch it has no owner.
    sent = "state = 'sent' AND COALESCE(owner, ?2) = ?2"
    db.execute(f"UPDATE requests SET state = 'planned' WHERE key = ?1 AND {sent}", (key, owner))
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
    # Should a process come back that was taken for dead: the first answer is kept, and what another one has in flight
    # does not fail meanwhile.
    db.execute(
        "UPDATE requests SET state = ?1, owner = NULL, reason = ?2, text = ?3, finish_reason = ?4"
        " WHERE key = ?5 AND state NOT IN ('answered', 'refused') AND (?1 <> 'failed' OR state <> 'sent')",
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
