"""A program at a real pseudo-terminal: the test types keys and waits for what the screen shows."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import time

ENTER, ALT_ENTER, UP, CTRL_C, CTRL_D = "\r", "\x1b\r", "\x1b[A", "\x03", "\x04"
SECONDS = 120  # for one thing to appear; a busy machine takes a minute to import torch
CODES = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b[=>]")  # colours, cursor movements


class Terminal:
    """`words` run in a session of their own, whose controlling terminal this is. `screen` is all text so far."""

    def __init__(self, words: list[str], environment: dict[str, str], cwd: os.PathLike) -> None:
        self.screen, self.code = "", None
        self._bytes, self._seen = b"", 0
        self._pid, self._terminal = pty.fork()
        if not self._pid:
            os.chdir(cwd)
            os.execvpe(words[0], words, {**environment, "TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1"})

    def type(self, keys: str) -> None:
        os.write(self._terminal, keys.encode())

    def wait_for(self, pattern: str) -> re.Match:
        """Wait until the screen shows `pattern` after the last thing waited for."""
        deadline = time.monotonic() + SECONDS
        while not (found := re.search(pattern, self.screen[self._seen :], re.DOTALL)):
            assert time.monotonic() < deadline, f"no {pattern!r} in {self.screen[self._seen :]!r}"
            assert self._read(), f"the program ended without {pattern!r}: {self.screen!r}"
        self._seen += found.end()
        return found

    def end(self) -> int:
        """Wait for the program to end; its exit code."""
        while self._read():
            pass
        if self.code is None:
            self.code = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
            os.close(self._terminal)
        return self.code

    def _read(self) -> bool:
        """Read what there is, or wait a moment; False once the program has closed the terminal."""
        if self.code is not None:
            return False
        if select.select([self._terminal], [], [], 0.2)[0]:
            try:
                self._bytes += os.read(self._terminal, 65536)
            except OSError:  # Linux: the other side is closed
                return False
            self.screen = CODES.sub("", self._bytes.decode(errors="ignore")).replace("\r", "")
        return True

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        if self.code is None:
            os.kill(self._pid, signal.SIGKILL)
            self.end()
