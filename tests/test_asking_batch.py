"""Asking through the batch API: the oracle's files and batches, the real client, kills while a batch is under way."""

import os
import signal
import sqlite3
import subprocess
import sys
import threading

import pytest
from asking_worker import questions
from oracle import control, oracle, wait_for
from processes import environment
from toys import ROOT

from utils.errors import UserError
from utils.llm.asking import Question, RateLimits, ask
from utils.llm.ledger import Ledger
from utils.llm.providers import open_provider, request_of


@pytest.fixture
def start(tmp_path):
    """start(url, count, **limits) -> (summary, outcomes, report)"""

    def run(url, count, **limits):
        limits = {"batch": True, "timeout": 5.0, "backoff": 0.01, **limits}
        with Ledger(tmp_path / "ledger") as ledger:
            key_env = "OPENAI_API_KEY" if "OPENAI_API_KEY" in os.environ else None
            provider = open_provider("openai", url, key_env=key_env)
            summary = ask(questions(count), ledger, provider, RateLimits(**limits))
            found = [ledger.outcome(q.request.key, q.parser, q.parser_args) for q in questions(count)]
            return summary, found, ledger.report()

    return run


def batches_of(path):
    with sqlite3.connect(path) as db:
        return db.execute("SELECT number, ended IS NOT NULL FROM batches ORDER BY began").fetchall()


def test_a_batch(start, tmp_path):
    with oracle() as url:
        summary, found, report = start(url, 30, price=["1,2"])
        assert summary.answered == 30 and {outcome.state for outcome in found} == {"parsed"}
        assert control(url, "counts")["requests"] == 30 and [ended for _, ended in batches_of(tmp_path / "ledger")] == [
            1
        ]
        assert report["usd"] > 0 and report["possibly_billed"] == report["retries"] == 0
        assert start(url, 30)[0].requests == 0
        assert start(url, 40)[0].requests == 10  # added rows
    with oracle() as url:  # the same answers as one by one
        other = tmp_path / "other"
        with Ledger(other) as ledger:
            ask(questions(30), ledger, open_provider("openai", url), RateLimits())
            assert [ledger.outcome(q.request.key, q.parser, q.parser_args) for q in questions(30)] == found


def test_several_batches(start, tmp_path, monkeypatch):
    monkeypatch.setattr("utils.llm.asking.batch.SIZE", 8)
    with oracle(latency=0.2) as url:
        summary, _, _ = start(url, 30)
    assert summary.answered == 30 and len(batches_of(tmp_path / "ledger")) == 4


def test_faults_of_lines_are_tried_again_in_another_batch(start, tmp_path):
    faults = "429=0.1,500=0.1,time-out=0.05,malformed=0.05,empty=0.1,refusal=0.1"
    with oracle(faults=faults) as url:
        summary, found, report = start(url, 100)
        bodies = control(url, "counts")["bodies"].values()
    assert summary.answered + summary.refused == 100 and summary.refused and not summary.failed
    assert report["attempts"] == sum(tally["requests"] for tally in bodies) == 100 + report["retries"]
    assert len(batches_of(tmp_path / "ledger")) > 1


def test_a_line_that_always_fails(start):
    with oracle(faults="500=1") as url:
        summary, (outcome,), report = start(url, 1, max_retries=2)
    assert outcome.state == "failed" and "HTTP 500" in outcome.reason and report["attempts"] == 3


@pytest.mark.parametrize(
    "options, words",
    [({"api_key": "right"}, "takes no batch: .*rejects the key"), ({"any_model": False}, None)],
)
def test_keys_are_checked(start, options, words, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-wrong-1234")
    with oracle(**options) as url:
        if words is None:
            assert start(url, 2)[0].answered == 2
            return
        with pytest.raises(UserError, match=words):
            start(url, 2)
        monkeypatch.setenv("OPENAI_API_KEY", "right")
        assert start(url, 2)[0].answered == 2  # what was rejected is not lost, and cost nothing
        assert start(url, 2)[2]["possibly_billed"] == 0


def test_limits(start):
    with oracle() as url:
        summary, _, report = start(url, 30, max_requests=12)
        assert (summary.answered, summary.left, summary.stopped) == (12, 18, "--max_requests")
        spent = (report["input_tokens"] + report["output_tokens"]) / 1000
        most = spent + 0.2 + max((q.request.most_input_tokens + 40) / 1000 for q in questions(30))
        summary, _, report = start(url, 30, max_usd=most, price=["1000,1000"])
        assert summary.stopped == "--max_usd" and 0 < summary.left < 18 and spent < report["usd"] <= most
        summary, _, report = start(url, 30, price=["1000,1000"])
        assert summary.left == 0 and report["answered"] == 30
        assert control(url, "counts")["requests"] == 30


def test_who_has_no_batches(tmp_path):
    asked = Question(request_of("anthropic", "oracle", [{"role": "user", "content": "x"}]), "completion")
    provider = open_provider("anthropic", "http://localhost:1")
    with Ledger(tmp_path / "ledger") as ledger, pytest.raises(UserError, match="--batch: anthropic has no batch API"):
        ask([asked], ledger, provider, RateLimits(batch=True))


DYING = """
import os, signal, sys
import utils.llm.asking.batch
from asking_worker import questions
from utils.llm.asking import RateLimits, ask
from utils.llm.ledger import Ledger
from utils.llm.providers import open_provider
from utils.llm.providers.batches import BatchSession

moment, path, url = sys.argv[1:]
submit, outcomes = BatchSession.submit, BatchSession.outcomes
utils.llm.asking.batch.AT_ONCE = 5

def die():
    os.kill(os.getpid(), signal.SIGKILL)

async def submit_and_die(self, *given):
    if moment == "before":
        die()
    number = await submit(self, *given)
    if moment == "after":
        die()
    return number

async def look_and_die(self, number):
    die()

async def read_and_die(self, file):
    for_each = enumerate(await outcomes(self, file))
    return (row if number < 10 else die() for number, row in for_each)

BatchSession.submit = submit_and_die
if moment == "waiting":
    BatchSession.look = look_and_die
if moment == "reading":
    BatchSession.outcomes = read_and_die
with Ledger(path) as ledger:
    ask(questions(20), ledger, open_provider("openai", url), RateLimits(batch=True))
"""


def die(moment, path, url):
    """A process asks 20 questions in a batch, and is killed at that moment."""
    words = [sys.executable, "-c", DYING, moment, str(path), url]
    done = subprocess.run(words, env=environment(PYTHONPATH=f"{ROOT}:{ROOT / 'tests'}"), capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()


@pytest.mark.parametrize("moment", ["before", "after", "waiting", "reading"])
def test_a_kill_sends_nothing_twice(start, tmp_path, moment):
    with oracle() as url:
        die(moment, tmp_path / "ledger", url)
        before = control(url, "counts")["requests"] if moment != "before" else 0
        summary, found, report = start(url, 20)
        assert {outcome.state for outcome in found} == {"parsed"} and report["answered"] == 20
        assert control(url, "counts")["requests"] == 20 and before in (0, 20)
        if moment == "before":  # nobody can know that it never went out
            assert report["possibly_billed"] == 20
        else:
            assert report["possibly_billed"] == report["retries"] == 0
            assert len(batches_of(tmp_path / "ledger")) == 1


def test_requests_in_a_batch_are_not_asked_one_by_one(start, tmp_path):
    with oracle(latency=0.5) as url:
        die("waiting", tmp_path / "ledger", url)
        with pytest.raises(
            UserError, match="20 of these requests are in a batch; give --batch to wait for its answers"
        ):
            start(url, 25, batch=False)
        assert start(url, 25)[0].answered == 25
        assert control(url, "counts")["requests"] == 25


def test_a_server_that_has_forgotten_a_batch(start, tmp_path):
    with oracle() as url:
        die("waiting", tmp_path / "ledger", url)
    with oracle() as url:
        summary, _, report = start(url, 20)
    assert summary.answered == 20 and report["possibly_billed"] == 20


def test_ctrl_c_leaves_the_batch_to_the_next_run(start, tmp_path):
    def press():
        wait_for(lambda: any(number for number, _ in batches_of(tmp_path / "ledger")))
        os.kill(os.getpid(), signal.SIGINT)

    Ledger(tmp_path / "ledger").close()
    with oracle(latency=1.5) as url:
        threading.Thread(target=press).start()
        with pytest.raises(KeyboardInterrupt):
            start(url, 10)
        summary, _, report = start(url, 10)
        assert summary.answered == 10 and report["attempts"] == 10 == control(url, "counts")["requests"]
