"""The file: what is planned, claimed, sent and settled; dead processes; budgets; parsing again; numbers that add up."""

import json
import os
import sqlite3
import subprocess
import sys
import time

import pytest

from utils.errors import UserError
from utils.llm.ledger import Ledger, Outcome, Question, processes, report, steps
from utils.llm.providers import Price, Reply, request_of
from utils.parsing import PARSERS, Parser, Unparsed

SCALE = {"low": 1, "high": 7}


def question(text, model="m", parser="rating", args=SCALE):
    return Question(request_of("openai", model, [{"role": "user", "content": text}], max_tokens=9), parser, args)


def reply(text="Rating: 6", refused=False, tokens=(10, 3), raw='{"raw": 1}'):
    return Reply(text=text, finish_reason="stop", refused=refused, input_tokens=tokens[0], output_tokens=tokens[1],
                 request_id="req-1", raw=raw)  # fmt: skip


@pytest.fixture
def ledger(tmp_path):
    with Ledger(tmp_path / "deep" / "er" / "ledger") as opened:
        yield opened


def do(ledger, step, *values):
    return ledger.do([lambda db: step(db, *values)])[0]


def send(ledger, question, most_usd=None, max_usd=None):
    """Claim it, mark it as sent."""
    ledger.plan([question])
    claimed = do(ledger, steps.claim, ledger.process, 9)
    assert [request.key for request in claimed] == [question.request.key]
    return do(ledger, steps.send, ledger.process, question.request.key, most_usd, max_usd)


def settle(ledger, question, given, price=None, parsers=PARSERS):
    """The whole life of a question that is answered at once."""
    attempt = send(ledger, question)
    do(ledger, steps.store, attempt, question.request.key, given, price)
    ledger.parse_new(parsers)


def outcome(ledger, question):
    return ledger.outcome(question.request.key, question.parser, question.parser_args)


def scalar(ledger, sql):
    with ledger.store.reading() as db:
        return db.execute(sql).fetchone()[0]


def test_the_states_of_a_question(ledger):
    asked = question("a")
    assert outcome(ledger, asked) == Outcome("planned")
    ledger.plan([asked])
    assert outcome(ledger, asked).state == "planned"
    attempt = send(ledger, asked)
    assert outcome(ledger, asked).state == "sent"
    do(ledger, steps.store, attempt, asked.request.key, reply(), None)
    assert outcome(ledger, asked) == Outcome("planned", None, "Rating: 6", "stop")  # killed before it was parsed
    ledger.parse_new(PARSERS)
    assert outcome(ledger, asked) == Outcome("parsed", 6, "Rating: 6", "stop")


@pytest.mark.parametrize(
    "given, expected",
    [
        (reply("I cannot help."), Outcome("unparsed", None, "I cannot help.", "stop", "refusal")),
        (reply("Hm."), Outcome("unparsed", None, "Hm.", "stop", "no rating")),
        (reply("No.", refused=True), Outcome("refused", None, "No.", "stop", "the model or a filter declined")),
    ],
)  # fmt: skip
def test_ends_without_a_value(ledger, given, expected):
    settle(ledger, question("a"), given)
    assert outcome(ledger, question("a")) == expected


def test_values_come_back_as_they_were(ledger):
    values = [0, 1.5, None, "", "ü\x00\n", [], {"a": [1, None]}, False]
    for number, value in enumerate(values):
        asked = question(f"{number}", parser="p", args={"of": number})
        settle(ledger, asked, reply("x"), parsers={"p": Parser(1, lambda text, of: values[of])})
        found = outcome(ledger, asked)
        assert found.state == "parsed" and found.value == value and type(found.value) is type(value)


def test_raw_answers_are_kept_of_every_attempt(ledger):
    asked = question("a")
    attempt = send(ledger, asked)
    do(ledger, steps.end, attempt, "empty answer", reply("", raw="first"), None, False)
    assert outcome(ledger, asked).state == "planned"
    attempt = do(ledger, steps.send, ledger.process, asked.request.key, None, None)
    do(ledger, steps.store, attempt, asked.request.key, reply(raw="second"), None)
    with ledger.store.reading() as db:
        assert db.execute("SELECT raw, request_id FROM attempts").fetchall() == [
            ("first", "req-1"),
            ("second", "req-1"),
        ]


def test_the_file_is_written_as_designed(ledger):
    assert scalar(ledger, "PRAGMA journal_mode") == "wal"
    assert scalar(ledger, "PRAGMA synchronous") == 2  # FULL


# -------------------------------------------------------------------------------------------------- several processes


def test_a_request_is_claimed_once(ledger):
    with Ledger(ledger.path) as other:
        for each in (ledger, other):
            each.plan(map(question, "abcde"))
        mine = do(ledger, steps.claim, ledger.process, 3)
        theirs = do(other, steps.claim, other.process, 9)
        assert len(mine) == 3 and len(theirs) == 2
        assert len({request.key for request in mine + theirs}) == 5
        assert do(other, steps.claim, other.process, 9) == [] and do(other, steps.left) == (0, 3)


def test_the_queue_is_that_of_this_run_in_its_order(ledger):
    ledger.plan(map(question, "zyx"))
    with Ledger(ledger.path) as other:
        other.plan(map(question, "cxb"))
        contents = [r.body["messages"][0]["content"] for r in do(other, steps.claim, other.process, 9)]
    assert contents == ["c", "x", "b"]


@pytest.fixture
def process(ledger):
    """process(code) -> a Python process that runs `code` with `ledger` and `question`, and then sleeps."""
    started = []

    def start(code):
        text = (
            "import sys, time; from test_ledger import *\n"
            f"ledger = Ledger({str(ledger.path)!r})\n{code}\nprint('done', flush=True)\ntime.sleep(60)"
        )
        path = os.pathsep.join([os.environ.get("PYTHONPATH", ""), os.path.dirname(__file__)])
        started.append(subprocess.Popen(
            [sys.executable, "-c", text], stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": path}
        ))  # fmt: skip
        assert started[-1].stdout.readline() == "done\n"
        return started[-1]

    yield start
    for each in started:
        each.kill()
        each.communicate()


def test_what_a_dead_process_held_is_free_and_possibly_billed(ledger, process):
    other = process("ledger.plan(map(question, 'ab')); do(ledger, steps.claim, ledger.process, 9);"
                    "do(ledger, steps.send, ledger.process, question('a').request.key, 0.5, None)")  # fmt: skip
    ledger.plan(map(question, "ab"))
    do(ledger, steps.take_over)
    assert do(ledger, steps.claim, ledger.process, 9) == [] and ledger.report()["in_flight"] == 1  # it lives
    other.kill()
    other.wait()
    do(ledger, steps.take_over)
    report = ledger.report()
    assert (report["in_flight"], report["possibly_billed"], report["possibly_billed_usd"]) == (0, 1, 0.5)
    assert len(do(ledger, steps.claim, ledger.process, 9)) == 2


def test_another_process_with_the_same_number_is_not_the_same(ledger):
    mine = ledger.process
    with ledger.store.transaction() as db:
        number = processes.enter(db)
        db.execute("UPDATE processes SET started = '1' WHERE id = ?", (number,))  # as after a restart
        assert number in processes.mark_dead(db)
        assert mine not in processes.mark_dead(db)


def test_a_process_elsewhere_lives_as_long_as_it_gives_signs(ledger):
    with ledger.store.transaction() as db:
        number = processes.enter(db)
        db.execute("UPDATE processes SET machine = 'other', pid = 1 WHERE id = ?", (number,))
        assert number not in processes.mark_dead(db)
        db.execute("UPDATE processes SET beat = ? WHERE id = ?", (time.time() - processes.LEASE - 1, number))
        assert number in processes.mark_dead(db)


def test_the_first_answer_stands(ledger):
    """A process is taken for dead, another one asks and is answered, and then the first comes back."""
    asked = question("a")
    late = send(ledger, asked)
    do(ledger, steps.free, [ledger.process])
    with Ledger(ledger.path) as other:
        settle(other, asked, reply("Rating: 2"))
    for end in ((steps.store, late, asked.request.key, reply("Rating: 3"), None),
                (steps.end, late, "no answer", None, None, False),
                (steps.settle, asked.request.key, "failed", "no answer", None)):  # fmt: skip
        do(ledger, *end)
        assert outcome(ledger, asked).value == 2


def test_a_closed_ledger_leaves_nothing_held(ledger):
    with Ledger(ledger.path) as other:
        other.plan([question("a")])
        do(other, steps.claim, other.process, 9)
    ledger.plan([question("a")])
    do(ledger, steps.take_over)
    assert len(do(ledger, steps.claim, ledger.process, 9)) == 1


# ------------------------------------------------------------------------------------------------------------ budgets


def test_the_budget_holds_what_is_in_flight_at_its_worst(ledger):
    price = Price(1000, 2000)
    a, b, c = map(question, "abc")
    first = send(ledger, a, 0.6, 1.0)
    assert first and send(ledger, b, 0.5, 1.0) is None  # 1.1
    do(ledger, steps.store, first, a.request.key, reply(tokens=(100, 50)), price)  # 0.1 + 0.1
    do(ledger, steps.free, [ledger.process])
    second = send(ledger, b, 0.5, 1.0)
    assert second and scalar(ledger, "SELECT usd FROM budget") == pytest.approx(0.7)
    do(ledger, steps.end, second, "HTTP 500", None, price, True)  # free
    assert scalar(ledger, "SELECT usd FROM budget") == pytest.approx(0.2)
    third = send(ledger, c, 0.8, 1.0)
    do(ledger, steps.end, third, "no answer", None, price, False)  # possibly billed: stays at its worst
    assert scalar(ledger, "SELECT usd FROM budget") == pytest.approx(1.0)
    do(ledger, steps.count_budget)
    assert do(ledger, report.unbounded) == 0 and scalar(ledger, "SELECT usd FROM budget") == pytest.approx(1.0)


# ------------------------------------------------------------------------------------------------------ parsing again


def test_parsing_again(ledger):
    old = {"p": Parser(1, int)}

    def strict(text):
        if text == "2":
            raise Unparsed("even")
        return int(text) * 10

    new = {"p": Parser(2, strict)}
    for text in "123":
        settle(ledger, question(text, parser="p", args={}), reply(text), parsers=old)
    assert ledger.parse_new(old) == {}  # this version has read them
    counts = ledger.reparse(new)
    assert counts == {"read": 3, "parsed": 2, "unparsed": 1, "changed": 3}
    found = [outcome(ledger, question(text, parser="p", args={})) for text in "123"]
    assert [each.value for each in found] == [10, None, 30] and found[1].reason == "even"
    assert ledger.report()["parsers"]["p"] == {
        "versions": [2], "parsed": 2, "unparsed": 1, "unread": 0, "reasons": {"even": 1}
    }  # fmt: skip
    assert ledger.reparse(new)["changed"] == 0
    assert ledger.reparse({}) == {"parser unknown": 3}  # and what they were stays
    assert outcome(ledger, question("1", parser="p", args={})).value == 10


def test_only_what_a_run_wants_is_read_by_newer_parsers(ledger):
    for text in "12":
        settle(ledger, question(text, parser="p", args={}), reply(text), parsers={"p": Parser(1, int)})
    ledger.plan([question("1", parser="p", args={})])
    assert ledger.parse_new({"p": Parser(2, lambda text: -int(text))})["changed"] == 1
    assert [outcome(ledger, question(t, parser="p", args={})).value for t in "12"] == [-1, 2]


def test_more_answers_than_fit_in_memory_at_once(ledger, monkeypatch):
    monkeypatch.setattr("utils.llm.ledger.parsing.BATCH", 3)
    monkeypatch.setattr("utils.llm.ledger.CHUNK", 3)
    for number in range(10):
        settle(ledger, question(f"{number}"), reply("Rating: 2" if number % 2 else "?"))
    assert ledger.reparse(PARSERS) == {"read": 10, "parsed": 5, "unparsed": 5, "changed": 0}
    rows = list(ledger.rows("unparsed"))
    assert len(rows) == 5 == len({row["key"] for row in rows}) and {row["reason"] for row in rows} == {"no rating"}
    assert len(list(ledger.unanswered(map(question, "0123456789abcde")))) == 5


# ------------------------------------------------------------------------------------------------------------- report


def test_the_report_adds_up(ledger):
    """By hand: two models; 5 requests of one, 2 of the other."""
    price = Price(1, 2)
    settle(ledger, question("a"), reply(tokens=(1000, 100)), price)  # parsed, $0.0012
    settle(ledger, question("b"), reply("?", tokens=(2000, 300)), price)  # unparsed, $0.0026
    settle(ledger, question("c"), reply("No.", refused=True, tokens=(10, 5)), price)  # $0.00002
    failed = question("d")
    attempt = send(ledger, failed, 0.25)
    do(ledger, steps.end, attempt, "HTTP 500", None, price, True)
    attempt = do(ledger, steps.send, ledger.process, failed.request.key, 0.25, None)
    do(ledger, steps.end, attempt, "no answer within 9 s", None, price, False)
    do(ledger, steps.settle, failed.request.key, "failed", "no answer within 9 s", None)
    ledger.plan([question("e")])
    settle(ledger, question("a", "n"), reply(tokens=(None, None)), None)
    report = ledger.report()
    m, n = report["models"]["m"], report["models"]["n"]
    assert (m["requests"], m["answered"], m["refused"], m["failed"], m["planned"], m["sent"]) == (5, 2, 1, 1, 1, 0)
    assert (m["asked"], m["attempts"], m["retries"], m["possibly_billed"]) == (4, 5, 1, 1)
    assert (m["parsed"], m["unparsed"], m["input_tokens"], m["output_tokens"]) == (1, 1, 3010, 405)
    assert m["usd"] == pytest.approx(0.00382) and m["possibly_billed_usd"] == 0.25
    assert (n["requests"], n["answered"], n["usd"], n["without_tokens"]) == (1, 1, None, 1)
    assert (report["requests"], report["answered"], report["attempts"], report["usd"]) == (6, 3, 6, None)
    assert report["troubles"] == {"HTTP 500": 1, "no answer within 9 s": 1}
    assert report["parsers"] == {
        "rating": {"versions": [PARSERS["rating"].version], "parsed": 2, "unparsed": 1, "unread": 0,
                   "reasons": {"no rating": 1}}
    }  # fmt: skip
    json.dumps(report, allow_nan=False)


def test_rows_of_each_state(ledger):
    settle(ledger, question("a"), reply())
    settle(ledger, question("b"), reply("?"))
    settle(ledger, question("c"), reply("No.", refused=True))
    ledger.plan([question("d")])
    assert [(r["body"]["messages"][0]["content"], r["value"]) for r in ledger.rows("parsed")] == [("a", 6)]
    assert [(r["text"], r["reason"], r["parser_args"]) for r in ledger.rows("unparsed")] == [("?", "no rating", SCALE)]
    assert [r["text"] for r in ledger.rows("refused")] == ["No."]
    assert [r["body"]["messages"][0]["content"] for r in ledger.rows("planned")] == ["d"]
    assert not list(ledger.rows("failed")) + list(ledger.rows("sent")) + list(ledger.rows("unread"))


# ------------------------------------------------------------------------------------------------------------- opening


def test_an_empty_report(ledger):
    report = ledger.report()
    assert report["requests"] == report["attempts"] == 0 and report["usd"] == 0 and report["models"] == {}


@pytest.mark.parametrize("content", [b"hello, world" * 99, b"{}\n", bytes(range(256)) * 64])
def test_not_a_ledger(tmp_path, content):
    path = tmp_path / "ledger"
    path.write_bytes(content)
    with pytest.raises(UserError, match="not a ledger; give another file"):
        Ledger(path)
    assert path.read_bytes() == content


def test_another_database(tmp_path):
    with sqlite3.connect(tmp_path / "ledger") as db:
        db.execute("CREATE TABLE mine(a)")
    with pytest.raises(UserError, match="a database, but no ledger"):
        Ledger(tmp_path / "ledger")


def test_another_format(tmp_path):
    Ledger(tmp_path / "ledger").close()
    with sqlite3.connect(tmp_path / "ledger") as db:
        db.execute("PRAGMA user_version = 9")
    with pytest.raises(UserError, match="a ledger of format 9; this version reads format 1"):
        Ledger(tmp_path / "ledger")


def test_places_that_cannot_be(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="found a folder; expected a ledger file"):
        Ledger(tmp_path)
    with pytest.raises(UserError, match="cannot be opened"):
        Ledger(tmp_path / "file" / "ledger")
    with pytest.raises(UserError, match="no such ledger"):
        Ledger(tmp_path / "none", create=False)
    assert not (tmp_path / "none").exists()


def test_two_processes_may_make_it_at_once(tmp_path):
    code = f"from utils.llm.ledger import Ledger; Ledger({str(tmp_path / 'ledger')!r}).close()"
    started = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(4)]
    assert [each.wait() for each in started] == [0] * 4
