"""Ledgers of any number of answered requests, and the time that new requests take in one.

python large_ledger.py LEDGER SAVED FIRST COUNT GO    asks COUNT saved requests as soon as the file GO is there
"""

from __future__ import annotations

import json
import sqlite3
import sys
import time
from pathlib import Path

from utils.llm.asking import Question, RateLimits, ask
from utils.llm.ledger import Ledger
from utils.llm.providers import open_provider, request_of

MESSAGE = "How good is answer {}? " + 100 * "some thirty characters of text "
SCALE = {"low": 1, "high": 7}
FILL = """
PRAGMA synchronous = OFF;
BEGIN;
CREATE TEMP TABLE keys(key TEXT, body TEXT);
WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {rows})
    INSERT INTO keys SELECT lower(hex(randomblob(32))), '{body}' FROM numbers;
INSERT INTO requests(key, provider, model, body, sample, state, text, finish_reason)
    SELECT key, 'replay', 'm', body, 0, 'answered', 'Rating: 3', 'stop' FROM keys ORDER BY key;
INSERT INTO questions(key, parser, args, version, value)
    SELECT key, 'rating', '{args}', 99, '3' FROM keys ORDER BY key;
INSERT INTO attempts(key, owner, began, ended, result, billed, input_tokens, output_tokens, usd, raw)
    SELECT key, 0, 0, 1, 'answered', 1, 700, 4, 0, '{raw}' FROM keys ORDER BY key;
COMMIT;
PRAGMA wal_checkpoint(TRUNCATE);
"""


def question(number: int, provider: str = "replay") -> Question:
    messages = [{"role": "user", "content": MESSAGE.format(number)}]
    return Question(request_of(provider, "m", messages, max_tokens=9), "rating", SCALE)


def fill(path: Path, rows: int) -> None:
    """Make a ledger with answers to that many requests of 3 kB."""
    Ledger(path).close()
    db = sqlite3.connect(path)
    body, raw = json.dumps({"model": "m", "messages": MESSAGE}), json.dumps({"text": "Rating: 3", "id": 200 * "x"})
    db.executescript(FILL.format(rows=rows, body=body, raw=raw, args=json.dumps(SCALE)))
    db.close()


def save_answers(path: Path, count: int) -> None:
    """Write the file from which `replay` answers the first questions."""
    with path.open("w") as out:
        for number in range(count):
            out.write(json.dumps({"messages": question(number).request.body["messages"], "text": "Rating: 5"}) + "\n")


def seconds_of(path: Path, saved: Path, first: int, count: int, **limits: object) -> float:
    """Ask `count` new questions that are answered at once, all in flight together; return the seconds it took."""
    questions = [question(number) for number in range(first, first + count)]
    provider = open_provider("replay", str(saved))
    began = time.perf_counter()
    with Ledger(path) as ledger:
        summary = ask(questions, ledger, provider, RateLimits(concurrency=count, **limits))
    assert summary.answered == count, summary
    return time.perf_counter() - began


def main() -> None:
    path, saved, first, count, go = sys.argv[1:]
    provider = open_provider("replay", saved)

    def questions():
        yield from map(question, range(int(first), int(first) + int(count)))
        Path(f"{go}.{time.monotonic_ns()}.ready").touch()
        while not Path(go).exists():
            time.sleep(0.002)

    with Ledger(path) as ledger:
        ask(questions(), ledger, provider, RateLimits(concurrency=8))


if __name__ == "__main__":
    main()
