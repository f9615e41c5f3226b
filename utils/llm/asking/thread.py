"""A run's event loop in a thread of its own, while the main thread waits for signals."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from utils.llm.asking.sender import Sender
from utils.reporting import warn

TERMINATED = 128 + signal.SIGTERM  # the exit code that a shell gives a program that SIGTERM ended


def run_in_thread(sender: Sender, total: int, sent: int) -> None:
    """Run until all is settled. Ctrl-C and SIGTERM end the run: what is in flight is awaited and stored.

    Raises KeyboardInterrupt after Ctrl-C, and SystemExit with code 143 after SIGTERM.
    """
    # A notebook's main thread has an event loop already, and signals reach the main thread alone.
    interrupted, terminated = False, threading.Event()

    def terminate() -> None:
        terminated.set()
        sender.interrupt()

    with ThreadPoolExecutor(1, "asking") as thread, _on_sigterm(terminate):
        running = thread.submit(asyncio.run, sender.run(total, sent))
        while not running.done():
            try:
                running.exception()
            except KeyboardInterrupt:
                interrupted = True
                sender.interrupt()
    running.result()
    if terminated.is_set():
        warn("terminated; run the same command again to continue")
        raise SystemExit(TERMINATED)
    if interrupted:
        raise KeyboardInterrupt


@contextmanager
def _on_sigterm(function: Callable[[], None]) -> Iterator[None]:
    """Call a function at SIGTERM, where the program does not handle it itself."""
    mine = threading.current_thread() is threading.main_thread()
    if not mine or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, lambda *_: function())
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
