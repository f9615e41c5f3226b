"""The shapes of the requests that a ledger has answers to: all of a request's body but its words."""

from __future__ import annotations

import json
import sqlite3
from typing import Any

from utils.llm.providers import canonical

WORDS = ("messages", "system")  # of a body


def has_answers(db: sqlite3.Connection) -> bool:
    """Return whether any request was answered or refused."""
    found = "SELECT EXISTS(SELECT 1 FROM requests WHERE state IN ('answered', 'refused'))"
    return bool(db.execute(found).fetchone()[0])


def shape_of(body: dict[str, Any]) -> str:
    """Return the shape of a request's body."""
    return canonical({name: value for name, value in body.items() if name not in WORDS})


def shapes(db: sqlite3.Connection) -> set[str]:
    """Return the shapes of all requests that were answered or refused. Reads the whole table."""
    without = ", ".join(f"'$.{name}'" for name in WORDS)
    rows = db.execute(
        f"SELECT DISTINCT json_remove(body, {without}) FROM requests WHERE state IN ('answered', 'refused')"
    )
    return {canonical(json.loads(text)) for (text,) in rows}
