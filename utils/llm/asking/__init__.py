"""Ask questions and keep the answers in the ledger. Nothing is asked twice, nothing paid for is lost.

    summary = ask(questions, ledger, provider, limits)

Many requests are in flight at once, within limits of speed and money. A request that fails for a passing reason is
tried again. Ctrl-C, a limit and an error that concerns every request end a run cleanly; the same call continues it.

limits     what the user allows, and the pace that follows from it
costs      what requests will cost
throttle   the pace that the server takes
writer     group commit
run        start and end of a run
thread     signals
sender     requests sent one by one
batch      requests sent in batches
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

from utils.errors import UserError
from utils.llm.asking.batch import BatchSender
from utils.llm.asking.costs import dollars, estimate
from utils.llm.asking.limits import RateLimits
from utils.llm.asking.sender import Sender
from utils.llm.asking.thread import run_in_thread
from utils.llm.ledger import Ledger, Outcome, Question, batches, planning, report, steps
from utils.llm.providers import Provider
from utils.parsing import PARSERS, Parser
from utils.reporting import say, warn

__all__ = ["RateLimits", "Outcome", "Question", "AskingSummary", "ask", "dollars"]


@dataclass(frozen=True)
class AskingSummary:
    """The counts of one run of asking.

    Args:
        requests: requests that had no answer before.
        left: those of them that are still planned.
        answered: requests that got an answer.
        refused: requests that the model or a filter declined.
        failed: requests without an answer after all retries.
        unparsed: answers in which the parser found no clear value.
        attempts: requests sent, retries included.
        retries: further attempts.
        possibly_billed: attempts without an answer that may have cost money.
        input_tokens: tokens of the prompts.
        output_tokens: tokens of the answers.
        usd: cost of the answers; None where a price or a count of tokens is not known.
        possibly_billed_usd: the most that the possibly billed attempts can have cost; None where that is not known.
        stopped: the flag that ended the run early (--max_usd, --max_requests or --dry_run), or None.
    """

    requests: int
    left: int = 0
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
    stopped: str | None = None

    def __str__(self) -> str:
        counts = [f"{self.answered:,} answered", f"{self.refused:,} refused", f"{self.failed:,} failed"]
        rare = {"unparsed": self.unparsed, "retries": self.retries, "possibly billed": self.possibly_billed}
        counts += [f"{number:,} {name}" for name, number in rare.items() if number]
        tokens = f"{self.input_tokens:,} + {self.output_tokens:,} tokens"
        return f"{', '.join(counts)}; {tokens}, {dollars(self.usd)}"


def ask(
    questions: Iterable[Question],
    ledger: Ledger,
    provider: Provider,
    limits: RateLimits,
    parsers: Mapping[str, Parser] = PARSERS,
) -> AskingSummary:
    """Get an answer to every question that has none in the ledger, and read every answer with the current parsers.

    Blocks until all are settled, a limit is reached or Ctrl-C is pressed.

    Args:
        questions: what to ask; read in chunks, and may be computed from the ledger.
        ledger: where answers are kept.
        provider: the source of answers.
        limits: what the user allows.
        parsers: the parsers that questions may name.

    Returns:
        The counts of this run. `Ledger.outcome` gives the answers.

    Raises:
        UserError: for what no request can get past: a rejected key, an unknown model, a server that is not there, a
            ledger that cannot be written.
        KeyboardInterrupt: after Ctrl-C, when everything that was answered is stored; SystemExit after SIGTERM.
    """
    if limits.dry_run:
        return _dry_run(_checked(questions, provider, parsers), ledger, provider, limits)
    process = ledger.process
    ledger.do([steps.take_over, lambda db: steps.free(db, [process])])
    ledger.plan(_checked(questions, provider, parsers))
    changed = ledger.parse_new(parsers)["changed"]
    if changed:
        say(f"{changed} stored answers have another value under newer parsers")
    if limits.retry_unparsed:
        ledger.do([lambda db: planning.retry_unparsed(db, process)])
    ((known, wanted),) = ledger.do([planning.known])
    total = wanted - known
    if known:
        say(f"{known:,} of {wanted:,} requests are known")
    if not total:
        return AskingSummary(0)
    _set_prices(ledger, provider, limits)
    say(f"{total:,} requests to {provider.where}")
    first, sent = ledger.do([report.last_attempt, lambda db: report.sent_by(db, process)])
    sender = _sender_for(ledger, provider, limits)(ledger, provider, limits, parsers)
    try:
        run_in_thread(sender, total, sent)
    finally:
        summary = _summary(ledger, sender, total, first)
        say(str(summary))
    # Another process on the same ledger may have stored answers meanwhile.
    ledger.parse_new(parsers)
    if summary.stopped:
        left = f"{summary.stopped} is reached: {summary.left:,} requests are left"
        warn(f"{left}; run the same command again to continue")
    return summary


def _checked(questions: Iterable[Question], provider: Provider, parsers: Mapping[str, Parser]) -> Iterator[Question]:
    for question in questions:
        if question.parser not in parsers:
            raise UserError(f"unknown parser {question.parser!r}; known: {', '.join(sorted(parsers))}")
        if question.request.provider != provider.name:
            raise UserError(f"a request for {question.request.provider} cannot go to {provider.name}")
        yield question


def _sender_for(ledger: Ledger, provider: Provider, limits: RateLimits) -> type[Sender]:
    if limits.batch:
        if not hasattr(provider, "connect_batches"):
            raise UserError(f"--batch: {provider.name} has no batch API that is known here; leave it out")
        return BatchSender
    (waiting,) = ledger.do([batches.waiting])
    if waiting:
        raise UserError(f"{waiting:,} of these requests are in a batch; give --batch to wait for its answers")
    return Sender


def _summary(ledger: Ledger, sender: Sender, total: int, first: int) -> AskingSummary:
    with ledger.store.reading() as db:
        spent = report.spent_since(db, ledger.process, first)
        left = report.unsettled(db)
    counts = {name: sender.counts[name] for name in ("answered", "refused", "failed", "unparsed", "retries")}
    for name in ("attempts", "possibly_billed", "input_tokens", "output_tokens", "usd", "possibly_billed_usd"):
        counts[name] = spent[name]
    return AskingSummary(total, left, **counts, stopped=sender.stopped)


def _set_prices(ledger: Ledger, provider: Provider, limits: RateLimits) -> None:
    """Price what was spent so far at the prices now known. Raises UserError where --max_usd could not be kept."""
    if limits.price:
        priced = []
        for model in ledger.do([report.unpriced_models])[0]:
            price = limits.given_price(model)
            if price:
                priced.append(partial(steps.set_price, model=model, price=price))
        # All attempts are added up only where some have a price that they had not: a ledger may hold millions.
        if any(ledger.do(priced)):
            ledger.do([steps.count_budget])
    if limits.max_usd is None:
        return
    wanted, unknown = ledger.do([report.wanted_models, report.unbounded])
    for model in wanted:
        if limits.price_of(model, provider) is None:
            raise UserError(f"--max_usd: the price of {model} at {provider.where} is not known; give --price IN,OUT")
    if unknown:
        raise UserError(
            f"--max_usd: {unknown} earlier requests in {ledger.path} have no known price; give --price MODEL=IN,OUT "
            "for their model, or use another ledger"
        )


def _dry_run(questions: Iterable[Question], ledger: Ledger, provider: Provider, limits: RateLimits) -> AskingSummary:
    """Count and price the questions that have no answer."""
    found = estimate(ledger.unanswered(questions, limits.retry_unparsed), ledger, provider, limits)
    say(f"dry run: {found.requests:,} requests, {found}")
    return AskingSummary(found.requests, found.requests, usd=found.most_usd, stopped="--dry_run")
