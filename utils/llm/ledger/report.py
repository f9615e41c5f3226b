"""What a ledger holds, in numbers that add up, and row by row."""

from __future__ import annotations

import json
import sqlite3
from typing import Any

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
    """Everything, by model and by parser. `usd` is None where the price or the tokens of an answer are not known."""
    models = [row[0] for row in db.execute("SELECT DISTINCT model FROM requests ORDER BY model")]
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
    """The FIGURES of what a process sent after an attempt."""
    cursor = db.execute(f"SELECT {FIGURES} FROM attempts WHERE owner = ? AND id > ?", (process, attempt))
    return dict(zip([column[0] for column in cursor.description], cursor.fetchone(), strict=True))


def _figures(db: sqlite3.Connection, where: str, values: tuple) -> dict[str, Any]:
    states = dict(db.execute(f"SELECT state, count(*) FROM requests WHERE {where} GROUP BY state", values).fetchall())
    read = dict(
        db.execute(
            f"SELECT {STATE} AS s, count(*) FROM questions JOIN requests USING (key) WHERE {where} GROUP BY s", values
        )
    )
    cursor = db.execute(f"SELECT {FIGURES} FROM attempts JOIN requests USING (key) WHERE {where}", values)
    figures = dict(zip([column[0] for column in cursor.description], cursor.fetchone(), strict=True))
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
        row["unread" if version is None else "parsed" if reason is None else "unparsed"] += number
        if version is not None and version not in row["versions"]:
            row["versions"] = sorted([*row["versions"], version])
        if reason is not None:
            row["reasons"][reason] = row["reasons"].get(reason, 0) + number
    return found


def page_of(db: sqlite3.Connection, state: str, after: tuple[str, str, str], limit: int) -> list[dict[str, Any]]:
    """Questions in one of ROW_STATES, in the order of their keys, from the one after `after`."""
    rows = db.execute(
        "SELECT key, parser, args, model, body, sample, text, finish_reason,"
        " COALESCE(questions.reason, requests.reason), value FROM questions JOIN requests USING (key)"
        f" WHERE {STATE} = ? AND (key, parser, args) > (?, ?, ?) ORDER BY key, parser, args LIMIT ?",
        (state, *after, limit),
    )
    names = ("key", "parser", "parser_args", "model", "body", "sample", "text", "finish_reason", "reason", "value")
    parsed = ("parser_args", "body", "value")
    return [
        {
            name: json.loads(cell) if name in parsed and cell is not None else cell
            for name, cell in zip(names, row, strict=True)
        }
        for row in rows
    ]
