"""Answers as values: the parsers over what the ledger holds. Parsing again costs nothing."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

from utils.llm.ledger import steps
from utils.llm.ledger.store import Store
from utils.parsing import Parser, Unparsed

BATCH = 500  # answers in memory


def read_answer(parsers: Mapping[str, Parser], text: str, parser: str, args: str) -> tuple[int, Any, str | None]:
    """(the parser's version, value, None), or (version, None, why there is no value)."""
    found = parsers[parser]
    try:
        return found.version, found.parse(text, **json.loads(args)), None
    except Unparsed as error:
        return found.version, None, error.reason


def parse_again(store: Store, parsers: Mapping[str, Parser], only_new: bool) -> Counter:
    """Parse stored answers: all of them, or (only_new) those of this run that the current parsers have not read.
    Counts: read, parsed, unparsed, changed, parser unknown."""
    counts: Counter = Counter()
    versions = json.dumps({name: parser.version for name, parser in parsers.items()})
    new = "JOIN temp.wanted USING (key, parser, args)" if only_new else ""
    which = """AND version IS NOT json_extract(?, '$."' || parser || '"')""" if only_new else "AND ? IS NOT NULL"
    page = (
        "SELECT key, parser, args, version, value, questions.reason, text"
        f" FROM questions {new} JOIN requests USING (key)"
        f" WHERE state = 'answered' {which} AND (key, parser, args) > (?, ?, ?) ORDER BY key, parser, args LIMIT ?"
    )
    last = ("", "", "")
    while True:
        with store.reading() as db:
            rows = db.execute(page, (versions, *last, BATCH)).fetchall()
        if not rows:
            return counts
        last, found = rows[-1][:3], []
        for key, parser, args, version, value, reason, text in rows:
            if parser not in parsers:
                counts["parser unknown"] += 1
                continue
            now = read_answer(parsers, text, parser, args)
            found.append((key, parser, args, *now))
            counts.update(["read", "parsed" if now[2] is None else "unparsed"])
            counts["changed"] += version is not None and steps.stored(now[1], now[2]) != (value, reason)
        with store.transaction() as db:
            for row in found:
                steps.parsed(db, *row)
