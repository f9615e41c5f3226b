"""What can be wrong with a ledger and with what asks through it: one line that begins with "error: ", exit code 2, no
traceback, nothing half-written."""

import json
import os
import resource
import signal
import sqlite3
import subprocess
import sys

import in_process
import pytest
from model_server import model_server, ok
from processes import environment
from test_asking import question
from toys import ROOT

from utils.errors import UserError
from utils.llm.asking import RateLimits, ask
from utils.llm.ledger import Ledger
from utils.llm.providers import open_provider

PROGRAM = ROOT / "data_collect/ledger.py"
WORKER = ROOT / "tests/asking_worker.py"


@pytest.fixture
def refuse(capsys):
    """The one line of a refused ledger.py."""

    def run(*words):
        code = in_process.run(PROGRAM, *words)
        return one_line(code, capsys.readouterr().err)

    return run


def one_line(code, stderr):
    assert code == 2, stderr
    errors = [line for line in stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and "Traceback" not in stderr, stderr
    return errors[0]


@pytest.fixture
def path(tmp_path):
    Ledger(tmp_path / "ledger").close()
    return tmp_path / "ledger"


def worker(path, url, count=20, **options):
    """(exit code, stderr) of a process that asks."""
    words = [sys.executable, WORKER, path, url, count, 8, path.with_name("out.jsonl")]
    paths = environment(PYTHONPATH=f"{ROOT}:{ROOT / 'tests'}", **options.pop("variables", {}))
    done = subprocess.run([*map(str, words)], env=paths, capture_output=True, text=True, timeout=120, **options)
    return done.returncode, done.stderr


def test_programs(refuse, path, tmp_path):
    assert "the mode is missing; expected one of report, list, reparse" in refuse()
    assert "mode repot: no such mode; expected one of report, list, reparse" in refuse("repot")
    assert "--ledger" in refuse("report")
    assert f"{tmp_path / 'none'}: no such ledger" in refuse("report", "--ledger", tmp_path / "none")
    assert "--state is 'lost'; expected one of planned" in refuse("list", "--ledger", path, "--state", "lost")
    assert "--state is used by list, not by report" in refuse("report", "--ledger", path, "--state", "failed")
    assert "cannot be written" in refuse("report", "--ledger", path, "--json", path / "report.json")
    assert "cannot be written" in refuse("list", "--ledger", path, "--json", "/proc/rows.jsonl")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["ledger"]


@pytest.mark.parametrize("mode", ["report", "list", "reparse"])
def test_files(refuse, path, tmp_path, mode):
    (tmp_path / "text").write_text("no database, but a text of some length\n" * 9)
    assert "not a ledger; give another file (file is not a database)" in refuse(mode, "--ledger", tmp_path / "text")
    with sqlite3.connect(tmp_path / "other") as db:
        db.execute("CREATE TABLE mine(a)")
    assert "a database, but no ledger" in refuse(mode, "--ledger", tmp_path / "other")
    assert "no such ledger" in refuse(mode, "--ledger", tmp_path)


def damaged(path):
    """A ledger with rows, and then with nonsense in the middle of the file."""
    with Ledger(path) as ledger:
        ledger.plan([question(f"{n} " + "x" * 500) for n in range(200)])
    content = bytearray(path.read_bytes())
    content[4096 : len(content) - 4096] = b"\xa5" * (len(content) - 8192)
    path.write_bytes(content)
    return path


def test_a_damaged_file(refuse, path):
    assert "the file is damaged; restore a copy" in refuse("report", "--ledger", damaged(path))
    with model_server() as server:
        assert "the file is damaged" in one_line(*worker(path, server.url))
    assert not path.with_name("out.jsonl").exists()


def test_another_program_holds_the_lock(refuse, path, monkeypatch):
    monkeypatch.setattr("utils.llm.ledger.store.BUSY", 0.2)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    line = refuse("report", "--ledger", path)
    assert "another program holds the ledger's lock; end that program, then run the same command again" in line
    other.execute("ROLLBACK")


def test_the_lock_is_lost_while_asking(path, monkeypatch):
    """What was stored before stays; the run ends with one line."""
    monkeypatch.setattr("utils.llm.ledger.store.BUSY", 0.3)
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=30)

    def answer(asked, number):
        if asked.content == "10":
            other.execute("BEGIN IMMEDIATE")
        return ok()

    with model_server(answer) as server, Ledger(path) as ledger:
        with pytest.raises(UserError, match="another program holds the ledger's lock"):
            ask(map(question, range(50)), ledger, open_provider("openai", server.url), RateLimits(concurrency=2))
        other.execute("ROLLBACK")
    with Ledger(path) as ledger:
        report = ledger.report()
    assert 8 <= report["answered"] <= 12 and report["possibly_billed"] >= 1


def test_no_space_left(path):
    with (
        Ledger(path) as ledger,
        pytest.raises(UserError, match="the disk is full; free some space.*answers so far are"),
    ):
        ledger.do([lambda db: db.execute("PRAGMA max_page_count = 30")])
        ledger.plan(question(f"{n} " + "x" * 2000) for n in range(500))


def test_a_full_disk(path):
    """The system may write no larger file; with room again the same command goes on."""
    full = {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))}
    with model_server() as server:
        line = one_line(*worker(path, server.url, 500, **full))
        assert "the disk cannot be written or read (is it full?); answers so far are kept" in line
        assert server.asked == [] and not path.with_name("out.jsonl").exists()
        assert worker(path, server.url, 30) == (0, "")
    rows = path.with_name("out.jsonl").read_text().splitlines()
    assert len(rows) == 30 and all(json.loads(row)["state"] == "parsed" for row in rows)


def test_a_disk_that_fills_up_while_answers_come_in(path):
    big = "Rating: 6\n\n" + "x" * 20_000
    limit = {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, 600_000))}
    with model_server(lambda asked, number: ok(big)) as server:
        line = one_line(*worker(path, server.url, 60, **limit))
        assert "the disk cannot be written or read (is it full?); answers so far are kept" in line
        before = len(server.asked)
        assert 0 < before < 60
        with Ledger(path) as ledger:
            stored = ledger.report()["answered"]
        assert stored > 0
        assert worker(path, server.url, 60)[0] == 0
        assert len(server.asked) == before + 60 - stored  # what was stored is not asked again


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_is_read_only(refuse, path):
    path.parent.chmod(0o500)
    path.chmod(0o400)
    assert "cannot be" in refuse("report", "--ledger", path)


def test_a_place_where_nothing_can_be_made():
    with pytest.raises(UserError, match="cannot be opened"):
        Ledger("/proc/ledger")


@pytest.mark.parametrize(
    "flags, words",
    [
        ({"concurrency": 0}, "--concurrency is 0; expected 1 or more"),
        ({"max_requests": 0}, "--max_requests is 0; expected 1 or more"),
        ({"max_usd": -1.0}, "--max_usd is -1.0; expected 0 or more"),
        ({"max_usd": float("nan")}, "--max_usd is nan; expected 0 or more"),
        ({"requests_per_minute": 0.0}, "--requests_per_minute is 0.0; expected above 0"),
        ({"tokens_per_minute": -5.0}, "--tokens_per_minute is -5.0; expected above 0"),
        ({"max_retries": -1}, "--max_retries is -1; expected 0 or more"),
        ({"timeout": 0.0}, "--timeout is 0.0; expected above 0"),
        ({"backoff": float("inf")}, "--backoff is inf; expected above 0"),
        ({"price": ["1,2", "3,4"]}, "--price gives the price of every model twice"),
        ({"price": ["m=1,2", "m=3,4"]}, "--price gives m twice"),
    ],
)
def test_limits(flags, words):
    with pytest.raises(UserError, match=words):
        RateLimits(**flags)


def test_ctrl_c_of_a_program(path):
    """Exit code 130; what was in flight is stored."""

    def answer(asked, number):
        if asked.body["user"] == "row 5":
            os.kill(started[0].pid, signal.SIGINT)
        return ok()

    started = []
    with model_server(answer) as server:
        words = [sys.executable, WORKER, path, server.url, 3000, 2, path.with_name("out.jsonl")]
        paths = environment(PYTHONPATH=f"{ROOT}:{ROOT / 'tests'}")
        started.append(subprocess.Popen([*map(str, words)], env=paths, stderr=subprocess.PIPE, text=True))
        told = started[0].communicate(timeout=60)[1]
        sent = len(server.asked)
    assert started[0].returncode == 130 and told == "interrupted; run the same command again to continue\n"
    with Ledger(path) as ledger:
        report = ledger.report()
    assert report["answered"] == sent < 3000 and report["possibly_billed"] == 0
    assert not path.with_name("out.jsonl").exists()
