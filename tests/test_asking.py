"""Asking through the ledger: a real server, the real client, a real file. What each answer and each fault leads to."""

import asyncio
import email.utils
import json
import sqlite3
import time

import pytest
from aiohttp import web
from model_server import completion, error, model_server, ok

from utils.errors import UserError
from utils.llm.asking import Question, RateLimits, ask
from utils.llm.ledger import Ledger
from utils.llm.providers import open_provider, request_of

KEY = "sk-very-secret-0123456789"


def question(text="rate this", parser="rating", sample=0, max_tokens=20, **args):
    request = request_of("openai", "m", [{"role": "user", "content": str(text)}], max_tokens=max_tokens, sample=sample)
    return Question(request, parser, args or ({"low": 1, "high": 7} if parser == "rating" else {}))


@pytest.fixture
def start(tmp_path, monkeypatch):
    """start(server, questions, **limits) -> (summary, the outcomes, the report)"""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)

    def run(server, questions, path=tmp_path / "ledger", **limits):
        questions = list(questions)
        limits = {"backoff": 0.01, "timeout": 5.0, **limits}
        with Ledger(path) as ledger:
            provider = open_provider("openai", server.url, key_env="OPENAI_API_KEY")
            summary = ask(questions, ledger, provider, RateLimits(**limits))
            outcomes = [ledger.outcome(q.request.key, q.parser, q.parser_args) for q in questions]
            return summary, outcomes, ledger.report()

    return run


def test_an_answer_is_stored_and_read(start, tmp_path):
    with model_server() as server:
        summary, (outcome,), report = start(server, [question()])
    assert (outcome.state, outcome.value, outcome.text, outcome.finish_reason) == ("parsed", 6, "Rating: 6", "stop")
    assert (summary.answered, summary.left, summary.attempts, summary.retries) == (1, 0, 1, 0)
    assert report["answered"] == report["parsed"] == report["asked"] == 1
    assert server.asked[0].body == question().request.body
    assert server.asked[0].headers["Authorization"] == f"Bearer {KEY}"
    db = sqlite3.connect(tmp_path / "ledger")
    assert json.loads(db.execute("SELECT raw FROM attempts").fetchone()[0]) == completion()


def test_the_same_command_asks_nothing_and_added_rows_alone_are_asked(start):
    with model_server() as server:
        start(server, map(question, "abc"))
        start(server, map(question, "abc"))
        assert len(server.asked) == 3
        summary, outcomes, _ = start(server, map(question, "axbyc"))
        assert [asked.content for asked in server.asked[3:]] == ["x", "y"] and summary.requests == 2
    assert [outcome.value for outcome in outcomes] == [6] * 5


def test_one_request_for_equal_bodies_and_one_more_for_another_sample(start):
    with model_server() as server:
        twice = [question("a"), question("a"), question("a", low=1, high=9), question("a", parser="critique")]
        _, outcomes, report = start(server, [*twice, question("a", sample=1)])
        assert len(server.asked) == 2
    assert [outcome.value for outcome in outcomes] == [6, 6, 6, "Rating: 6", 6]
    assert report["requests"] == 2 and report["parsed"] == 4


def test_another_parser_later_costs_nothing(start):
    with model_server() as server:
        start(server, [question("a")])
        _, (outcome,), _ = start(server, [question("a", parser="critique")])
        assert len(server.asked) == 1
    assert outcome.value == "Rating: 6"


FAULTS = {
    "429": lambda: error(429),
    "500": lambda: error(500),
    "529": lambda: error(529),
    "empty": lambda: ok("  "),
    "null": lambda: ok(None),
    "not JSON": lambda: web.Response(text='{"choices": [', content_type="application/json"),
    "another shape": lambda: web.json_response({"choices": []}),
    "a list": lambda: web.json_response([1]),
    "text parts": lambda: ok([{"type": "text"}]),
    "tool call": lambda: ok(None, tool_calls=[{}]),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_passing_fault_is_tried_again(start, fault):
    with model_server(lambda asked, number: FAULTS[fault]() if number < 3 else ok()) as server:
        summary, (outcome,), report = start(server, [question()])
        assert len(server.asked) == 3
    assert (outcome.state, outcome.value, summary.retries) == ("parsed", 6, 2)
    assert (report["attempts"], report["retries"], report["asked"], report["answered"]) == (3, 2, 1, 1)
    told = report["troubles"]
    assert sum(told.values()) == 2 and len(told) == 1
    free = fault in ("429", "500", "529")
    unknown = fault in ("not JSON", "another shape", "a list", "text parts")  # the others say what they used
    assert report["possibly_billed"] == (2 if unknown else 0)
    assert report["input_tokens"] == (10 if free or unknown else 30)


@pytest.mark.parametrize("fault", ["500", "empty", "not JSON"])
def test_a_lasting_fault_fails_and_the_next_run_tries_again(start, fault):
    broken = [True]
    with model_server(lambda asked, number: FAULTS[fault]() if broken else ok()) as server:
        summary, (outcome,), report = start(server, [question()], max_retries=3)
        assert len(server.asked) == 4
        assert outcome.state == "failed" and outcome.reason and summary.failed == report["failed"] == 1
        broken.clear()
        _, (outcome,), report = start(server, [question()], max_retries=0)
        assert outcome.value == 6 and report["failed"] == 0 and report["retries"] == 4


def test_a_failure_is_not_asked_again_by_the_same_command(tmp_path):
    with model_server(lambda asked, number: error(500)) as server, Ledger(tmp_path / "ledger") as ledger:
        for _ in range(2):
            ask([question()], ledger, open_provider("openai", server.url), RateLimits(max_retries=1, backoff=0.01))
        assert len(server.asked) == 2


def test_a_broken_connection_is_tried_again_and_possibly_billed(start):
    async def answer(asked, number):
        if number == 1:  # before a byte of the answer
            asked.request.transport.abort()
        if number == 2:  # in the middle of it
            response = web.StreamResponse(headers={"Content-Length": "400"})
            await response.prepare(asked.request)
            await response.write(b'{"choices": [')
            asked.request.transport.abort()
            return response
        return ok()

    with model_server(answer) as server:
        summary, (outcome,), report = start(server, [question()])
    assert outcome.value == 6 and summary.retries == 2
    assert report["possibly_billed"] == 2 and report["troubles"] == {"the connection broke": 2}


def test_a_late_answer(start):
    async def answer(asked, number):
        await asyncio.sleep(0 if number > 1 else 5)
        return ok()

    with model_server(answer) as server:
        _, (outcome,), report = start(server, [question()], timeout=0.3)
        assert len(server.asked) == 2
    assert outcome.value == 6 and report["troubles"] == {"no answer within 0.3 s": 1}
    assert report["possibly_billed"] == 1


def test_an_answer_that_trickles_has_no_more_time_than_others(start):
    async def spaces():
        while True:
            yield b" "
            await asyncio.sleep(0.05)

    with model_server(lambda asked, number: ok() if number > 1 else web.Response(body=spaces())) as server:
        began = time.monotonic()
        _, (outcome,), _ = start(server, [question()], timeout=0.4)
    assert outcome.value == 6 and time.monotonic() - began < 5


@pytest.mark.parametrize("form", ["seconds", "date", "milliseconds"])
def test_retry_after_is_honoured(start, form):
    wanted = 2.0 if form == "date" else 0.5  # a date has whole seconds

    def answer(asked, number):
        if number > 1:
            return ok()
        date = email.utils.formatdate(time.time() + wanted, usegmt=True)
        header = {
            "seconds": ("Retry-After", "0.5"),
            "date": ("Retry-After", date),
            "milliseconds": ("retry-after-ms", "500"),
        }
        return error(429, headers=dict([header[form]]))

    with model_server(answer) as server:
        start(server, [question("a")])
        first, second = server.times("a")
    assert (wanted - 1 if form == "date" else wanted) <= second - first < wanted + 1.5


def test_a_wait_of_an_hour_ends_the_run(start):
    told = pytest.raises(UserError, match="asks to wait 3600 s; run the same command again then")
    with model_server(lambda asked, number: error(429, headers={"Retry-After": "3600"})) as server, told:
        start(server, [question()])


def test_back_off_grows(start):
    with model_server(lambda asked, number: error(500) if number < 5 else ok()) as server:
        start(server, [question("a")], backoff=0.1)
        times = server.times("a")
    waits = [after - before for before, after in zip(times, times[1:], strict=False)]
    for number, wait in enumerate(waits):
        assert 0.5 * 0.1 * 2**number <= wait < 0.1 * 2**number + 0.5
