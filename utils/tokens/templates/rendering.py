"""From messages to token ids, in one way for training, chat, perplexity and reward.

A conversation becomes text through one chat template (the tokenizer's, or one of TEMPLATES), and that text becomes ids
once, without further special tokens: whatever the template writes is there exactly once.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from utils.errors import UserError
from utils.records import Answer, Message, Record, RecordError
from utils.tokens.group import Group, group
from utils.tokens.templates.encoding import Encoder
from utils.tokens.templates.wording import BOS, TEMPLATES, Template

QUESTION, ANSWER = "Qprobe7", "Aprobe7"  # words that no template contains
NAMES = ", ".join(TEMPLATES)


@dataclass(frozen=True)
class Rendered:
    """A record as text. `answers` end with the text of their stop token; `turns` are the (start, end) characters of
    earlier answers in the prompt that are trained; `pairs` count in `answers`."""

    prompt: str
    answers: tuple[str, ...]
    pairs: tuple[tuple[int, int], ...] = ()
    turns: tuple[tuple[int, int], ...] = ()
    where: str = ""


class Renderer:
    """One tokenizer and one template. `template` is a name of TEMPLATES; None takes the tokenizer's own.

    chat_template: the template's text, to be saved with the tokenizer. stop_token_ids: tokens that end an answer, the
    template's own first. stop_strings: texts that do. header: tokens at a prompt's end that open the answer.

    Raises UserError: unknown template, no chat template, no end token, or a template whose text of question and answer
    does not begin with the text of the question.
    """

    def __init__(self, tokenizer: Any, template: str | None = None) -> None:
        self.tokenizer, self.encoder = tokenizer, Encoder(tokenizer)
        self.name = f"template {template}" if template else f"the chat template of {self.encoder.name}"
        if tokenizer.eos_token is None:
            raise UserError(
                f"{self.encoder.name}: the tokenizer has no end token, so no answer could ever stop; "
                "name its eos_token in tokenizer_config.json"
            )
        self.chat_template, self.stop_strings = _choose(tokenizer, template, self.encoder.name)
        self._probe()

    def _probe(self) -> None:
        """Learn from one short exchange what stands before and after an answer, and which token ends it."""
        prompt = self._render([Message("user", QUESTION)], opening=True)
        full = self._render([Message("user", QUESTION), Message("assistant", ANSWER)])
        if QUESTION not in prompt or ANSWER not in full or not full.startswith(prompt):
            raise UserError(f"{self.name}: its text of question and answer does not begin with the question's text; "
                            f"give --template, one of {NAMES}")  # fmt: skip
        self._lead, _, self._tail = full[len(prompt) :].rpartition(ANSWER)
        self.header = len(self.encoder.ids([prompt.rpartition(QUESTION)[2]])[0])
        tokens = {str(token) for token in self.tokenizer.added_tokens_decoder.values()} | {self.tokenizer.eos_token}
        found = [(self._tail.index(token), -len(token), token) for token in tokens if token in self._tail]
        self._stop = min(found)[2] if found else self.tokenizer.eos_token
        # A template that writes no end token gets the tokenizer's; what follows the end token is no part of the answer.
        self._closing = self._tail.partition(self._stop)[0] if found else ""
        self._written = self._closing + self._stop if found else ""
        stop_id = self.tokenizer.convert_tokens_to_ids(self._stop)
        if self.encoder.ids([ANSWER + self._closing + self._stop])[0][-1] != stop_id:
            raise UserError(f"{self.encoder.name}: the tokenizer splits its end token {self._stop!r} into pieces")
        self.stop_token_ids = list(dict.fromkeys([stop_id, self.tokenizer.eos_token_id]))

    @cached_property
    def fingerprint(self) -> str:
        """Of all that decides the ids: the tokenizer's content, the template's text, this package's code."""
        digest = hashlib.blake2b(f"{self.encoder.content}\0{self.chat_template}".encode(), digest_size=16)
        for path in sorted(Path(__file__).parent.glob("*.py")):
            digest.update(path.read_bytes())
        return digest.hexdigest()

    def render(self, record: Record, answers: Sequence[int], pairs=(), train_on: str = "last") -> Rendered:
        """The record's `answers` (indices) as text; `pairs` are (winner, loser) as Record.pairs() gives them.
        Raises RecordError."""
        at = record.where or f"record {record.id}"
        prompt = self._render(record.prompt, opening=True, at=at)
        place = {k: n for n, k in enumerate(answers)}
        return Rendered(
            prompt,
            tuple(self._answer(record.prompt, prompt, record.answers[k], at) for k in answers),
            tuple((place[winner], place[loser]) for winner, loser in pairs),
            tuple(self._earlier_answers(record.prompt, prompt, at)) if train_on == "all" else (),
            at,
        )

    def encode(self, rendered: Sequence[Rendered]) -> tuple[list[Group], list[int]]:
        """(groups, how many answers of each were tokenised apart from their prompt). Faster for many at once."""
        prompts, offsets = [r.prompt for r in rendered], [()] * len(rendered)
        if any(r.turns for r in rendered):
            prompts, offsets = self.encoder.ids_and_offsets(prompts)
        else:
            prompts = self.encoder.ids(prompts)
        wholes = iter(self.encoder.ids([r.prompt + answer for r in rendered for answer in r.answers]))
        groups, apart = [], []
        for r, prompt, spans in zip(rendered, prompts, offsets, strict=True):
            answers, straddling = [], 0
            for text in r.answers:
                whole = next(wholes)
                ids = whole[len(prompt) :]
                if whole[: len(prompt)] != prompt:  # the answer's first characters merged with the prompt's last
                    straddling += 1
                    ids = self.encoder.ids_after(prompt, whole, text)
                if ids is None:
                    raise RecordError(f"{r.where}: no token boundary between prompt and answer {text[:40]!r}")
                answers.append(ids)
            groups.append(group(prompt, answers, r.pairs, _inside(spans, r.turns) if r.turns else None))
            apart.append(straddling)
        return groups, apart

    def group(self, record: Record, answers: Sequence[int], pairs=(), train_on: str = "last") -> Group:
        """The record's `answers` as tokens, nothing cut; arguments and errors as in render()."""
        return self.encode([self.render(record, answers, pairs, train_on)])[0][0]

    def prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        """What the model reads before it answers."""
        return self.encoder.ids([self._render(messages, opening=True)])[0]

    def answer_ids(self, messages: Sequence[Message], text: str, finished: bool = True) -> list[int]:
        """The answer's tokens, its stop token last unless `finished` is False."""
        record = Record(tuple(messages), (Answer(text, finished=finished),))
        return self.group(record, [0]).answers[0].tolist()

    def decode_answer(self, ids: Sequence[int]) -> str:
        """The answer's text: up to the first stop token or stop string, without the template's own words."""
        ids = [int(i) for i in ids]
        stops = [n for n, i in enumerate(ids) if i in self.stop_token_ids]
        text = self.encoder.text_after(self.encoder.ids(["a"])[0], ids[: stops[0]] if stops else ids)
        for stop in self.stop_strings:
            text = text.partition(stop)[0]
        text = text.removeprefix(self._lead)
        return text.removesuffix(self._closing) if stops else text

    def _render(self, messages: Sequence[Message], opening: bool = False, at: str = "") -> str:
        rows = [{"role": message.role, "content": message.content} for message in messages]
        try:
            return self.tokenizer.apply_chat_template(
                rows, chat_template=self.chat_template, tokenize=False, add_generation_prompt=opening
            )
        except (jinja2.TemplateError, TypeError) as error:
            raise RecordError(f"{at}{': ' if at else ''}{self.name} refuses the conversation: {error}") from error

    def _answer(self, messages: Sequence[Message], prompt: str, answer: Answer, at: str) -> str:
        """What follows `prompt`: the answer as the template writes it, and the stop token if it is finished."""
        text = answer.text.removesuffix(self._stop)  # some data sets write the end token out
        for end in (self._stop, self.tokenizer.eos_token):
            if end in text:
                raise RecordError(f"{at}: an answer contains {end!r}, the tokenizer's end token; expected it nowhere")
        full = self._render([*messages, Message("assistant", text)], at=at)
        if not full.startswith(prompt) or not full.endswith(self._tail):
            raise RecordError(f"{at}: {self.name} writes the prompt in another way once it is answered; "
                              f"give --template, one of {NAMES}")  # fmt: skip
        return full[len(prompt) :].removesuffix(self._tail) + (self._closing + self._stop if answer.finished else "")

    def _earlier_answers(self, messages: Sequence[Message], prompt: str, at: str) -> Iterator[tuple[int, int]]:
        """(start, end) characters in `prompt` of every assistant message and its end token."""
        for n, message in enumerate(messages):
            if message.role == "assistant":
                before = self._render(messages[:n], opening=True, at=at)
                answer = self._answer(messages[:n], before, Answer(message.content, finished=False), at) + self._written
                if not prompt.startswith(before + answer):
                    raise RecordError(f"{at}: {self.name} rewrites earlier answers; use --train_on last")
                yield len(before), len(before + answer)


def _choose(tokenizer: Any, name: str | None, tokenizer_name: str) -> tuple[str, list[str]]:
    """(the chat template's text, its stop strings). A saved tokenizer carries a named template as its own."""
    begins = tokenizer.bos_token_id is not None and tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id]
    named = {key: t.jinja if begins else t.jinja.replace(BOS, "") for key, t in TEMPLATES.items()}
    if name is None:
        try:
            text = tokenizer.get_chat_template()
        except ValueError:
            raise UserError(f"{tokenizer_name}: it has no chat template; give --template, one of {NAMES}") from None
        known = next((TEMPLATES[key] for key in named if named[key] == text), Template(text))
        return text, list(known.stop_strings)
    if name not in TEMPLATES:
        close = difflib.get_close_matches(name, TEMPLATES, n=1, cutoff=0.3)
        raise UserError(f"--template {name}: no such template" + (f"; did you mean {close[0]}?" if close else ";")
                        + f" known: {NAMES}")  # fmt: skip
    return named[name], list(TEMPLATES[name].stop_strings)


def _inside(offsets: Sequence[tuple[int, int]], turns: Sequence[tuple[int, int]]) -> np.ndarray:
    """bool per token: all its characters lie in one turn. A token across a turn's edge is not trained."""
    start, end = np.asarray(offsets, np.int64).reshape(-1, 2).T
    return np.any([(start >= a) & (end <= b) & (start < b) for a, b in turns], axis=0)
