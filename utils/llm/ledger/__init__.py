"""The ledger: requests to models, their answers, and the values read from them. SQLite in write-ahead mode.

    with Ledger("feedback.ledger") as ledger:
        ask(questions, ledger, provider, limits)                  # utils.llm.asking
        outcome = ledger.outcome(question.request.key, question.parser, question.parser_args)

A request is known by a hash of itself and of nothing else, so that it is never paid for twice: not after a kill, not
in another run, not by another process on the same file. Raw answers are durable before they are parsed.

store       the file, its tables, its errors
place       the file system that it lies on
processes   the processes that work on it, and which of them are dead
planning    the questions of a run, and the queue of its requests
steps       planned -> sent -> answered | refused | failed
batches     requests sent together
parsing     answers -> values
report      counts and lists
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from utils.errors import UserError
from utils.llm.ledger import parsing, planning, processes, report, steps
from utils.llm.ledger.place import network_type
from utils.llm.ledger.planning import Question
from utils.llm.ledger.report import ROW_STATES
from utils.llm.ledger.store import IN_MEMORY, Store
from utils.llm.providers import canonical
from utils.parsing import Parser
from utils.reporting import warn

__all__ = ["IN_MEMORY", "ROW_STATES", "Ledger", "Outcome", "Question"]
CHUNK = 500  # questions in memory while a run is planned


@dataclass(frozen=True)
class Outcome:
    """The outcome of a question.

    Args:
        state: planned, sent, failed, refused, unparsed or parsed.
        value: the parser's JSON value, where the state is parsed.
        text: the words of the answer.
        finish_reason: why the answer ended, in OpenAI's words.
        reason: why there is no value.
    """

    state: str
    value: Any = None
    text: str | None = None
    finish_reason: str | None = None
    reason: str | None = None


class Ledger:
    """A ledger file, made when it is not there (unless `create` is False). Every method may raise UserError."""

    def __init__(self, path: str | Path, create: bool = True) -> None:
        self.path = Path(path)
        self.store = Store(self.path, create)
        self._process: int | None = None
        self._closing = threading.Event()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *error: Any) -> None:
        self.close()

    def close(self) -> None:
        """Sign this process out and close the file."""
        self._closing.set()
        try:
            if self._process is not None:
                self._living.join()
                self.do([lambda db: processes.leave(db, self._process)])
                self._process = None
        finally:
            self.store.close()

    @property
    def process(self) -> int:
        """This process's number in the ledger, entered at its first use. Raises UserError on a network file system
        where a process of another machine works on the ledger."""
        if self._process is None:
            self._check_place()
            self.store.add_indexes()
            (self._process,) = self.do([processes.enter])
            # A thread of its own: planning, parsing and writing the results take longer than a lease, too.
            self._living = threading.Thread(target=self._give_signs, name="signs of life", daemon=True)
            self._living.start()
        return self._process

    def _check_place(self) -> None:
        kind = network_type(self.path)
        if kind is None:
            return
        place = f"{self.path} is on a network file system ({kind}), where SQLite's log serves one machine at a time"
        others = self.do([processes.elsewhere])[0]
        if others:
            raise UserError(f"{place}, and {', '.join(others)} works on it: wait, or give another file (--ledger FILE)")
        warn(f"{place}: never use it from two; a local disk is safe (--ledger FILE)")

    def _give_signs(self) -> None:
        while not self._closing.wait(processes.BEAT):
            # What the file has against being written is told by the next step of the run.
            with contextlib.suppress(UserError):
                self.do([lambda db: processes.beat(db, self._process)])

    def do(self, statements: Iterable[Callable[[Any], Any]]) -> list[Any]:
        """Run functions of the connection in one durable transaction, and return what each returned."""
        with self.store.transaction() as db:
            return [statement(db) for statement in statements]

    def plan(self, questions: Iterable[Question]) -> None:
        """Note the questions of this run. They are read a chunk at a time, and may be computed from the ledger."""
        process = self.process
        self.do([planning.forget_run])
        rows = iter(questions)
        while chunk := list(islice(rows, CHUNK)):
            self.do([lambda db, chunk=chunk: planning.plan(db, process, chunk)])

    def unanswered(self, questions: Iterable[Question], retry: bool = False) -> Iterator[Question]:
        """Yield the questions whose requests a run would send, each request once, and write nothing. `retry`: also
        those whose answers have no value."""
        with self.store.reading() as db:
            planning.forget_run(db)
            yield from planning.unanswered(db, questions, retry)

    def outcome(self, key: str, parser: str, parser_args: Mapping[str, Any]) -> Outcome:
        """Return what is known of a question: a request's key, a parser's name and its arguments."""
        with self.store.reading() as db:
            row = db.execute(
                "SELECT state, text, finish_reason, requests.reason, version, value, questions.reason FROM requests"
                " LEFT JOIN questions ON questions.key = requests.key AND parser = ? AND args = ?"
                " WHERE requests.key = ?",
                (parser, canonical(parser_args), key),
            ).fetchone()
        if row is None:
            return Outcome("planned")
        state, text, finish_reason, reason, version, value, unparsed = row
        if state != "answered":
            return Outcome(state, text=text, finish_reason=finish_reason, reason=reason)
        if version is None:
            # A kill came between the answer and its parser: the next run parses it.
            return Outcome("planned", text=text, finish_reason=finish_reason)
        if unparsed is not None:
            return Outcome("unparsed", text=text, finish_reason=finish_reason, reason=unparsed)
        return Outcome("parsed", json.loads(value), text=text, finish_reason=finish_reason)

    def report(self) -> dict[str, Any]:
        """Return counts, tokens and money: in all, by model, by parser (docs/feedback.md)."""
        self.do([steps.take_over])
        with self.store.reading() as db:
            return report.report(db)

    def rows(self, state: str) -> Iterator[dict[str, Any]]:
        """Yield the questions in one of ROW_STATES, with all that is known of them."""
        after = ("", "", "")
        while True:
            with self.store.reading() as db:
                page = report.page_of(db, state, after=after, limit=CHUNK)
            yield from page
            if len(page) < CHUNK:
                return
            last = page[-1]
            after = (last["key"], last["parser"], canonical(last["parser_args"]))

    def reparse(self, parsers: Mapping[str, Parser]) -> Counter:
        """Parse every stored answer again. Returns counts: read, parsed, unparsed, changed, parser unknown."""
        return parsing.parse_again(self.store, parsers, only_new=False)

    def parse_new(self, parsers: Mapping[str, Parser]) -> Counter:
        """Parse the answers to this run's questions that the current parsers have not read."""
        return parsing.parse_again(self.store, parsers, only_new=True)
