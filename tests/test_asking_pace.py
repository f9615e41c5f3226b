"""How fast requests go out to a server with a rate limit: in simulated time over a grid, and to a real server."""

import asyncio
import itertools
import sqlite3
import time

import pytest
from asking_worker import questions
from model_server import error, model_server, ok
from oracle import control, oracle
from simulated_limit import Case, simulate
from test_asking import question, start  # noqa: F401 (start is a fixture)

from utils.errors import TryAgainError, UserError
from utils.llm.asking import RateLimits, ask
from utils.llm.ledger import Ledger
from utils.llm.providers import open_provider
from utils.world.serving.faults import HEADERS, RateLimit

SLOWER, REFUSED = 1.3, 0.2  # the most of the ideal time, and the most refusals of all requests
TRIPS = (0.005, 0.2)  # seconds that a refusal takes: a server near by, one far away


def grid():
    for per_minute, latency, concurrency, header, trip in itertools.product(
        (60, 500, 3000), (0.05, 1, 10), (1, 8, 32, 256), HEADERS, TRIPS
    ):
        if trip <= latency:
            rows = min(3000, max(100, 12 * concurrency, per_minute // 60 * 20))
            yield Case(per_minute, latency, concurrency, rows, header, trip=trip)
    for header in HEADERS:
        yield Case(500, 1, 32, 300, header)


# ------------------------------------------------------------------------------------------------------- simulated time


def test_near_the_ideal_time_over_the_grid():
    """A bucket of one second's worth: 60 to 3,000 requests a minute, 1 to 256 in flight, with and without a header."""
    wrong = []
    for case in grid():
        course = simulate(case)
        if course.seconds > SLOWER * case.ideal or course.refused > REFUSED * course.sent:
            wrong.append((case, course))
    assert not wrong, wrong


@pytest.mark.parametrize("seed", range(3))
def test_refusals_that_do_not_depend_on_the_pace_do_not_stop_it(seed):
    """A tenth is refused at random: sending less would not help, and would end in sending nothing."""
    case = Case(0, 0.1, 32, 2000, random=0.1)
    assert simulate(case, seed).seconds < 3 * case.ideal


def test_a_server_that_refuses_by_the_number_in_flight():
    case = Case(0, 1, 32, 300, at_once=4)
    course = simulate(case)
    assert course.seconds < 1.4 * case.rows / 4 and course.refused < REFUSED * course.sent


def test_the_bucket():
    limit = RateLimit(600, 2)
    assert [limit.take(now) for now in (0.0, 0.0)] == [0.0, 0.0]
    assert limit.take(0.0) == pytest.approx(0.1) and limit.take(0.05) == pytest.approx(0.05)
    assert limit.take(0.1) == 0.0 and limit.take(0.1) > 0
    assert [limit.take(9.0) for _ in range(3)] == [0.0, 0.0, pytest.approx(0.1)]  # no more than it holds
    assert limit.headers(0.12) == {"Retry-After": "1"}
    assert RateLimit(600, header="retry-after-ms").headers(0.12) == {"retry-after-ms": "120"}
    assert RateLimit(600, header="none").headers(0.12) == {}
    assert RateLimit().take(0.0) == 0.0
    for wrong in ({"requests_per_minute": -1}, {"bucket": "many"}, {"header": "x"}):
        with pytest.raises(UserError, match="expected"):
            RateLimit(**wrong)


# --------------------------------------------------------------------------------------------------------- real server


@pytest.mark.parametrize("header", HEADERS)
def test_no_row_fails_for_a_rate_limit(tmp_path, header):
    """1,200 requests a minute, 32 in flight, no retries allowed: refusals are no attempts of a row. How many there are
    depends on how busy this machine is, so that they are counted exactly in simulated time alone."""
    rows = 100
    with (
        oracle(requests_per_minute=1200, rate_header=header, latency=0.1) as url,
        Ledger(tmp_path / "ledger") as ledger,
    ):
        limits = RateLimits(max_retries=0)
        summary = ask(questions(rows), ledger, open_provider("openai", url), limits)
        seen = control(url, "counts")
    assert (summary.answered, summary.failed) == (rows, 0) == (seen["answered"], 0)
    assert summary.attempts == rows + summary.retries == seen["requests"]
    assert 0 < seen["faults"]["rate-limit"] <= 2 * REFUSED * seen["requests"]
    db = sqlite3.connect(tmp_path / "ledger")
    assert db.execute("SELECT count(*) FROM attempts WHERE billed").fetchone()[0] == rows


def test_the_rate_limit_is_switched_while_the_server_runs(tmp_path):
    with oracle() as url, Ledger(tmp_path / "ledger") as ledger:
        control(url, "faults", {"rate_limit": {"requests_per_minute": 600, "bucket": 3, "header": "none"}})
        ask(questions(12), ledger, open_provider("openai", url), RateLimits())
        assert control(url, "counts")["faults"]["rate-limit"] > 0
        control(url, "faults", {"rate_limit": {}})
        before = control(url, "counts")["requests"]
        ask(questions(40), ledger, open_provider("openai", url), RateLimits())
        assert control(url, "counts")["requests"] == before + 28


def test_one_request_that_is_told_to_wait_does_not_hold_the_others(start):  # noqa: F811
    """The row "late" is refused for two seconds; the others, behind it with one in flight at most, do not wait."""

    def answer(asked, number):
        if asked.content == "late" and number == 1:
            return error(429, headers={"Retry-After": "2"})
        return ok()

    with model_server(answer) as server:
        summary, _, _ = start(server, map(question, ["late", *range(30)]), concurrency=1)
        first, second = server.times("late")
        others = [asked.at for asked in server.asked if asked.content != "late"]
    assert summary.failed == 0 and second - first >= 2 and max(others) < second


def test_a_server_that_refuses_everything_ends_the_run_and_fails_no_row(start, tmp_path):  # noqa: F811
    with model_server(lambda asked, number: error(429, "slow down")) as server:
        began = time.monotonic()
        with pytest.raises(TryAgainError, match="has refused every request for .* run the same command again later"):
            start(server, map(question, range(100)), max_wait=1.0, concurrency=16)
        assert time.monotonic() - began >= 1.0
    with Ledger(tmp_path / "ledger") as ledger:
        report = ledger.report()
    assert report["planned"] == 100 and report["failed"] == report["possibly_billed"] == 0


def test_while_anything_is_answered_the_run_goes_on(start):  # noqa: F811
    """An answer every half second, and nothing but refusals between: beyond --max_wait in all, never at a stretch."""
    last = [0.0]

    def answer(asked, number):
        if asked.at - last[0] < 0.5:
            return error(429)
        last[0] = asked.at
        return ok()

    with model_server(answer) as server:
        summary, _, _ = start(server, map(question, range(6)), max_wait=2.0, max_retries=0, concurrency=6)
    assert (summary.answered, summary.failed) == (6, 0)


def test_the_number_in_flight_starts_small(start):  # noqa: F811
    """64 are allowed; far fewer have come when the first answer is made."""
    come = []

    async def answer(asked, number):
        await asyncio.sleep(0.15)
        come.append(len(server.asked))
        return ok()

    with model_server(answer) as server:
        start(server, map(question, range(64)), concurrency=64)
    assert come[0] <= 16
