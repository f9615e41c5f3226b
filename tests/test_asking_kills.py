"""Nothing is lost, nothing is asked twice: processes that are killed, and processes that share a ledger."""

import asyncio
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from urllib.parse import urlsplit

import pytest
from asking_worker import questions, send_alone
from oracle import control, oracle_program, wait_for
from processes import environment
from toys import ROOT

from utils.llm.ledger import Ledger
from utils.world.serving.faults import key_of

FAULTS = {  # 30 % in all
    "429": 0.05, "429-retry-after": 0.04, "500": 0.05, "time-out": 0.01, "reset": 0.04, "malformed": 0.04,
    "empty": 0.03, "refusal": 0.03, "slow": 0.01,
}  # fmt: skip


@pytest.fixture
def server(tmp_path):
    with oracle_program(tmp_path, "--retry_after", "0.05", "--slow", "0.3", "--latency", "0.02") as (_, url):
        yield url


@pytest.fixture
def worker(tmp_path, server):
    """worker(count, name) -> a process that asks `count` questions, as other workers with the same ledger do."""
    started = []

    def start(count, name="out.jsonl", concurrency=32):
        words = [tmp_path / "ledger", server, count, concurrency, tmp_path / name]
        command = [sys.executable, ROOT / "tests/asking_worker.py", *words]
        path = f"{ROOT}:{ROOT / 'tests'}"
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        started.append(subprocess.Popen([*map(str, command)], env=environment(PYTHONPATH=path), **pipes))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def answered(path):
    """How many answers are stored; read beside the writers."""
    if not path.exists():
        return 0
    try:
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as db:
            return db.execute("SELECT count(*) FROM requests WHERE state = 'answered'").fetchone()[0]
    except sqlite3.OperationalError:  # it is being made
        return 0


def rows_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.slow
def test_2000_requests_with_faults_of_all_kinds_killed_three_times(server, worker, tmp_path):
    count, ledger = 2000, tmp_path / "ledger"
    control(server, "faults", FAULTS)
    for stored in (300, 800, 1300):
        process = worker(count)
        wait_for(lambda: answered(ledger) >= stored or process.poll() is not None, 120)  # noqa: B023
        assert process.poll() is None, process.communicate()[0]
        process.send_signal(signal.SIGKILL)
        process.wait()
    process = worker(count)
    told = process.communicate(timeout=240)[0]
    assert process.returncode == 0, told
    rows = rows_of(tmp_path / "out.jsonl")
    with Ledger(ledger) as opened:
        report = opened.report()

    assert [row["row"] for row in rows] == list(range(count))
    states = {state: sum(row["state"] == state for row in rows) for state in ("parsed", "refused")}
    assert sum(states.values()) == count, report  # every row answered, and once
    assert all(1 <= row["value"] <= 7 for row in rows if row["state"] == "parsed")

    assert report["requests"] == report["asked"] == count == report["answered"] + report["refused"]
    assert report["parsed"] == report["answered"] == states["parsed"] and report["refused"] == states["refused"] > 0
    assert report["planned"] == report["sent"] == report["failed"] == report["unparsed"] == report["in_flight"] == 0
    assert report["attempts"] == count + report["retries"]

    db = sqlite3.connect(ledger)
    again = (
        "SELECT count(*) FROM attempts a JOIN attempts b USING (key)"
        " WHERE a.result IN ('answered', 'refused') AND b.id > a.id"
    )
    assert db.execute(again).fetchone()[0] == 0  # none asked again after its answer was stored
    lost = dict(db.execute("SELECT key, count(*) FROM attempts WHERE result = 'given up in flight' GROUP BY key"))
    tries = dict(db.execute("SELECT key, count(*) FROM attempts GROUP BY key"))
    assert 0 < sum(lost.values()) <= 3 * 32 + 3

    # Each settled row has the answer that the server sent for it, whole and with words (or a refusal), by its number.
    settled = "SELECT key, request_id FROM attempts WHERE result IN ('answered', 'refused')"
    answers = db.execute(settled).fetchall()
    assert len(answers) == count
    kept, seen = dict(answers), control(server, "counts")["bodies"]
    for question in questions(count):
        key, tally = question.request.key, seen[key_of(question.request.body)]
        # what the server counts and the ledger says differ by what was killed between the mark and the wire, only
        assert tries[key] - lost.get(key, 0) <= tally["requests"] <= tries[key]
        assert kept[key] in tally["good"] and len(tally["good"]) <= 1 + lost.get(key, 0)
    billed = db.execute("SELECT count(*) FROM attempts WHERE billed").fetchone()[0]
    free = db.execute("SELECT count(*) FROM attempts WHERE NOT billed").fetchone()[0]
    assert billed + free + report["possibly_billed"] == report["attempts"]


def test_an_answer_that_nobody_waits_for_counts_as_none(server):
    """A fault is counted when it is drawn and an answer when it is sent: the difference of both is no number of good
    answers, if a client is killed between them."""
    (asked,) = questions(1)
    control(server, "faults", {"empty": 1.0, "latency": 1.0})
    address, body = urlsplit(server), json.dumps(asked.request.body).encode()
    with socket.create_connection((address.hostname, address.port)) as client:
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {address.netloc}\r\nContent-Length: {len(body)}\r\n\r\n"
        client.sendall(head.encode() + body)
        wait_for(lambda: control(server, "counts")["requests"] == 1)
    control(server, "faults", {"latency": 0})
    asyncio.run(send_alone([asked], server, 1))
    seen = control(server, "counts")
    assert (seen["answered"], seen["faults"], len(seen["good"])) == (1, {"empty": 1}, 1)


def test_two_processes_share_the_work(server, worker, tmp_path):
    control(server, "faults", {"500": 0.1, "reset": 0.05})
    first, second = worker(300, "a.jsonl", 8), worker(300, "b.jsonl", 8)
    for process in (first, second):
        told = process.communicate(timeout=120)[0]
        assert process.returncode == 0, told
    assert rows_of(tmp_path / "a.jsonl") == rows_of(tmp_path / "b.jsonl")
    assert all(tally["answered"] == 1 for tally in control(server, "counts")["bodies"].values())
    db = sqlite3.connect(tmp_path / "ledger")
    shares = [n for (n,) in db.execute("SELECT count(*) FROM attempts WHERE result = 'answered' GROUP BY owner")]
    assert sum(shares) == 300 and len(shares) == 2


def test_a_dead_process_is_taken_over_by_a_living_one(server, worker, tmp_path):
    """The first dies with requests in flight while the second waits for them."""
    control(server, "faults", {"latency": 1.0})
    first = worker(8, "a.jsonl", 8)
    ledger = tmp_path / "ledger"
    wait_for(lambda: control(server, "counts")["requests"] == 8)
    second = worker(8, "b.jsonl", 8)
    wait_for(lambda: sqlite3.connect(ledger).execute("SELECT count(*) FROM processes").fetchone()[0] == 2)
    time.sleep(0.2)
    os.kill(first.pid, signal.SIGKILL)
    told = second.communicate(timeout=60)[0]
    assert second.returncode == 0, told
    with Ledger(ledger) as opened:
        report = opened.report()
    assert report["answered"] == 8 and report["retries"] == report["possibly_billed"]
