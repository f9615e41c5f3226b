"""Money for nothing: answers in a row without a value, time-outs that may have been billed; how a run ends then."""

import asyncio
import os
import signal

import pytest
from model_server import error, model_server, ok
from oracle import oracle
from requesting import exchanges, lines, record, request
from test_asking import question, start  # noqa: F401 (start is a fixture)

from utils.errors import UserError
from utils.llm.ledger import Ledger
from utils.records.files import write_jsonl


def test_answers_that_are_all_cut_stop_the_run(start):  # noqa: F811
    """A model that thinks until its tokens are spent, and says nothing."""
    with model_server(lambda asked, number: ok("", finish="length")) as server:
        told = (
            "the last 20 answers hold no value: 20 were cut .*, 20 are empty; raise --max_tokens .*--reasoning_effort"
        )
        with pytest.raises(UserError, match=told):
            start(server, map(question, range(160)), concurrency=4)
        assert len(server.asked) <= 20 + 4
        assert start(server, map(question, range(160)), max_unparsed=0)[0].left == 0


def test_answers_that_cannot_be_read_stop_the_run_wherever_it_is(start):  # noqa: F811
    with model_server(lambda asked, number: ok("Rating: 6" if int(asked.content) < 30 else "Hm.")) as server:
        with pytest.raises(UserError, match="the last 5 answers hold no value: 0 were cut .*--state unparsed"):
            start(server, map(question, range(160)), concurrency=1, max_unparsed=5)
        assert len(server.asked) == 35


def test_a_value_between_them_lets_the_run_go_on(start):  # noqa: F811
    with model_server(lambda asked, number: ok("Hm." if int(asked.content) % 4 else "Rating: 6")) as server:
        summary, _, _ = start(server, map(question, range(40)), concurrency=1, max_unparsed=4)
    assert (summary.answered, summary.unparsed) == (40, 30)


def test_time_outs_are_tried_twice_more(start):  # noqa: F811
    async def answer(asked, number):
        await asyncio.sleep(10)
        return ok()

    with model_server(answer) as server:
        summary, (outcome,), report = start(server, [question()], timeout=0.2, max_retries=6)
        assert len(server.asked) == 3
    assert outcome.state == "failed" and summary.failed == 1 and report["possibly_billed"] == 3


def test_gateways_that_gave_up_waiting_count_as_time_outs(start):  # noqa: F811
    with model_server(lambda asked, number: error(504)) as server:
        _, (outcome,), _ = start(server, [question()], max_retries=6)
        assert len(server.asked) == 3 and outcome.state == "failed"


def test_sigterm_keeps_what_is_in_flight_and_ends_with_143(start, tmp_path):  # noqa: F811
    async def answer(asked, number):
        if asked.content == "3":
            os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.sleep(0.5)
        return ok()

    with model_server(answer) as server:
        with pytest.raises(SystemExit) as ended:
            start(server, map(question, range(40)), concurrency=4)
        assert ended.value.code == 143 and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        sent = len(server.asked)
    with Ledger(tmp_path / "ledger") as ledger:
        report = ledger.report()
    assert report["answered"] == sent < 40 and report["possibly_billed"] == 0


@pytest.fixture
def asked(tmp_path):
    """(the words of a command that asks for ratings of 12 answers, the file that it writes)"""
    write_jsonl(tmp_path / "rows.jsonl", (record(item, number) for number, item in enumerate(exchanges(4))))
    words = ("--kind", "rating", "--input_files", tmp_path / "rows.jsonl", "--output_file", tmp_path / "out.jsonl")
    return words, tmp_path / "out.jsonl"


def test_failed_questions_end_with_3_a_last_line_and_their_reasons_in_the_rows(asked, capsys):
    words, output = asked
    with oracle(faults="500=0.5", seed=3) as url:
        assert request(url, *words, "--max_retries", "0") == 3
    last = capsys.readouterr().out.splitlines()[-1]
    failed = sum(len(row.get("meta", {}).get("unanswered", [])) for row in lines(output))
    assert (
        last == f"exit code 3: {failed} of 12 questions failed; run the same command again to ask them" and failed > 0
    )
    assert all("HTTP 500" in reason for row in lines(output) for reason in row.get("meta", {}).get("unanswered", []))
    with oracle() as url:
        assert request(url, *words) == 0
    assert not any("unanswered" in row.get("meta", {}) for row in lines(output))
    assert "exit code" not in capsys.readouterr().out


def test_a_cap_ends_with_4_and_a_last_line(asked, capsys):
    words, output = asked
    with oracle() as url:
        assert request(url, *words, "--max_requests", "5") == 4
    last = capsys.readouterr().out.splitlines()[-1]
    told = "exit code 4: --max_requests left 7 questions without an answer; raise it and run the same command again"
    assert last == told and sum(len(row.get("meta", {}).get("unanswered", [])) for row in lines(output)) == 7


def test_a_rate_limit_that_lasts_ends_with_3(asked, capsys):
    words, output = asked
    with oracle(faults="429=1") as url:
        assert request(url, *words, "--max_wait", "0.5") == 3
    assert "has refused every request for" in capsys.readouterr().err and not output.exists()
