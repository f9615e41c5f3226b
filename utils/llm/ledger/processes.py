"""Who works on a ledger, and whether they still live: rows that a dead process held are taken over."""

from __future__ import annotations

import contextlib
import os
import socket
import sqlite3
import time
from pathlib import Path

BEAT = 3.0  # seconds between signs of life
LEASE = 30.0  # seconds without one, after which a process of another machine (or container) counts as dead


def enter(db: sqlite3.Connection) -> int:
    """This process's number in the ledger."""
    row = (_machine(), os.getpid(), _started(os.getpid()), time.time())
    return db.execute("INSERT INTO processes(machine, pid, started, beat) VALUES (?, ?, ?, ?)", row).lastrowid


def beat(db: sqlite3.Connection, process: int) -> None:
    db.execute("UPDATE processes SET beat = ? WHERE id = ? AND beat IS NOT NULL", (time.time(), process))


def leave(db: sqlite3.Connection, process: int) -> None:
    db.execute("UPDATE processes SET beat = NULL WHERE id = ?", (process,))


def mark_dead(db: sqlite3.Connection) -> list[int]:
    """The processes that left or died; those that died are marked as gone."""
    alive = db.execute("SELECT id, machine, pid, started, beat FROM processes WHERE beat IS NOT NULL")
    for process, *signs in alive.fetchall():
        if not _lives(*signs):
            leave(db, process)
    return [row[0] for row in db.execute("SELECT id FROM processes WHERE beat IS NULL")]


def _lives(machine: str, pid: int, started: str, beat: float) -> bool:
    """Here the process table tells, at once and surely; elsewhere only the signs of life."""
    if machine != _machine():
        return time.time() - beat < LEASE
    try:
        os.kill(pid, 0)  # signal 0 asks and does nothing
    except ProcessLookupError:
        return False
    except PermissionError:  # it is somebody else's
        pass
    return _started(pid) == started  # another process may have got the number since


def _machine() -> str:
    """Processes see each other by number only in one name space of one boot of one machine."""
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):
        parts += [Path("/proc/sys/kernel/random/boot_id").read_text().strip(), os.readlink("/proc/self/ns/pid")]
    return " ".join(parts)


def _started(pid: int) -> str:
    """When a process started, in the system's ticks; empty where the system does not tell."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""
