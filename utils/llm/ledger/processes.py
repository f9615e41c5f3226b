"""The processes that work on a ledger. The rows that a dead one held are taken over."""

from __future__ import annotations

import contextlib
import os
import socket
import sqlite3
import time
from pathlib import Path

BEAT = 3.0  # seconds between signs of life
# Seconds without a sign of life after which a process of another machine (or container) counts as dead: ten missed
# beats, as a busy disk can delay a few.
LEASE = 30.0


def enter(db: sqlite3.Connection) -> int:
    """Enter this process into the ledger, and return its number."""
    row = (_machine(), os.getpid(), _started(os.getpid()), time.time())
    return db.execute("INSERT INTO processes(machine, pid, started, beat) VALUES (?, ?, ?, ?)", row).lastrowid


def beat(db: sqlite3.Connection, process: int) -> None:
    """Note that the process is alive. One that was taken for dead has lost the requests that it held."""
    db.execute("UPDATE processes SET beat = ? WHERE id = ?", (time.time(), process))


def leave(db: sqlite3.Connection, process: int) -> None:
    """Mark the process as gone."""
    db.execute("UPDATE processes SET beat = NULL WHERE id = ?", (process,))


def elsewhere(db: sqlite3.Connection) -> list[str]:
    """Return the names of the other machines whose processes live."""
    alive = "SELECT DISTINCT machine FROM processes WHERE machine <> ? AND beat > ?"
    names = []
    for (machine,) in db.execute(alive, (_machine(), time.time() - LEASE)):
        name, *_ = machine.split()
        names.append(name)
    return names


def mark_dead(db: sqlite3.Connection) -> list[int]:
    """Return the numbers of the processes that left or died, and mark those that died as gone."""
    alive = db.execute("SELECT id, machine, pid, started, beat FROM processes WHERE beat IS NOT NULL")
    for process, machine, pid, started, last_beat in alive.fetchall():
        if not _lives(machine, pid, started=started, beat=last_beat):
            leave(db, process)
    return [process for (process,) in db.execute("SELECT id FROM processes WHERE beat IS NULL")]


def _lives(machine: str, pid: int, started: str, beat: float) -> bool:
    """Return whether a process lives."""
    # On this machine the process table tells, at once and surely; elsewhere there are only the signs of life.
    if machine != _machine():
        return time.time() - beat < LEASE
    try:
        os.kill(pid, 0)  # signal 0 asks and does nothing
    except ProcessLookupError:
        return False
    except PermissionError:  # it lives, and belongs to another user
        pass
    # The system may have given the number to another process since.
    return _started(pid) == started


def _machine() -> str:
    """Return a name of this process's number space."""
    # Processes see each other by number only in one name space of one boot of one machine.
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):
        parts += [Path("/proc/sys/kernel/random/boot_id").read_text().strip(), os.readlink("/proc/self/ns/pid")]
    return " ".join(parts)


def _started(pid: int) -> str:
    """Return when a process started, in the system's ticks; empty where the system does not tell."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""
