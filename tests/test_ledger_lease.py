"""A process that was taken for dead and comes back; places where SQLite's write-ahead log does not work."""

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import time

import pytest
from model_server import model_server, ok
from oracle import wait_for
from test_ledger import do, question, reply
from toys import ROOT

from utils.errors import UserError
from utils.llm.ledger import Ledger, place, processes, steps


@pytest.fixture
def ledger(tmp_path):
    with Ledger(tmp_path / "ledger") as opened:
        yield opened


def put_elsewhere(ledger, beat):
    """Make it a process of another machine, whose last sign of life is `beat`."""
    process = ledger.process
    with ledger.store.transaction() as db:
        db.execute("UPDATE processes SET machine = 'other host', beat = ? WHERE id = ?", (beat, process))


def test_a_process_that_plans_for_longer_than_its_lease_lives(ledger, monkeypatch):
    monkeypatch.setattr(processes, "LEASE", 0.5)
    monkeypatch.setattr(processes, "BEAT", 0.1)
    with Ledger(ledger.path) as slow:
        put_elsewhere(slow, time.time())

        def questions():
            yield question("a")
            time.sleep(1.5)
            yield question("b")

        slow.plan(questions())
        assert slow.process not in do(ledger, processes.mark_dead)


def test_what_was_taken_over_is_not_sent_and_comes_back_to_the_queue(ledger, monkeypatch):
    monkeypatch.setattr(processes, "BEAT", 3600.0)
    with Ledger(ledger.path) as slow:
        for each in (slow, ledger):
            each.plan(map(question, "ab"))
        claimed = do(slow, steps.claim, slow.process, 2)
        put_elsewhere(slow, time.time() - 2 * processes.LEASE)
        do(ledger, steps.take_over)
        (mine,) = do(ledger, steps.claim, ledger.process, 1)
        for request in claimed:
            assert do(slow, steps.send, slow.process, request.key, None, None) == steps.NOT_MINE
        assert do(ledger, steps.send, ledger.process, mine.key, None, None)
        # Its next claim enters it again: it gets a request that no process holds, and keeps it.
        (again,) = do(slow, steps.claim, slow.process, 2)
        assert again.key != mine.key and slow.process not in do(ledger, processes.mark_dead)
        do(ledger, steps.take_over)
        assert do(slow, steps.send, slow.process, again.key, None, None)
        assert ledger.report()["attempts"] == 2


def test_a_late_failure_does_not_free_what_another_process_has_in_flight(ledger):
    with Ledger(ledger.path) as slow, Ledger(ledger.path) as third:
        slow.plan([question("a")])
        (request,) = do(slow, steps.claim, slow.process, 1)
        late = do(slow, steps.send, slow.process, request.key, None, None)
        put_elsewhere(slow, time.time() - 2 * processes.LEASE)
        do(ledger, steps.take_over)
        ledger.plan([question("a")])
        do(ledger, steps.claim, ledger.process, 1)
        attempt = do(ledger, steps.send, ledger.process, request.key, None, None)
        do(slow, steps.end, late, "no answer", None, None, False)
        do(slow, steps.settle, request.key, "failed", "no answer", None)
        third.plan([question("a")])
        assert do(third, steps.claim, third.process, 1) == []
        do(ledger, steps.store, attempt, request.key, reply(), None)
        assert ledger.report()["answered"] == 1


STOPPED = """
import sys
from test_asking import question
from utils.llm.asking import RateLimits, ask
from utils.llm.ledger import Ledger, processes
from utils.llm.providers import open_provider
processes.LEASE, processes.BEAT = 0.6, 0.1
if sys.argv[3]:
    processes._machine = lambda: sys.argv[3]
with Ledger(sys.argv[1]) as ledger:
    ask(map(question, range(40)), ledger, open_provider("openai", sys.argv[2]), RateLimits(concurrency=4))
"""


def test_a_process_that_stops_for_a_while_pays_for_nothing_twice(tmp_path):
    """On another machine it counts as dead; what it had in flight is asked again, and nothing else is."""
    path = f"{ROOT}{os.pathsep}{ROOT / 'tests'}"
    environment = {**os.environ, "PYTHONPATH": path, "OPENAI_API_KEY": "k"}

    async def answer(asked, number):
        await asyncio.sleep(0.15)
        return ok()

    with model_server(answer) as server:
        command = [sys.executable, "-c", STOPPED, str(tmp_path / "ledger"), server.url]
        slow = subprocess.Popen([*command, "another machine"], env=environment)
        try:
            wait_for(lambda: len(server.asked) >= 8)
            os.kill(slow.pid, signal.SIGSTOP)
            stopped = len(server.asked)
            time.sleep(1.0)
            here = subprocess.Popen([*command, ""], env=environment)
            wait_for(lambda: len(server.asked) >= min(40, stopped + 8))
            os.kill(slow.pid, signal.SIGCONT)
            assert here.wait(60) == slow.wait(60) == 0
        finally:
            slow.kill()
            slow.wait()
    db = sqlite3.connect(tmp_path / "ledger")
    assert db.execute("SELECT count(*) FROM requests WHERE state = 'answered'").fetchone()[0] == 40
    shares = dict(db.execute("SELECT owner, count(*) FROM attempts GROUP BY owner").fetchall())
    assert len(shares) == 2 and shares[1] > stopped, shares
    contents = [asked.content for asked in server.asked]
    assert len(set(contents)) == 40 and len(contents) <= 40 + 4, contents


# ------------------------------------------------------------------------------------------------------ file systems

MOUNTS = r"""
/dev/vda / ext4 rw 0 0
server:/home /home nfs4 rw 0 0
tmpfs /home/me/local tmpfs rw 0 0
me@there: /mnt/far\040away fuse.sshfs rw 0 0
nothing
""".strip().removesuffix("\nnothing")


@pytest.mark.parametrize(
    "path, kind",
    [
        ("/data/ledger", None),
        ("/home/me/ledger", "nfs4"),
        ("/homeless/ledger", None),
        ("/home/me/local/ledger", None),
        ("/mnt/far away/ledger", "sshfs"),
    ],
)
def test_network_file_systems_are_known_by_their_mounts(path, kind, tmp_path):
    (tmp_path / "mounts").write_text(MOUNTS)
    assert place.network_type(type(tmp_path)(path), tmp_path / "mounts") == kind
    assert place.network_type(tmp_path, tmp_path / "none") is None


def test_a_ledger_on_a_network_file_system_serves_one_machine(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("utils.llm.ledger.network_type", lambda path: "nfs4")
    with Ledger(tmp_path / "ledger") as first:
        first.plan([question("a")])
        assert "is on a network file system (nfs4)" in capsys.readouterr().out
        with Ledger(tmp_path / "ledger") as same_machine:
            same_machine.plan([question("b")])
        put_elsewhere(first, time.time())
        with Ledger(tmp_path / "ledger") as second, pytest.raises(UserError, match=r"other works on it.*--ledger FILE"):
            second.plan([question("a")])


def test_a_place_without_a_write_ahead_log_is_refused(tmp_path, monkeypatch):
    """SQLite's own file layer without shared memory, as network file systems have none."""
    connect = sqlite3.connect

    def without_shared_memory(path, **how):
        return connect(f"file:{path}?vfs=unix-dotfile", uri=True, **how)

    monkeypatch.setattr(sqlite3, "connect", without_shared_memory)
    with pytest.raises(UserError, match=r"no write-ahead log there \(journal mode delete\).*--ledger FILE"):
        Ledger(tmp_path / "ledger")
