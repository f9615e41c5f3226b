"""Run parsers over the answers in the ledger. Parsing again costs nothing."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping

from utils.llm.ledger import steps
from utils.llm.ledger.steps import Reading
from utils.llm.ledger.store import Store
from utils.parsing import Parser, Unparsed

BATCH = 500  # answers in memory


def read_answer(parser: Parser, text: str, args: str) -> Reading:
    """Parse a text. `args` are the parser's arguments as JSON."""
    try:
        return Reading(parser.version, value=parser.parse(text, **json.loads(args)))
    except Unparsed as error:
        return Reading(parser.version, reason=error.reason)


def parse_again(store: Store, parsers: Mapping[str, Parser], only_new: bool) -> Counter:
    """Parse stored answers: all of them, or (only_new) those of this run that the current parsers have not read.
    Returns counts: read, parsed, unparsed, changed, parser unknown."""
    counts: Counter = Counter()
    versions = json.dumps({name: parser.version for name, parser in parsers.items()})
    # Either condition has one place for `versions`, so that one list of values serves both queries.
    read, which = "questions", "AND ? IS NOT NULL"
    if only_new:
        # CROSS JOIN keeps this order: from the questions of the run to their rows, not through the whole ledger.
        read = "temp.wanted CROSS JOIN questions USING (key, parser, args)"
        which = """AND version IS NOT json_extract(?, '$."' || parser || '"')"""
    page = (
        "SELECT key, parser, args, version, value, questions.reason, text"
        f" FROM {read} CROSS JOIN requests USING (key)"
        f" WHERE state = 'answered' {which} AND (key, parser, args) > (?, ?, ?) ORDER BY key, parser, args LIMIT ?"
    )
    last = ("", "", "")
    while True:
        with store.reading() as db:
            rows = db.execute(page, (versions, *last, BATCH)).fetchall()
        if not rows:
            return counts
        # Parsed outside the transaction: another process may write meanwhile.
        found = []
        for key, parser, args, version, value, reason, text in rows:
            last = (key, parser, args)
            if parser not in parsers:
                counts["parser unknown"] += 1
                continue
            reading = read_answer(parsers[parser], text, args)
            found.append((key, parser, args, reading))
            counts["read"] += 1
            counts["unparsed"] += reading.reason is not None
            counts["parsed"] += reading.reason is None
            counts["changed"] += version is not None and reading.columns != (value, reason)
        with store.transaction() as db:
            for key, parser, args, reading in found:
                steps.parsed(db, key, parser, args=args, reading=reading)
