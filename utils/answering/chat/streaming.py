"""An answer on the screen while the model writes it."""

from __future__ import annotations

import re
from collections.abc import Sequence

from utils.reporting import console
from utils.tokens.templates import Renderer

CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # a model must not steer the terminal


class AnswerStream:
    """The text that is on the screen. What may yet become a stop string, or is half a character, is held back."""

    def __init__(self, renderer: Renderer, stops: Sequence[str]) -> None:
        self.renderer, self.stops, self.text = renderer, stops, ""

    def add(self, tokens: list[int]) -> None:
        """Show what the answer's tokens so far add."""
        text = self.renderer.decode_answer(tokens)
        for stop in self.stops:
            text = text.partition(stop)[0]
        begun = max((n for stop in self.stops for n in range(1, len(stop)) if text.endswith(stop[:n])), default=0)
        self.show(text[: len(text) - begun].rstrip("\ufffd"))

    def show(self, text: str) -> None:
        """Show what `text`, the answer so far, adds."""
        if text.startswith(self.text):
            new = CONTROLS.sub("", text[len(self.text) :])
            console.out(new, end="", highlight=False)  # console.print would draw :smile: as a picture
            self.text = text
