"""What a request costs in a large ledger, counted in the instructions of SQLite's machine; ledgers of earlier code."""

import sqlite3
from functools import partial
from pathlib import Path
from statistics import median

import pytest
from large_ledger import MESSAGE, fill, question, save_answers, seconds_of

from utils.llm.asking import RateLimits, ask
from utils.llm.ledger import Ledger, Question, processes, steps
from utils.llm.providers import Request, open_provider
from utils.parsing import PARSERS

FORMAT_1 = Path(__file__).with_name("fixtures") / "ledger_format_1.sql"
STEP = 20  # instructions between two counts


@pytest.fixture
def quiet(monkeypatch):
    """No signs of life while instructions are counted."""
    monkeypatch.setattr(processes, "BEAT", 3600.0)


@pytest.fixture(scope="module")
def ledgers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ledgers")
    for rows in (1000, 20_000):
        fill(folder / str(rows), rows)
    save_answers(folder / "saved", 64)
    return folder


def instructions(ledger, work):
    """What `work` returned, and how many instructions SQLite needed for it."""
    counted = [0]

    def count():
        counted[0] += STEP

    with ledger.store.reading() as db:
        db.set_progress_handler(count, STEP)
    found = work()
    with ledger.store.reading() as db:
        db.set_progress_handler(None, 0)
    return found, counted[0]


def do(ledger, step, *values):
    return ledger.do([lambda db: step(db, *values)])[0]


@pytest.mark.parametrize("limits", [{}, {"price": ["1,2"], "max_usd": 5.0}, {"retry_unparsed": True}])
def test_a_run_costs_the_same_in_a_ledger_of_any_size(ledgers, quiet, limits, tmp_path):
    cost = {}
    for rows in (1000, 20_000):
        path = tmp_path / str(rows)
        path.write_bytes((ledgers / str(rows)).read_bytes())
        with Ledger(path) as ledger:
            ledger.process  # noqa: B018 (the process is entered before anything is counted)
            given = ledger, open_provider("replay", str(ledgers / "saved")), RateLimits(concurrency=64, **limits)
            summary, cost[rows] = instructions(ledger, partial(ask, map(question, range(64)), *given))
        assert summary.answered == 64
    assert cost[20_000] <= 1.3 * cost[1000], cost


def test_who_waits_for_another_process_looks_only_at_what_is_left(quiet, tmp_path):
    cost = {}
    for rows in (200, 2000):
        with Ledger(tmp_path / str(rows)) as mine, Ledger(tmp_path / str(rows)) as other:
            for ledger in (mine, other):
                ledger.plan(map(question, range(rows)))
            settled = []
            for request in do(other, steps.claim, other.process, rows)[5:]:
                settled.append(partial(steps.settle, key=request.key, state="refused", reason=None, reply=None))
            other.do(settled)
            assert do(mine, steps.claim, mine.process, 8) == []
            assert do(mine, steps.left) == (rows - 5, 5)
            found, claims = instructions(mine, lambda: do(mine, steps.claim, mine.process, 8))
            left, looks = instructions(mine, lambda: do(mine, steps.left))
            assert found == [] and left == (0, 5)
            cost[rows] = claims + looks
    assert cost[2000] <= 1.3 * cost[200], cost


def test_a_claim_does_not_meet_again_what_others_hold(quiet, tmp_path):
    with Ledger(tmp_path / "ledger") as mine, Ledger(tmp_path / "ledger") as other:
        for ledger in (mine, other):
            ledger.plan(map(question, range(2000)))
        do(other, steps.claim, other.process, 1000)
        costs = [instructions(mine, lambda: do(mine, steps.claim, mine.process, 8))[1] for _ in range(9)]
        assert max(costs[1:]) < costs[0] / 5, costs
        assert len(do(mine, steps.claim, mine.process, 3000)) == 1000 - 9 * 8


@pytest.mark.full
def test_64_instant_requests_beside_200000_answers(tmp_path):
    seconds = {2000: [], 200_000: []}
    for rows in seconds:
        fill(tmp_path / str(rows), rows)
    save_answers(tmp_path / "saved", 11 * 64)
    for turn in range(11):
        for rows, found in seconds.items():
            found.append(seconds_of(tmp_path / str(rows), tmp_path / "saved", 64 * turn, 64))
    assert median(seconds[200_000]) <= 1.3 * median(seconds[2000]), seconds


def test_a_ledger_of_earlier_code(tmp_path):
    """Written before the indexes: its answers are found, its failure and its plan are asked, and its budget stays."""
    path = tmp_path / "ledger"
    db = sqlite3.connect(path)
    db.executescript(FORMAT_1.read_text())
    db.close()

    def old(text):
        messages = [{"role": "user", "content": text}]
        body = {"max_tokens": 9, "messages": messages, "model": "m", "temperature": 0.0}
        return Question(Request("openai", body), "rating", {"low": 1, "high": 7})

    with Ledger(path) as ledger:
        assert ledger.outcome(old("parsed").request.key, "rating", {"low": 1, "high": 7}).value == 6
        unanswered = ledger.unanswered(map(old, ["parsed", "failed", "planned", "new"]))
        assert [each.request.body["messages"][0]["content"] for each in unanswered] == ["failed", "planned", "new"]
        ledger.plan(map(old, ["parsed", "unparsed", "failed", "planned"]))
        assert len(do(ledger, steps.claim, ledger.process, 9)) == 2
        ledger.parse_new(PARSERS)
        report = ledger.report()
        assert (report["answered"], report["unparsed"], report["possibly_billed"]) == (2, 1, 1)
        with ledger.store.reading() as db:
            assert db.execute("SELECT usd FROM budget").fetchone()[0] == pytest.approx(0.750016)
            names = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'index'")}
    assert {"attempts_owner", "attempts_unpriced", "attempts_unbounded"} <= names


def test_the_rows_are_as_large_as_they_say():
    assert 3000 <= len(MESSAGE) <= 3300
