"""Messages to token ids, in one way for training, chat, perplexity and reward.

A conversation becomes text through one chat template (the tokenizer's, or one of TEMPLATES), and that text becomes ids
once, without further special tokens: whatever the template writes is there exactly once.
"""

from __future__ import annotations

import difflib
import hashlib
import itertools
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
from utils.tokens.templates.wording import TEMPLATES

QUESTION, ANSWER = "Qprobe7", "Aprobe7"  # words that no template contains
NAMES = ", ".join(TEMPLATES)


@dataclass(frozen=True)
class Rendered:
    """A record as text."""

    prompt: str
    answers: tuple[str, ...]  # each ends with the text of its stop token
    pairs: tuple[tuple[int, int], ...] = ()  # (winner, loser), places in `answers`
    turns: tuple[tuple[int, int], ...] = ()  # (start, end) characters in `prompt` of earlier answers that are trained
    where: str = ""  # file:line, for error messages


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
        """Find out from one short exchange what the template writes before and after an answer, and which token ends
        it."""
        prompt = self._render([Message("user", QUESTION)], opening=True)
        full = self._render([Message("user", QUESTION), Message("assistant", ANSWER)])
        if QUESTION not in prompt or ANSWER not in full or not full.startswith(prompt):
            raise UserError(f"{self.name}: its text of question and answer does not begin with the question's text; "
                            f"give --template, one of {NAMES}")  # fmt: skip
        self._lead, _, self._tail = full[len(prompt) :].rpartition(ANSWER)
        _, _, opening = prompt.rpartition(QUESTION)
        self.header = len(self.encoder.ids([opening])[0])
        # The first special token after the answer ends it; of two that begin together the longer one.
        tokens = {str(token) for token in self.tokenizer.added_tokens_decoder.values()} | {self.tokenizer.eos_token}
        after = [token for token in tokens if token in self._tail]
        if after:
            self._stop = min(after, key=lambda token: (self._tail.index(token), -len(token), token))
            self._closing, _, _ = self._tail.partition(self._stop)
            self._written = self._closing + self._stop
        else:  # a template that writes no end token gets the tokenizer's
            self._stop, self._closing, self._written = self.tokenizer.eos_token, "", ""
        stop_id = self.tokenizer.convert_tokens_to_ids(self._stop)
        if self.encoder.ids([ANSWER + self._closing + self._stop])[0][-1] != stop_id:
            raise UserError(f"{self.encoder.name}: the tokenizer splits its end token {self._stop!r} into pieces")
        self.stop_token_ids = list(dict.fromkeys([stop_id, self.tokenizer.eos_token_id]))

    @cached_property
    def fingerprint(self) -> str:
        """Return a hash of all that decides the ids: the tokenizer's content, the template's text, this code."""
        digest = hashlib.blake2b(f"{self.encoder.content}\0{self.chat_template}".encode(), digest_size=16)
        for path in sorted(Path(__file__).parent.glob("*.py")):
            digest.update(path.read_bytes())
        return digest.hexdigest()

    def render(self, record: Record, answers: Sequence[int], pairs=(), train_on: str = "last") -> Rendered:
        """Return a record as text.

        Args:
            record: the record.
            answers: which of its answers, by their place in the record.
            pairs: (winner, loser), places in the record, as Record.pairs() gives them.
            train_on: last | all: whether earlier answers in the prompt are trained.

        Returns:
            The text; its pairs count in `answers`.

        Raises:
            RecordError: the template refuses the conversation, or writes it in a way that cannot be trained.
        """
        at = record.where or f"record {record.id}"
        prompt = self._render(record.prompt, opening=True, at=at)
        turns = ()
        if train_on == "all":
            turns = tuple(self._earlier_answers(record.prompt, prompt, at))
        place_of = {answer: place for place, answer in enumerate(answers)}
        texts = [self._answer(record.prompt, prompt, answer=record.answers[answer], at=at) for answer in answers]
        places = [(place_of[winner], place_of[loser]) for winner, loser in pairs]
        return Rendered(prompt=prompt, answers=tuple(texts), pairs=tuple(places), turns=turns, where=at)

    def encode(self, rendered: Sequence[Rendered]) -> tuple[list[Group], list[int]]:
        """Return (groups, how many answers of each were tokenised apart from their prompt). Faster for many at once."""
        prompts = [one.prompt for one in rendered]
        offsets = [()] * len(rendered)
        if any(one.turns for one in rendered):
            prompts, offsets = self.encoder.ids_and_offsets(prompts)
        else:
            prompts = self.encoder.ids(prompts)
        # In one call: fast tokenizers spread many texts over the cores.
        wholes = iter(self.encoder.ids([one.prompt + answer for one in rendered for answer in one.answers]))
        groups, apart = [], []
        for one, prompt, spans in zip(rendered, prompts, offsets, strict=True):
            answers, straddling = [], 0
            for text in one.answers:
                whole = next(wholes)
                ids = whole[len(prompt) :]
                if whole[: len(prompt)] != prompt:  # the answer's first characters merged with the prompt's last
                    straddling += 1
                    ids = self.encoder.ids_after(prompt, whole, text)
                if ids is None:
                    raise RecordError(f"{one.where}: no token boundary between prompt and answer {text[:40]!r}")
                answers.append(ids)
            trained = _inside(spans, one.turns) if one.turns else None
            groups.append(group(prompt, answers, pairs=one.pairs, prompt_trained=trained))
            apart.append(straddling)
        return groups, apart

    def group(self, record: Record, answers: Sequence[int], pairs=(), train_on: str = "last") -> Group:
        """Return a record as tokens, nothing cut.

        Args:
            record: as in render().
            answers: as in render().
            pairs: as in render().
            train_on: as in render().

        Returns:
            The group of the prompt and these answers.
        """
        (whole,), _ = self.encode([self.render(record, answers, pairs=pairs, train_on=train_on)])
        return whole

    def prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        """Return what the model reads before it answers."""
        (ids,) = self.encoder.ids([self._render(messages, opening=True)])
        return ids

    def answer_ids(self, messages: Sequence[Message], text: str, finished: bool = True) -> list[int]:
        """Return the answer's tokens, its stop token last unless `finished` is False."""
        record = Record(tuple(messages), (Answer(text, finished=finished),))
        (answer,) = self.group(record, [0]).answers
        return answer.tolist()

    def decode_answer(self, ids: Sequence[int]) -> str:
        """Return the answer's text: up to the first stop token or stop string, without the template's own words."""
        kept = list(itertools.takewhile(lambda token: token not in self.stop_token_ids, map(int, ids)))
        (front,) = self.encoder.ids(["a"])
        text = self.encoder.text_after(front, kept)
        for stop in self.stop_strings:
            text, _, _ = text.partition(stop)
        text = text.removeprefix(self._lead)
        if len(kept) < len(ids):  # it was ended, so what closes an answer is the template's
            text = text.removesuffix(self._closing)
        return text

    def _render(self, messages: Sequence[Message], opening: bool = False, at: str = "") -> str:
        rows = [{"role": message.role, "content": message.content} for message in messages]
        try:
            return self.tokenizer.apply_chat_template(
                rows, chat_template=self.chat_template, tokenize=False, add_generation_prompt=opening
            )
        except (jinja2.TemplateError, TypeError) as error:
            place = f"{at}: " if at else ""
            raise RecordError(f"{place}{self.name} refuses the conversation: {error}") from error

    def _answer(self, messages: Sequence[Message], prompt: str, answer: Answer, at: str) -> str:
        """Return what follows `prompt`: the answer as the template writes it, and the stop token if it is finished."""
        text = answer.text.removesuffix(self._stop)  # some data sets write the end token out
        # Inside an answer it would teach the model to stop there.
        for end in (self._stop, self.tokenizer.eos_token):
            if end in text:
                raise RecordError(f"{at}: an answer contains {end!r}, the tokenizer's end token; expected it nowhere")
        full = self._render([*messages, Message("assistant", text)], at=at)
        if not full.startswith(prompt) or not full.endswith(self._tail):
            raise RecordError(f"{at}: {self.name} writes the prompt in another way once it is answered; "
                              f"give --template, one of {NAMES}")  # fmt: skip
        written = full[len(prompt) :].removesuffix(self._tail)
        if answer.finished:
            written += self._closing + self._stop
        return written  # an answer that was cut has no stop token: the model must not learn to stop there

    def _earlier_answers(self, messages: Sequence[Message], prompt: str, at: str) -> Iterator[tuple[int, int]]:
        """Yield the (start, end) characters in `prompt` of every assistant message and its end token."""
        for place, message in enumerate(messages):
            if message.role != "assistant":
                continue
            before = self._render(messages[:place], opening=True, at=at)
            unfinished = Answer(message.content, finished=False)
            answer = self._answer(messages[:place], before, answer=unfinished, at=at) + self._written
            if not prompt.startswith(before + answer):
                raise RecordError(f"{at}: {self.name} rewrites earlier answers; use --train_on last")
            yield len(before), len(before + answer)


def _choose(tokenizer: Any, name: str | None, tokenizer_name: str) -> tuple[str, list[str]]:
    """Return (the chat template's text, its stop strings)."""
    begins = tokenizer.bos_token_id is not None and tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id]
    if name is None:
        try:
            text = tokenizer.get_chat_template()
        except ValueError:
            raise UserError(f"{tokenizer_name}: it has no chat template; give --template, one of {NAMES}") from None
        for template in TEMPLATES.values():  # a saved tokenizer carries a named template as its own
            if template.text(begins) == text:
                return text, list(template.stop_strings)
        return text, []
    if name not in TEMPLATES:
        close = difflib.get_close_matches(name, TEMPLATES, n=1, cutoff=0.3)
        meant = "".join(f" did you mean {one}?" for one in close)
        raise UserError(f"--template {name}: no such template;{meant} known: {NAMES}")
    return TEMPLATES[name].text(begins), list(TEMPLATES[name].stop_strings)


def _inside(offsets: Sequence[tuple[int, int]], turns: Sequence[tuple[int, int]]) -> np.ndarray:
    """Return for every token whether all its characters are in one turn. A token across an edge is not trained."""
    start, end = np.asarray(offsets, np.int64).reshape(-1, 2).T
    inside = np.zeros(len(start), bool)
    for first, last in turns:
        inside |= (start >= first) & (end <= last) & (start < last)
    return inside
