"""Requests that are sent together and answered much later, perhaps to another process than the one that sent them.

Nobody owns such a request: it is `sent` until its batch is read. The batch has an owner, whose death passes it on.
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
    """Mark these requests as sent in one batch, before it is; returns the keys that fit what is left of `max_usd`.
    The others go back into the queue."""
    db.execute("INSERT INTO batches(nonce, owner, began) VALUES (?, ?, ?)", (nonce, process, time.time()))
    fit = set()
    for key, most in most_usd.items():
        attempt = steps.send(db, process, key, most, max_usd)
        if attempt is None:
            requeue(db, key)
        else:
            db.execute("UPDATE attempts SET batch = ? WHERE id = ?", (nonce, attempt))
            db.execute("UPDATE requests SET owner = NULL WHERE key = ?", (key,))
            fit.add(key)
    return fit


def requeue(db: sqlite3.Connection, key: str) -> None:
    """Planned again, and to be claimed by whoever comes first."""
    db.execute("UPDATE requests SET state = 'planned', owner = NULL WHERE key = ?", (key,))
    db.execute("INSERT OR IGNORE INTO queue(key) VALUES (?)", (key,))


def submitted(db: sqlite3.Connection, nonce: str, number: str) -> None:
    db.execute("UPDATE batches SET number = ? WHERE nonce = ?", (number, nonce))


def take(db: sqlite3.Connection, process: int) -> list[tuple[str, str | None, float]]:
    """(nonce, number, began) of unfinished batches: this process's own, and those of the dead."""
    dead = json.dumps(processes.mark_dead(db))
    db.execute(
        "UPDATE batches SET owner = ? WHERE ended IS NULL AND owner IN (SELECT value FROM json_each(?))",
        (process, dead),
    )
    mine = "SELECT nonce, number, began FROM batches WHERE ended IS NULL AND owner = ? ORDER BY began"
    return db.execute(mine, (process,)).fetchall()


def members(db: sqlite3.Connection, nonce: str) -> dict[str, tuple[Request, int]]:
    """By key: the requests of a batch that nothing is known of, and their attempts. They leave the queue."""
    db.execute("DELETE FROM queue WHERE key IN (SELECT key FROM attempts WHERE batch = ? AND ended IS NULL)", (nonce,))
    rows = db.execute(
        "SELECT key, provider, body, sample, id FROM attempts JOIN requests USING (key)"
        " WHERE batch = ? AND ended IS NULL",
        (nonce,),
    )
    return {key: (Request(provider, json.loads(body), sample), id_) for key, provider, body, sample, id_ in rows}


def end(db: sqlite3.Connection, nonce: str) -> None:
    db.execute("UPDATE batches SET ended = ? WHERE nonce = ?", (time.time(), nonce))


def waiting(db: sqlite3.Connection) -> int:
    """How many of this run's requests are in batches."""
    sent = "SELECT key FROM attempts WHERE batch IS NOT NULL AND ended IS NULL"
    return db.execute(f"SELECT count(*) FROM queue WHERE key IN ({sent})").fetchone()[0]
