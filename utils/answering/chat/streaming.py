"""An answer on the screen while the model writes it."""

from __future__ import annotations

import re
from collections.abc import Sequence

from utils.reporting import console
from utils.tokens.templates import Renderer

# Control characters are left out: a model must not move the cursor or change the colours of the terminal.
CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class AnswerStream:
    """An answer of which `text` is on the screen. The beginning of a stop string, or of a character, is held back."""

    def __init__(self, renderer: Renderer, stops: Sequence[str]) -> None:
        self.renderer, self.stops, self.text = renderer, stops, ""

    def add(self, tokens: list[int]) -> None:
        """Show what the answer's tokens so far add."""
        text = self.renderer.decode_answer(tokens)
        for stop in self.stops:
            text = text.partition(stop)[0]
        begun = 0
        for stop in self.stops:
            for length in range(1, len(stop)):
                if text.endswith(stop[:length]):
                    begun = max(begun, length)
        self.show(text[: len(text) - begun].rstrip("\ufffd"))

    def show(self, text: str) -> None:
        """Show what `text`, the answer so far, adds."""
        if text.startswith(self.text):
            new = CONTROLS.sub("", text[len(self.text) :])
            # Not console.print, which would show :smile: as a picture.
            console.out(new, end="", highlight=False)
            self.text = text
