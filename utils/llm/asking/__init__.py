"""Asking: questions in, answers in the ledger. Nothing is asked twice, nothing paid for is lost.

    summary = ask(questions, ledger, provider, limits)

Many requests are in flight at once, within limits of speed and money; what fails for a passing reason is tried again;
Ctrl-C, a limit and an error that concerns every request end it cleanly, and the same call continues.

limits     what the user allows, and the pace that follows from it
writer     group commit
run        how it starts and how it ends
pump       requests out, answers in
batch      the same through a batch API
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from utils.errors import UserError
from utils.llm.asking.batch import BatchPump
from utils.llm.asking.limits import Limits
from utils.llm.asking.pump import Pump
from utils.llm.ledger import Ledger, Outcome, Question, batches, report, steps
from utils.llm.providers import Provider
from utils.parsing import PARSERS, Parser
from utils.reporting import say, warn

__all__ = ["Limits", "Outcome", "Question", "Summary", "ask", "dollars"]


@dataclass(frozen=True)
class Summary:
    """One run of asking. `usd` is None where the price or the tokens of an answer are not known, and so is
    `possibly_billed_usd`, the most that attempts without an answer can have cost."""

    requests: int  # that had no answer before
    left: int = 0  # of these, what is still planned
    answered: int = 0
    refused: int = 0
    failed: int = 0
    unparsed: int = 0
    attempts: int = 0
    retries: int = 0
    possibly_billed: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    usd: float | None = 0.0
    possibly_billed_usd: float | None = 0.0
    stopped: str | None = None  # why it ended early: --max_usd, --max_requests, --dry_run

    def __str__(self) -> str:
        known = [(self.answered, "answered"), (self.refused, "refused"), (self.failed, "failed")]
        rare = [(self.unparsed, "unparsed"), (self.retries, "retries"), (self.possibly_billed, "possibly billed")]
        counts = ", ".join(f"{number:,} {name}" for number, name in known + [each for each in rare if each[0]])
        return f"{counts}; {self.input_tokens:,} + {self.output_tokens:,} tokens, {dollars(self.usd)}"


def dollars(usd: float | None) -> str:
    return "at an unknown price" if usd is None else f"${usd:.2f}" if usd >= 1 or not usd else f"${usd:.2g}"


def ask(
    questions: Iterable[Question],
    ledger: Ledger,
    provider: Provider,
    limits: Limits,
    parsers: Mapping[str, Parser] = PARSERS,
) -> Summary:
    """Get an answer to every question that has none in the ledger, and read every answer with the current parsers.

    Blocks until all are settled, a limit is reached or Ctrl-C is pressed (KeyboardInterrupt, when all is stored).
    Raises UserError for what no request can get past: a rejected key, an unknown model, a server that is not there,
    a ledger that cannot be written.
    """
    process = ledger.process
    ledger.do([steps.take_over, lambda db: steps.free(db, [process])])
    ledger.plan(_checked(questions, provider, parsers))
    changed = ledger.parse_new(parsers)["changed"]
    if changed:
        say(f"{changed} stored answers read otherwise by newer parsers")
    ((_, total),) = ledger.do([steps.left])
    if limits.dry_run:
        return _dry_run(ledger, provider, limits, total)
    if not total:
        return Summary(0)
    _set_prices(ledger, provider, limits)
    say(f"{total:,} requests to {provider.where}")
    first, sent = ledger.do([steps.last_attempt, lambda db: steps.sent_by(db, process)])
    pump = _pump_for(ledger, provider, limits)(ledger, provider, limits, parsers)
    try:
        _run(pump, total, sent)
    finally:
        summary = _summary(ledger, pump, total, first)
        say(str(summary))
    ledger.parse_new(parsers)  # what another process has got meanwhile
    if summary.stopped:
        warn(f"{summary.stopped} is reached: {summary.left:,} requests are left; the same command continues")
    return summary


def _checked(questions: Iterable[Question], provider: Provider, parsers: Mapping[str, Parser]) -> Iterator[Question]:
    for question in questions:
        if question.parser not in parsers:
            raise UserError(f"unknown parser {question.parser!r}; known: {', '.join(sorted(parsers))}")
        if question.request.provider != provider.name:
            raise UserError(f"a request for {question.request.provider} cannot go to {provider.name}")
        yield question


def _pump_for(ledger: Ledger, provider: Provider, limits: Limits) -> type[Pump]:
    if limits.batch:
        if not hasattr(provider, "connect_batches"):
            raise UserError(f"--batch: {provider.name} has no batch API that is known here; leave it out")
        return BatchPump
    (waiting,) = ledger.do([batches.waiting])
    if waiting:
        raise UserError(f"{waiting:,} of these requests are in a batch; give --batch to wait for its answers")
    return Pump


def _run(pump: Pump, total: int, sent: int) -> None:
    """In a thread of its own: a notebook has an event loop already, and Ctrl-C reaches the main thread alone."""
    interrupted = False
    with ThreadPoolExecutor(1, "asking") as thread:
        running = thread.submit(asyncio.run, pump.run(total, sent))
        while not running.done():
            try:
                running.exception()
            except KeyboardInterrupt:
                interrupted = True
                pump.interrupt()
    running.result()
    if interrupted:
        raise KeyboardInterrupt


def _summary(ledger: Ledger, pump: Pump, total: int, first: int) -> Summary:
    with ledger.store.reading() as db:
        spent = report.spent_since(db, ledger.process, first)
        left = steps.unsettled(db)
    names = ("attempts", "possibly_billed", "input_tokens", "output_tokens", "usd", "possibly_billed_usd")
    counts = {name: pump.counts[name] for name in ("answered", "refused", "failed", "unparsed", "retries")}
    return Summary(total, left, **counts, **{name: spent[name] for name in names}, stopped=pump.stopped)


def _set_prices(ledger: Ledger, provider: Provider, limits: Limits) -> None:
    """What is spent so far, at the prices now known. Raises UserError where --max_usd could not be kept."""
    models, wanted = ledger.do([steps.models, steps.wanted_models])
    given = {model: price for model in models if (price := limits.given_price(model))}
    ledger.do([lambda db, pair=pair: steps.set_price(db, *pair) for pair in given.items()])
    (unknown,) = ledger.do([steps.count_budget])
    if limits.max_usd is None:
        return
    for model in wanted:
        if limits.price_of(model, provider) is None:
            raise UserError(f"--max_usd: the price of {model} at {provider.where} is not known; give --price IN,OUT")
    if unknown:
        raise UserError(
            f"--max_usd: {unknown} earlier requests in {ledger.path} have no known price; give --price MODEL=IN,OUT "
            "for their model, or use another ledger"
        )


def _dry_run(ledger: Ledger, provider: Provider, limits: Limits, total: int) -> Summary:
    """Bounds, not guesses: a token has at least one byte, and an answer at most --max_tokens."""
    tokens, most, usd = 0, 0, 0.0
    for request in ledger.queued():
        price, longest = limits.price_of(request.model, provider), request.most_output_tokens
        tokens += request.most_input_tokens
        most = None if most is None or longest is None else most + longest
        usd = None if usd is None or price is None else usd + price.of(request.most_input_tokens, longest or 0)
    ledger.do([steps.forget_plan])
    out = "an unlimited number of" if most is None else f"at most {most:,}"
    cost = "cost unknown: give --price" if usd is None else f"at most {dollars(usd)}"
    if usd is not None and most is None:
        cost += " for what is sent, and what the replies cost: give --max_tokens or --max_usd for a bound"
    say(f"dry run: {total:,} requests, at most {tokens:,} tokens in and {out} out; {cost}")
    return Summary(total, total, usd=None if most is None else usd, stopped="--dry_run")
