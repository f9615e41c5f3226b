"""How fast feedback is asked for: beside a server with a rate limit, and without one. Prints tables.

PYTHONPATH=.:tests python tests/benchmarks/asking.py --what limits
"""

from __future__ import annotations

import math
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from asking_worker import questions
from oracle import control, oracle_program

from utils.arguments import parse
from utils.arguments.options import option
from utils.llm.asking import AskingSummary, RateLimits, ask
from utils.llm.ledger import Ledger
from utils.llm.providers import open_provider
from utils.world.serving.faults import HEADERS

# Requests a minute, seconds of an answer, requests in flight, rows; the last is the point that users reported.
POINTS = (
    (60, 1.0, 8, 60),
    (120, 0.2, 4, 80),
    (600, 1.0, 1, 20),
    (3000, 1.0, 32, 300),
    (3000, 0.2, 256, 1000),
    (500, 1.0, 32, 300),
)


@dataclass
class Options:
    what: Literal["limits", "speed"] = option("limits", help="servers with a rate limit; 1,000 requests without one")
    points: int = option(len(POINTS), help="how many of the points to measure, from the last")


@dataclass
class Measured:
    seconds: float
    cpu: float
    summary: AskingSummary
    refused: int


def measure(url: str, rows: int, concurrency: int) -> Measured:
    """Ask `rows` rows with a new ledger."""
    before = control(url, "counts")["faults"].get("rate-limit", 0)
    with tempfile.TemporaryDirectory() as folder, Ledger(Path(folder, "ledger")) as ledger:
        provider, limits = open_provider("openai", url), RateLimits(concurrency=concurrency)
        began, cpu = time.monotonic(), time.process_time()
        summary = ask(questions(rows), ledger, provider, limits)
        took = Measured(time.monotonic() - began, time.process_time() - cpu, summary, 0)
        took.refused = control(url, "counts")["faults"].get("rate-limit", 0) - before
        return took


def limits(points: int) -> None:
    print_row("| requests a minute | latency | in flight | rows | header | ideal | took | ratio | 429s | failed |")
    print_row("|---|---|---|---|---|---|---|---|---|---|")
    for per_minute, latency, concurrency, rows in POINTS[-points:]:
        ideal = max(rows * 60 / per_minute, rows * latency / concurrency)
        for header in HEADERS:
            flags = ("--requests_per_minute", per_minute, "--rate_header", header, "--latency", latency)
            with tempfile.TemporaryDirectory() as folder, oracle_program(Path(folder), *flags) as (_, url):
                took = measure(url, rows, concurrency)
            share = took.refused / took.summary.attempts
            print_row(f"| {per_minute} | {latency} s | {concurrency} | {rows} | {header} | {ideal:.1f} s | "
                      f"{took.seconds:.1f} s | {took.seconds / ideal:.2f} | {100 * share:.0f} % | "
                      f"{took.summary.failed} |")  # fmt: skip


def speed() -> None:
    count, concurrency, latency = 1000, 64, 0.2
    ideal = math.ceil(count / concurrency) * latency
    with tempfile.TemporaryDirectory() as folder, oracle_program(Path(folder), "--latency", latency) as (_, url):
        took = measure(url, count, concurrency)
    print_row(f"{count} requests of {latency} s, {concurrency} in flight: {took.seconds:.2f} s (ideal {ideal:.2f} s), "
              f"{1000 * took.cpu / count:.2f} ms of CPU a request")  # fmt: skip


def print_row(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main(argv: list[str] | None = None) -> None:
    (options,) = parse([Options], argv, __doc__)
    if options.what == "limits":
        limits(options.points)
    else:
        speed()


if __name__ == "__main__":
    main()
