"""What ends a run of asking: limits of number, money and speed, errors that concern everybody, Ctrl-C."""

import asyncio
import os
import signal
import sqlite3
import time

import pytest
from model_server import error, model_server, ok
from test_asking import KEY, question, start  # noqa: F401 (start is a fixture)

from utils.errors import UserError
from utils.llm.asking import RateLimits, ask
from utils.llm.ledger import Ledger
from utils.llm.providers import open_provider


def after(seconds):
    async def answer(asked, number):
        await asyncio.sleep(seconds)
        return ok()

    return answer


# ---------------------------------------------------------------------------------------- errors that concern everybody


@pytest.mark.parametrize(
    "status, code, words",
    [
        (401, None, "rejects the key, set OPENAI_API_KEY to a valid one"),
        (403, None, "rejects the key"),
        (404, "model_not_found", "does not know the model or the address"),
        (402, None, "no credit left"),
        (429, "insufficient_quota", "no credit left"),
    ],
)
def test_it_stops_at_once(start, status, code, words):  # noqa: F811
    with model_server(lambda asked, number: error(status, f"no {KEY}", code)) as server:
        with pytest.raises(UserError, match=words) as told:
            start(server, map(question, range(200)), concurrency=4)
        assert len(server.asked) <= 4 and KEY not in str(told.value)


def test_what_is_in_flight_is_kept_when_another_request_is_rejected(start, tmp_path):  # noqa: F811
    async def answer(asked, number):
        if asked.content == "3":
            return error(401)
        await asyncio.sleep(0.3)
        return ok()

    with model_server(answer) as server:
        with pytest.raises(UserError, match="rejects the key"):
            start(server, map(question, range(100)), concurrency=8)
        sent = len(server.asked)
    with Ledger(tmp_path / "ledger") as ledger:
        report = ledger.report()
    assert report["answered"] == sent - 1 <= 8 and report["planned"] == 101 - sent and report["possibly_billed"] == 0


def test_other_4xx_fail_their_row_alone(start):  # noqa: F811
    answer = lambda asked, number: error(400, "too long") if asked.content == "long" else ok()  # noqa: E731
    with model_server(answer) as server:
        summary, outcomes, report = start(server, map(question, ["a", "long", "b"]))
        assert len(server.asked) == 3
    assert [outcome.state for outcome in outcomes] == ["parsed", "failed", "parsed"]
    assert outcomes[1].reason == "HTTP 400: too long" and report["possibly_billed"] == 0


def test_refusals_are_outcomes(start):  # noqa: F811
    answers = {
        "field": lambda: ok(None, refusal="I will not."),
        "filter": lambda: ok("", finish="content_filter"),
        "status": lambda: error(400, "filtered", "content_filter"),
        "fine": ok,
    }
    with model_server(lambda asked, number: answers[asked.content]()) as server:
        for _ in range(2):
            _, outcomes, report = start(server, map(question, answers))
        assert len(server.asked) == 4
    assert [outcome.state for outcome in outcomes] == ["refused", "refused", "refused", "parsed"]
    assert outcomes[0].text == "I will not." and report["refused"] == 3 and report["retries"] == 0


def test_an_answer_cut_before_its_first_word_is_paid_for_and_kept(start):  # noqa: F811
    with model_server(lambda asked, number: ok("", finish="length")) as server:
        for _ in range(2):
            summary, (outcome,), report = start(server, [question()])
        assert len(server.asked) == 1
    assert (outcome.state, outcome.finish_reason, report["unparsed"]) == ("unparsed", "length", 1)


def test_requests_that_all_fail_end_the_run(start):  # noqa: F811
    with model_server(lambda asked, number: error(400, "no such field")) as server:
        with pytest.raises(UserError, match="the last 50 requests all failed; the last one: HTTP 400: no such field"):
            start(server, map(question, range(300)), concurrency=4)
        assert len(server.asked) <= 54


def test_nobody_listens(start, tmp_path):  # noqa: F811
    with model_server() as server:
        pass
    with pytest.raises(UserError, match="cannot connect to http://127.0.0.1:.*does the server run"):
        start(server, map(question, range(20)))
    with Ledger(tmp_path / "ledger") as ledger:
        report = ledger.report()
    assert report["planned"] == 20 and report["possibly_billed"] == 0


# --------------------------------------------------------------------------------------------------------------- limits


def test_max_requests_counts_retries_and_the_rest_stays_planned(start):  # noqa: F811
    with model_server(lambda asked, number: ok() if number > 1 else error(500)) as server:
        summary, _, report = start(server, map(question, range(30)), max_requests=10, concurrency=3)
        assert len(server.asked) == 10
        assert summary.stopped == "--max_requests" and summary.left == report["planned"] == 30 - summary.answered
        summary, _, report = start(server, map(question, range(30)))
        assert summary.stopped is None and report["answered"] == 30


@pytest.mark.parametrize("concurrency", [1, 8])
def test_max_usd_is_never_exceeded(start, concurrency):  # noqa: F811
    """Each answer costs $0.013, and counts as at most body + 20 tokens: about $0.12 + 0.02."""
    with model_server(after(0.01)) as server:
        summary, _, report = start(
            server, map(question, range(100)), max_usd=0.5, price=["1000,1000"], concurrency=concurrency
        )
        worst = (question("99").request.most_input_tokens + 20) / 1000
        assert len(server.asked) == report["answered"] and summary.stopped == "--max_usd"
        assert 0.5 - worst < report["usd"] <= 0.5 and report["usd"] == pytest.approx(0.013 * len(server.asked))
        again, _, later = start(server, map(question, range(100)), max_usd=0.5, price=["1000,1000"])
        assert again.answered == 0 and later["usd"] == report["usd"]  # the money of all runs counts


def test_what_was_possibly_billed_counts_at_its_worst(start):  # noqa: F811
    answer = after(3)
    with model_server(answer) as server:
        worst = (question("0").request.most_input_tokens + 20) / 1000
        summary, _, report = start(
            server, map(question, range(9)), timeout=0.1, max_retries=0, max_usd=3.5 * worst, price=["1000,1000"]
        )
        assert len(server.asked) == 3 == report["possibly_billed"] and summary.stopped == "--max_usd"
    assert report["possibly_billed_usd"] == pytest.approx(3 * worst) and report["usd"] == 0


def test_money_is_never_a_guess(start):  # noqa: F811
    with model_server() as server:
        assert start(server, [question("a")])[2]["usd"] is None
        with pytest.raises(UserError, match="--max_usd: the price of m at http.* is not known; give --price IN,OUT"):
            start(server, [question("b")], max_usd=1)
        with pytest.raises(UserError, match="--max_usd needs --max_tokens"):
            start(server, [question("b", max_tokens=None)], max_usd=1, price=["2,4"])
        _, _, report = start(server, [question("b")], max_usd=1, price=["2,4"])
    assert report["usd"] == pytest.approx(2 * (10 * 2 + 3 * 4) / 1e6)  # the earlier answer has a price now, too


def test_answers_without_usage_have_no_price(start):  # noqa: F811
    with model_server(lambda asked, number: ok(usage=None)) as server:
        summary, (outcome,), report = start(server, [question()], price=["1,1"], max_usd=1)
    assert outcome.value == 6 and summary.usd is report["usd"] is None and report["without_tokens"] == 1


def test_requests_per_minute(start):  # noqa: F811
    with model_server() as server:
        start(server, map(question, range(11)), requests_per_minute=600, concurrency=8)
        times = sorted(asked.at for asked in server.asked)
    assert times[-1] - times[0] >= 0.95  # ten spaces of 0.1 s


def test_tokens_per_minute(start):  # noqa: F811
    """Answers report 1,000 tokens each: at 60,000 a minute one a second, whatever was reckoned before."""
    with model_server(lambda asked, number: ok(usage=(900, 100))) as server:
        start(server, map(question, range(4)), tokens_per_minute=120_000, concurrency=1)
        times = sorted(asked.at for asked in server.asked)
    assert times[-1] - times[0] >= 3 * 0.5 * 0.9


def test_dry_run(start, tmp_path, capsys):  # noqa: F811
    with model_server() as server:
        start(server, [question("a")])
        summary, _, report = start(server, map(question, "abc"), dry_run=True, price=["2,10"])
        assert len(server.asked) == 1
        size = question("b").request.most_input_tokens
        assert summary.requests == 2 and summary.usd == pytest.approx(2 * (size * 2 + 20 * 10) / 1e6)
        assert (
            f"dry run: 2 requests, at most {2 * size} tokens in and at most 40 out; at most $"
            in capsys.readouterr().out
        )
        assert report["requests"] == 1  # it leaves no trace
        assert start(server, [question("b")], dry_run=True)[0].usd is None


def test_concurrency(start):  # noqa: F811
    now, most = [0], [0]

    async def answer(asked, number):
        now[0] += 1
        most[0] = max(most[0], now[0])
        await asyncio.sleep(0.05)
        now[0] -= 1
        return ok()

    with model_server(answer) as server:
        start(server, map(question, range(30)), concurrency=5)
    assert most[0] == 5


# --------------------------------------------------------------------------------------------------------------- Ctrl-C


def interrupting(count, answer):
    """`answer`, with Ctrl-C for this process when `count` requests have come."""
    seen = []

    def answered(asked, number):
        seen.append(asked)
        if len(seen) == count:
            os.kill(os.getpid(), signal.SIGINT)
        return answer(asked, number)

    return answered


def test_ctrl_c_waits_for_what_is_in_flight(start, tmp_path):  # noqa: F811
    with model_server(interrupting(6, after(1.0))) as server:
        with pytest.raises(KeyboardInterrupt):
            start(server, map(question, range(40)), concurrency=4)
        sent = len(server.asked)
        with Ledger(tmp_path / "ledger") as ledger:
            report = ledger.report()
        assert 6 <= sent <= 8 and report["answered"] == report["parsed"] == sent
        assert report["planned"] == 40 - sent and report["sent"] == report["possibly_billed"] == 0
        start(server, map(question, range(40)), concurrency=40)
        assert len(server.asked) == 40


def test_ctrl_c_does_not_wait_for_ever(start, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setattr("utils.llm.asking.run.GRACE", 0.3)
    with model_server(interrupting(4, after(60))) as server:
        began = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            start(server, map(question, range(40)), concurrency=4, timeout=60)
        assert time.monotonic() - began < 10
    with Ledger(tmp_path / "ledger") as ledger:
        report = ledger.report()
    assert report["planned"] == 40 and report["possibly_billed"] == len(server.asked) == 4


def test_ctrl_c_while_waiting_to_try_again(start):  # noqa: F811
    with model_server(interrupting(1, lambda asked, number: error(500))) as server:
        began = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            start(server, [question()], backoff=50)
        assert time.monotonic() - began < 10


# ------------------------------------------------------------------------------------------------------- keys, proxies


def test_the_key_reaches_no_file_and_no_output(start, tmp_path, capfd):  # noqa: F811
    """Not even where the server sends it back."""
    answers = [lambda: ok(f"Rating: 6 {KEY}"), lambda: error(500, KEY), lambda: error(400, f"bad {KEY}")]
    with model_server(lambda asked, number: answers[int(asked.content) % 3]()) as server:
        start(server, map(question, range(9)), max_retries=1)
    refuse = model_server(lambda asked, number: error(401, f"Incorrect API key provided: {KEY}"))
    with refuse as server, pytest.raises(UserError) as told:
        start(server, [question("10")])
    assert KEY not in "".join(capfd.readouterr()) + str(told.value)
    files = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert files and not any(KEY.encode() in content for content in files)
    rows = sqlite3.connect(tmp_path / "ledger").execute("SELECT text FROM requests WHERE text IS NOT NULL").fetchall()
    assert rows[0][0] == "Rating: 6 [key]"


def test_a_server_on_this_machine_is_reached_past_any_proxy(start, monkeypatch):  # noqa: F811
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with model_server() as server:
        assert start(server, [question()])[1][0].value == 6


def test_inside_an_event_loop_as_in_a_notebook(tmp_path):
    async def cell():
        with model_server() as server, Ledger(tmp_path / "ledger") as ledger:
            return ask([question()], ledger, open_provider("openai", server.url), RateLimits())

    assert asyncio.run(cell()).answered == 1
