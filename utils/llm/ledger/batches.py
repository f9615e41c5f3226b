"""Steps of requests that are sent together and answered much later, perhaps to another process.

No process owns such a request: it is `sent` until its batch is read. The batch has an owner; when that process dies,
another one takes the batch over.
"""

from __future__ import annotations

import json
import sqlite3
import time

from utils.llm.ledger import processes, steps
from utils.llm.providers import Request


def begin(
    db: sqlite3.Connection, process: int, nonce: str, most_usd: dict[str, float | None], max_usd: float | None
) -> set[str]:
    """Mark requests as sent in one batch, before it is sent; those that do not fit, or that are no longer this
    process's own, go back into the queue.

    Args:
        db: the connection, in a transaction.
        process: the number of the process that sends the batch.
        nonce: the batch's own name, by which it is found again.
        most_usd: {key: the most that the request can cost in USD, None where that is not known}.
        max_usd: USD that all runs on the ledger may spend, or None.

    Returns:
        The keys of the requests that are sent.
    """
    db.execute("INSERT INTO batches(nonce, owner, began) VALUES (?, ?, ?)", (nonce, process, time.time()))
    fit = set()
    for key, most in most_usd.items():
        attempt = steps.send(db, process, key, most_usd=most, max_usd=max_usd)
        if attempt is None:
            requeue(db, key)
        elif attempt != steps.NOT_MINE:
            db.execute("UPDATE attempts SET batch = ? WHERE id = ?", (nonce, attempt))
            db.execute("UPDATE requests SET owner = NULL WHERE key = ?", (key,))
            fit.add(key)
    return fit


def requeue(db: sqlite3.Connection, key: str) -> None:
    """Put a request back into the queue, for any process to claim."""
    db.execute("UPDATE requests SET state = 'planned', owner = NULL WHERE key = ?", (key,))
    db.execute("INSERT OR IGNORE INTO queue(key) VALUES (?)", (key,))


def submitted(db: sqlite3.Connection, nonce: str, number: str) -> None:
    """Note the number that the provider gave a batch."""
    db.execute("UPDATE batches SET number = ? WHERE nonce = ?", (number, nonce))


def take(db: sqlite3.Connection, process: int) -> list[tuple[str, str | None, float]]:
    """Take over the batches of dead processes; return (nonce, number, began) of this process's unfinished ones."""
    dead = json.dumps(processes.mark_dead(db))
    db.execute(
        "UPDATE batches SET owner = ? WHERE ended IS NULL AND owner IN (SELECT value FROM json_each(?))",
        (process, dead),
    )
    mine = "SELECT nonce, number, began FROM batches WHERE ended IS NULL AND owner = ? ORDER BY began"
    return db.execute(mine, (process,)).fetchall()


def members(db: sqlite3.Connection, nonce: str) -> dict[str, tuple[Request, int]]:
    """Return {key: (request, attempt)} of a batch's requests without an outcome, which leave the queue."""
    db.execute("DELETE FROM queue WHERE key IN (SELECT key FROM attempts WHERE batch = ? AND ended IS NULL)", (nonce,))
    rows = db.execute(
        "SELECT key, provider, body, sample, id FROM attempts JOIN requests USING (key)"
        " WHERE batch = ? AND ended IS NULL",
        (nonce,),
    )
    found = {}
    for key, provider, body, sample, attempt in rows:
        found[key] = (Request(provider, json.loads(body), sample), attempt)
    return found


def end(db: sqlite3.Connection, nonce: str) -> None:
    """Mark a batch as read."""
    db.execute("UPDATE batches SET ended = ? WHERE nonce = ?", (time.time(), nonce))


def waiting(db: sqlite3.Connection) -> int:
    """Count this run's requests that are in batches."""
    # The plus keeps SQLite from reading every batch that there ever was: those in flight are few.
    sent = "SELECT key FROM attempts WHERE ended IS NULL AND +batch IS NOT NULL"
    return db.execute(f"SELECT count(*) FROM queue WHERE key IN ({sent})").fetchone()[0]
