"""The contents of a ledger, in numbers that add up and row by row."""

from __future__ import annotations

import json
import sqlite3
from typing import Any

from utils.llm.ledger.steps import SETTLED

STATES = ("planned", "sent", "answered", "refused", "failed")
ROW_STATES = ("planned", "sent", "refused", "failed", "unread", "parsed", "unparsed")
STATE = """CASE WHEN state <> 'answered' THEN state WHEN version IS NULL THEN 'unread'
    WHEN value IS NULL THEN 'unparsed' ELSE 'parsed' END"""
FIGURES = """
    count(*) AS attempts,
    count(DISTINCT key) AS asked,
    count(*) FILTER (WHERE ended IS NULL) AS in_flight,
    count(*) FILTER (WHERE ended IS NOT NULL AND billed IS NULL) AS possibly_billed,
    COALESCE(SUM(input_tokens), 0) AS input_tokens,
    COALESCE(SUM(output_tokens), 0) AS output_tokens,
    count(*) FILTER (WHERE billed AND (input_tokens IS NULL OR output_tokens IS NULL)) AS without_tokens,
    CASE WHEN count(*) FILTER (WHERE billed AND usd IS NULL) = 0 THEN TOTAL(usd) END AS usd,
    CASE WHEN count(*) FILTER (WHERE ended IS NOT NULL AND billed IS NULL AND most_usd IS NULL) = 0
        THEN TOTAL(most_usd) FILTER (WHERE ended IS NOT NULL AND billed IS NULL) END AS possibly_billed_usd
"""


def report(db: sqlite3.Connection) -> dict[str, Any]:
    """Return all counts, also by model and by parser. `usd` is None where the price or the tokens of an answer are not
    known."""
    models = [model for (model,) in db.execute("SELECT DISTINCT model FROM requests ORDER BY model")]
    troubles = db.execute(
        "SELECT result, count(*) FROM attempts WHERE result NOT IN ('answered', 'refused')"
        " GROUP BY result ORDER BY count(*) DESC, result LIMIT 20"
    )
    return {
        **_figures(db, "TRUE", ()),
        "models": {model: _figures(db, "model = ?", (model,)) for model in models},
        "parsers": _parsers(db),
        "troubles": dict(troubles.fetchall()),
    }


def spent_since(db: sqlite3.Connection, process: int, attempt: int) -> dict[str, Any]:
    """Return the FIGURES of what a process sent after an attempt."""
    cursor = db.execute(f"SELECT {FIGURES} FROM attempts WHERE owner = ? AND id > ?", (process, attempt))
    return _named_row(cursor)


def _named_row(cursor: sqlite3.Cursor) -> dict[str, Any]:
    names = [name for name, *_ in cursor.description]
    return dict(zip(names, cursor.fetchone(), strict=True))


def _figures(db: sqlite3.Connection, where: str, values: tuple) -> dict[str, Any]:
    states = dict(db.execute(f"SELECT state, count(*) FROM requests WHERE {where} GROUP BY state", values).fetchall())
    read = dict(
        db.execute(
            f"SELECT {STATE} AS s, count(*) FROM questions JOIN requests USING (key) WHERE {where} GROUP BY s", values
        )
    )
    cursor = db.execute(f"SELECT {FIGURES} FROM attempts JOIN requests USING (key) WHERE {where}", values)
    figures = _named_row(cursor)
    return {
        "requests": sum(states.values()),
        **{state: states.get(state, 0) for state in STATES},
        "parsed": read.get("parsed", 0),
        "unparsed": read.get("unparsed", 0),
        "retries": figures["attempts"] - figures["asked"],
        **figures,
    }


def _parsers(db: sqlite3.Connection) -> dict[str, Any]:
    found: dict[str, Any] = {}
    rows = db.execute(
        "SELECT parser, version, reason_of, count(*) FROM (SELECT parser, version, questions.reason AS reason_of"
        " FROM questions JOIN requests USING (key) WHERE state = 'answered') GROUP BY 1, 2, 3 ORDER BY 1, 4 DESC"
    )
    for parser, version, reason, number in rows:
        row = found.setdefault(parser, {"versions": [], "parsed": 0, "unparsed": 0, "unread": 0, "reasons": {}})
        if version is None:
            row["unread"] += number
        elif reason is None:
            row["parsed"] += number
        else:
            row["unparsed"] += number
        if version is not None and version not in row["versions"]:
            row["versions"] = sorted([*row["versions"], version])
        if reason is not None:
            row["reasons"][reason] = row["reasons"].get(reason, 0) + number
    return found


def page_of(db: sqlite3.Connection, state: str, after: tuple[str, str, str], limit: int) -> list[dict[str, Any]]:
    """Read one page of the questions in a state, in the order of their keys.

    Args:
        db: the connection.
        state: one of ROW_STATES.
        after: (key, parser, args) of the last question of the page before; empty texts for the first page.
        limit: questions of a page.

    Returns:
        A dictionary for each question, JSON columns as values.
    """
    rows = db.execute(
        "SELECT key, parser, args, model, body, sample, text, finish_reason,"
        " COALESCE(questions.reason, requests.reason), value FROM questions JOIN requests USING (key)"
        f" WHERE {STATE} = ? AND (key, parser, args) > (?, ?, ?) ORDER BY key, parser, args LIMIT ?",
        (state, *after, limit),
    )
    names = ("key", "parser", "parser_args", "model", "body", "sample", "text", "finish_reason", "reason", "value")
    page = []
    for row in rows:
        fields = dict(zip(names, row, strict=True))
        for name in ("parser_args", "body", "value"):
            if fields[name] is not None:
                fields[name] = json.loads(fields[name])
        page.append(fields)
    return page


def unsettled(db: sqlite3.Connection) -> int:
    """Count the requests of this run that are neither answered nor refused nor failed."""
    wanted = "(SELECT DISTINCT key FROM wanted) CROSS JOIN requests USING (key)"
    return db.execute(f"SELECT count(*) FROM {wanted} WHERE state NOT IN {SETTLED}").fetchone()[0]


def unpriced_models(db: sqlite3.Connection) -> list[str]:
    """Return the models of the answers whose cost is not known."""
    unpriced = "attempts CROSS JOIN requests USING (key) WHERE usd IS NULL AND billed"
    return [model for (model,) in db.execute(f"SELECT DISTINCT model FROM {unpriced}")]


def unbounded(db: sqlite3.Connection) -> int:
    """Count the attempts of which neither the cost nor its limit is known."""
    return db.execute("SELECT count(*) FROM attempts WHERE usd IS NULL AND most_usd IS NULL").fetchone()[0]


def wanted_models(db: sqlite3.Connection) -> list[str]:
    """Return the models of the requests in the queue."""
    return [model for (model,) in db.execute("SELECT DISTINCT model FROM queue CROSS JOIN requests USING (key)")]


def last_attempt(db: sqlite3.Connection) -> int:
    """Return the number of the last attempt, 0 if there was none."""
    return db.execute("SELECT COALESCE(MAX(id), 0) FROM attempts").fetchone()[0]


def sent_by(db: sqlite3.Connection, process: int) -> int:
    """Count the attempts of a process."""
    return db.execute("SELECT count(*) FROM attempts WHERE owner = ?", (process,)).fetchone()[0]
