"""Questions that a person types: edited at a terminal, or line by line from a pipe."""

from __future__ import annotations

import sys

from utils.errors import UserError
from utils.reporting import console, say

PROMPT = "you › "
KEYS = {
    "↑ ↓": "earlier questions",
    "Alt-Enter": "a new line in a question",
    "Ctrl-C": "stop an answer; clear what is typed; leave when nothing is",
    "Ctrl-D": "leave",
}


class EditedLines:
    """Questions typed at a terminal: arrow keys, history, several lines."""

    interactive = True

    def __init__(self) -> None:
        # Imported here, so that the modes that only read files start without it.
        from prompt_toolkit import PromptSession
        from prompt_toolkit.key_binding import KeyBindings

        keys = KeyBindings()
        keys.add("enter")(lambda press: press.current_buffer.validate_and_handle())
        # A terminal sends Alt-Enter as these two keys.
        keys.add("escape", "enter")(lambda press: press.current_buffer.insert_text("\n"))
        # Without a history file, because people type private things.
        self._session = PromptSession(
            [("bold ansicyan", PROMPT)], multiline=True, prompt_continuation=" " * len(PROMPT), key_bindings=keys
        )

    def read(self) -> str:
        """Return the next question; Ctrl-C clears a line that is begun, as in a shell.

        Raises EOFError at Ctrl-D, and KeyboardInterrupt at Ctrl-C when nothing is typed.
        """
        while True:
            try:
                return self._session.prompt()
            except KeyboardInterrupt:
                if not self._session.default_buffer.text:
                    raise


class PipedLines:
    """Questions from a pipe or a file, one a line."""

    interactive = False

    def read(self) -> str:
        """Return the next line. Raises EOFError at the end, UserError for bytes that are no text."""
        try:
            line = console.input(f"[bold cyan]{PROMPT}[/]")
        except UnicodeDecodeError as error:
            raise UserError(f"the input is not UTF-8 text: {error.reason}") from None
        except (EOFError, KeyboardInterrupt):
            console.print()
            raise
        if not sys.stdin.isatty():  # a terminal has shown what was typed
            say(line)
        return line


def open_lines() -> EditedLines | PipedLines:
    """Return edited lines at a terminal, else lines of a pipe."""
    # Editing needs a terminal on both sides.
    return EditedLines() if sys.stdin.isatty() and sys.stdout.isatty() else PipedLines()
