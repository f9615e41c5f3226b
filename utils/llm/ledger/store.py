"""The SQLite file: its tables, its opening, and its errors as one line each.

requests    one row for each key. planned -> sent -> answered | refused | failed; back to planned for another attempt
attempts    one row for each time that a request was sent: an append-only log with the raw answers
questions   how a request's answer is read: parser, arguments, and what the parser's version made of it
processes   the processes that work on the file
batches     requests that were sent together: a nonce known before, the provider's number after they were sent
budget      one number: USD spent, with attempts whose cost is not known (yet) at the most they can cost
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

from utils.errors import UserError

APPLICATION, FORMAT = 0x506C4C67, 1  # "PlLg"
# Seconds to wait for a file that another program holds: longer than any transaction of this project takes.
BUSY = 20.0
IN_MEMORY = Path(":memory:")  # SQLite's name of a database without a file

TABLES = """
CREATE TABLE requests(
    key TEXT PRIMARY KEY, provider TEXT NOT NULL, model TEXT NOT NULL, body TEXT NOT NULL, sample INTEGER NOT NULL,
    state TEXT NOT NULL DEFAULT 'planned', owner INTEGER, text TEXT, finish_reason TEXT, reason TEXT);
CREATE INDEX requests_owner ON requests(owner) WHERE owner IS NOT NULL;
CREATE TABLE attempts(
    id INTEGER PRIMARY KEY, key TEXT NOT NULL, owner INTEGER NOT NULL, began REAL NOT NULL, ended REAL,
    result TEXT, billed INTEGER, input_tokens INTEGER, output_tokens INTEGER, most_usd REAL, usd REAL,
    request_id TEXT, raw TEXT, batch TEXT);
CREATE INDEX attempts_key ON attempts(key);
CREATE INDEX attempts_open ON attempts(owner) WHERE ended IS NULL;
CREATE TABLE questions(
    key TEXT NOT NULL, parser TEXT NOT NULL, args TEXT NOT NULL, version INTEGER, value TEXT, reason TEXT,
    PRIMARY KEY(key, parser, args)) WITHOUT ROWID;
CREATE TABLE processes(
    id INTEGER PRIMARY KEY, machine TEXT NOT NULL, pid INTEGER NOT NULL, started TEXT NOT NULL, beat REAL);
CREATE TABLE batches(nonce TEXT PRIMARY KEY, number TEXT, owner INTEGER NOT NULL, began REAL NOT NULL, ended REAL);
CREATE INDEX attempts_batch ON attempts(batch) WHERE batch IS NOT NULL;
CREATE TABLE budget(usd REAL NOT NULL);
INSERT INTO budget VALUES (0);
"""
# What a run looks up besides; earlier versions wrote ledgers of the same format without these.
INDEXES = """
CREATE INDEX IF NOT EXISTS attempts_owner ON attempts(owner);
CREATE INDEX IF NOT EXISTS attempts_unpriced ON attempts(id) WHERE usd IS NULL AND billed;
CREATE INDEX IF NOT EXISTS attempts_unbounded ON attempts(id) WHERE usd IS NULL AND most_usd IS NULL;
"""
TEMPORARY = """
CREATE TEMP TABLE wanted(key TEXT, parser TEXT, args TEXT, PRIMARY KEY(key, parser, args)) WITHOUT ROWID;
CREATE TEMP TABLE queue(position INTEGER PRIMARY KEY, key TEXT UNIQUE);
CREATE TEMP TABLE settled_elsewhere(key TEXT);
"""


class Store:
    """One connection to the file, with one transaction at a time, for any thread."""

    def __init__(self, path: Path, create: bool) -> None:
        self.path, self._lock = Path(path), threading.RLock()
        if not create and not self.path.is_file():
            raise UserError(f"{path}: no such ledger")
        if self.path.is_dir():
            raise UserError(f"{path}: found a folder; expected a ledger file")
        with self._errors():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(self.path, timeout=BUSY, isolation_level=None, check_same_thread=False)
        try:
            with self._errors():
                self._open()
        except UserError:
            self._db.close()
            raise

    def _open(self) -> None:
        # Twice: a file without tables gets them in the first round, from this process or another one that holds the
        # lock, and is checked in the second.
        for _ in range(2):
            found = [self._db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")]
            tables = self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
            if found == [APPLICATION, FORMAT]:
                break
            if found[0] == APPLICATION:
                raise UserError(f"{self.path}: a ledger of format {found[1]}; this version reads format {FORMAT}")
            if tables:
                raise UserError(f"{self.path}: a database, but no ledger; give another file")
            self._write_ahead()
            with contextlib.suppress(sqlite3.IntegrityError), self.transaction() as db:
                if not db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                    for statement in (TABLES + INDEXES).split(";\n"):
                        db.execute(statement)
                    db.execute(f"PRAGMA application_id = {APPLICATION}")
                    db.execute(f"PRAGMA user_version = {FORMAT}")
        self._write_ahead()
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.executescript(TEMPORARY)

    def _write_ahead(self) -> None:
        """Have SQLite keep a write-ahead log. Raises UserError where it cannot."""
        # SQLite does not fail: it answers with the mode that it can keep.
        (mode,) = self._db.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal" and self.path != IN_MEMORY:
            raise UserError(
                f"{self.path}: SQLite has no write-ahead log there (journal mode {mode}), as on a network file system; "
                "give a ledger on a local disk (--ledger FILE)"
            )

    def add_indexes(self) -> None:
        """Add what an earlier version's ledger has not."""
        with self.transaction() as db:
            for statement in INDEXES.strip().split(";\n"):
                db.execute(statement)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Open a transaction: all or nothing, and durable when it ends. Raises UserError."""
        with self._lock, self._errors():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            finally:
                if self._db.in_transaction:
                    # SQLite itself rolls back when the disk is full; a second rollback is then an error.
                    with contextlib.suppress(sqlite3.Error):
                        self._db.execute("ROLLBACK")

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Lend the connection for reading. Raises UserError."""
        with self._lock, self._errors():
            yield self._db

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise UserError(f"{self.path}: {_told(error)}") from error
        except OSError as error:
            raise UserError(f"{self.path}: cannot be opened: {error.strerror or error}") from error

    def close(self) -> None:
        """Close the file."""
        with self._lock, self._errors():
            self._db.close()


def _told(error: sqlite3.Error) -> str:
    found = str(error)
    known = {
        "locked": "another program holds the ledger's lock; end that program, then run the same command again",
        "full": "the disk is full; free some space, then run the same command again: answers so far are kept",
        "disk I/O": "the disk cannot be written or read (is it full?); answers so far are kept",
        "malformed": "the file is damaged; restore a copy, or save what is left with `sqlite3 FILE .recover`",
        "not a database": "not a ledger; give another file",
        "readonly": "cannot be written; give a ledger in a folder of your own",
        "unable to open": "cannot be opened or created; does its folder exist, and may you write there?",
    }
    told = next((told for part, told in known.items() if part in found), "SQLite cannot go on")
    return f"{told} ({found})"
