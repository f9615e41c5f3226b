"""A conversation with a model in the terminal."""

from __future__ import annotations

import dataclasses
from typing import Any

from utils.decoding import Sampling
from utils.generation import check_positions, complete, generating
from utils.records import Answer, Message, Record
from utils.reporting import console, say
from utils.templates import Renderer

HELP = "/system TEXT tells the model what it is · /reset · /quit or Ctrl-D · Ctrl-C stops an answer"


def converse(reader: Any, how: Sampling, max_prompt_seq_len: int, system: str = "", judge: Any = None) -> None:
    """Talk until /quit. reader, judge: answering.Reader of a language model, and of a reward model or None."""
    say(f"{reader.name}\n{HELP}", style="dim")
    messages: list[Message] = []
    turn = 0
    while (said := _ask()) is not None:
        word, _, rest = said.strip().partition(" ")
        if word == "/quit":
            return
        if word in ("/reset", "/system"):
            messages, system = [], rest.strip() if word == "/system" else system
            say(f"a new conversation{f'; the model is told: {system}' if system else ''}", style="dim")
        elif word.startswith("/"):
            say(HELP, style="dim")
        elif word:
            turn += 1
            opening = [Message("system", system)] if system else []
            record = Record((*opening, *messages, Message("user", said)))
            answer = _answer(reader, record, dataclasses.replace(how, seed=how.seed + turn), max_prompt_seq_len)
            if judge:
                ((score,),) = judge.scores([dataclasses.replace(record, answers=(answer,))], 0)
                say(f"score {score:.3f}", style="magenta")
            messages += [record.prompt[-1], Message("assistant", answer.text)]


def _ask() -> str | None:
    """A line, or None at the end of input."""
    try:
        return console.input("[bold cyan]you ›[/] ")
    except EOFError:
        say("")
        return None


def _answer(reader: Any, record: Record, how: Sampling, max_prompt_seq_len: int) -> Answer:
    """The answer, shown as it comes. The oldest turns make room when the conversation grows too long."""
    prompt = reader.prompt(record, max_prompt_seq_len, "drop_turns")
    check_positions(reader.model, len(prompt), how.max_new_tokens)
    told = Told(reader.renderer, [*reader.renderer.stop_strings, *how.stop_strings])
    console.print("[bold green]model ›[/] ", end="")
    try:
        with generating(reader.model):
            ((completion,),) = complete(
                reader.model, reader.renderer, [prompt], how, [0], backend=reader.backend, stream=told.add
            )
        told.show(completion.text)
        return Answer(completion.text, finished=completion.finished)
    except KeyboardInterrupt:
        return Answer(told.text, finished=False)
    finally:
        console.print()


class Told:
    """The text on the screen. What may yet become a stop string, or half a character, is held back."""

    def __init__(self, renderer: Renderer, stops: list[str]) -> None:
        self.renderer, self.stops, self.text = renderer, stops, ""

    def add(self, tokens: list[int]) -> None:
        """All tokens so far."""
        text = self.renderer.decode_answer(tokens)
        for stop in self.stops:
            text = text.partition(stop)[0]
        begun = max((n for stop in self.stops for n in range(1, len(stop)) if text.endswith(stop[:n])), default=0)
        self.show(text[: len(text) - begun].rstrip("\ufffd"))

    def show(self, text: str) -> None:
        if text.startswith(self.text):
            console.print(text[len(self.text) :], end="", markup=False)
            self.text = text
