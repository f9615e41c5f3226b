"""How fast asking is, and what it takes, beside what is measured in the same run: a busy machine slows down both.

Absolute times are printed by tests/benchmarks/asking.py."""

import re
import sqlite3
import subprocess
import sys
from dataclasses import dataclass

import pytest
from oracle import oracle_program
from processes import environment
from toys import ROOT

SECONDS, COUNT, CONCURRENCY = 0.2, 1000, 64


@dataclass
class Used:
    """What a worker took: CPU seconds of the asking alone, peak memory of the process in MiB."""

    cpu: float
    peak: float


def run(*words):
    command = [sys.executable, ROOT / "tests/asking_worker.py", *words]
    path = f"{ROOT}:{ROOT / 'tests'}"
    told = subprocess.run(
        [*map(str, command)], env=environment(PYTHONPATH=path), stdout=subprocess.PIPE, text=True, check=True
    ).stdout
    return Used(*map(float, re.search(r"cpu (\S+) s, peak (\S+) MiB", told).groups()))


@pytest.mark.slow
def test_1000_requests_64_at_a_time(tmp_path):
    """Mean number in flight (Little's law): the time of all requests, by the time of the whole run."""
    with oracle_program(tmp_path, "--latency", SECONDS) as (_, url):
        run(tmp_path / "ledger", url, COUNT, CONCURRENCY, tmp_path / "out.jsonl")
    db = sqlite3.connect(tmp_path / "ledger")
    in_all, whole, attempts = db.execute(
        "SELECT sum(ended - began), max(ended) - min(began), count(*) FROM attempts"
    ).fetchone()
    assert attempts == COUNT
    assert 0.75 * CONCURRENCY < in_all / whole <= CONCURRENCY


@pytest.mark.slow
def test_cpu_and_memory_of_a_request(tmp_path):
    """A ledger, limits and parsers take no more CPU than the official client does; of 50 MB of bodies nothing stays."""
    with oracle_program(tmp_path) as (_, url):
        few = run(tmp_path / "few", url, 500, 32, tmp_path / "few.jsonl", 20_000)
        many = run(tmp_path / "many", url, 3000, 32, tmp_path / "many.jsonl", 20_000)
        alone = run("-", url, 1000, 32, "-", 20_000)
    assert many.cpu / 3000 < 2 * alone.cpu / 1000, (many, alone)
    assert many.cpu / 3000 < 1.5 * few.cpu / 500, (few, many)  # a later request costs what an early one costs
    assert many.peak - few.peak < 15, (few, many)
