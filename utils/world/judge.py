"""The oracle in words: it answers a chat request as a language model would, so that real clients can ask it.

A request is read by the lines that open its parts: `### Task: rating`, `### Conversation`, `### Answer A`,
`### Comment`, `### Reply`. A request without a task is a dialogue, and gets a tutor's next turn.
"""

from __future__ import annotations

import functools
import json
import math
import random
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from utils.errors import UserError
from utils.world import tasks
from utils.world.exchanges import Exchange, Turn, read_prompt
from utils.world.oracle import HIGHEST, LOWEST, assess, prefer, random_of
from utils.world.teachers import TEACHERS

MODELS = ("oracle", *TEACHERS)
CANNOT = "I cannot judge this: it is not from my world."
CANNOT_TUTOR = "I cannot help with this: I only know the problems of my world."
HEADING = re.compile(r"^### (Task: \w+|Conversation|Answer(?: [A-Z])?|Comment|Reply)[ \t]*$", re.MULTILINE)
SPEAKER = re.compile(r"(?:\A|\n\n)(System|Human|Assistant): ")
ROLES = {"System": "system", "Human": "user", "Assistant": "assistant"}
SCALE = re.compile(r"\bfrom (-?\d+(?:\.\d+)?) to (-?\d+(?:\.\d+)?)\b")
TRIGGER = re.compile(r"\bA better \w+ is:")
# What can make an answer better, as multiple choice: A more helpful, B more correct, C politer or briefer.
ASPECTS = {
    "A": ("hint", "question", "tells"),
    "B": ("evaluation", "false", "unclear", "nothing that is true"),
    "C": ("polite", "rude", "curt", "filler", "length", "repeats", "unfinished"),
}
Message = Mapping[str, str]  # role, content


class _Unreadable(Exception):  # noqa: N818 - it ends in an honest answer, not in an error
    """The request lacks a part that its task needs."""


@dataclass(frozen=True)
class Asked:
    """A request by its parts. `text` is all of it."""

    task: str
    parts: dict[str, str]  # "Conversation", "Answer A", …
    text: str
    structured: bool = False
    sample: object = ""

    def part(self, name: str) -> str:
        if name not in self.parts:
            raise _Unreadable(name)
        return self.parts[name]

    @property
    def conversation(self) -> str:
        return self.part("Conversation")

    @functools.cached_property
    def answers(self) -> dict[str, str]:
        """Letter -> text, in the order shown; at least two."""
        found = {name[-1]: text for name, text in self.parts.items() if re.fullmatch("Answer [A-Z]", name)}
        if len(found) < 2:
            raise _Unreadable("Answer A, Answer B")
        return found


def read_request(text: str, structured: bool = False, sample: object = "") -> Asked | None:
    """The parts of a user message, or None for one without a task. Of a part that comes twice the first counts."""
    before, *pieces = HEADING.split(text)
    parts: dict[str, str] = {}
    for name, body in zip(pieces[::2], pieces[1::2], strict=True):
        parts.setdefault(name, body.strip())
    task = next((name.removeprefix("Task: ") for name in parts if name.startswith("Task: ")), None)
    return Asked(task, parts, text, structured, sample) if task else None


@functools.lru_cache(maxsize=65536)
def _exchange(conversation: str) -> Exchange:
    """Raises UserError for a conversation of another world."""
    before, *pieces = SPEAKER.split(conversation)
    turns = [Turn("user", before)] if before.strip() else []
    turns += [Turn(ROLES[name], said) for name, said in zip(pieces[::2], pieces[1::2], strict=True)]
    return read_prompt(turns)


_assess = functools.lru_cache(maxsize=65536)(assess)


@dataclass(frozen=True)
class Judge:
    """Every draw depends on `seed` and on what is judged, not on when or how often it is asked.

    noise_temperature   of preferences and orders: P(a over b) = sigmoid(gap in utility / temperature); 0 never errs
    noise               share of judgements that are wrong whatever the gap: a verdict flipped, an order reversed (so
                        that each of its pairs is flipped at this rate), a rating off by 1 or 2 of 7, another aspect
    position_bias       share of preferences and orders that name the answers as they are shown, A first
    """

    noise_temperature: float = 0.7
    noise: float = 0.0
    position_bias: float = 0.0
    seed: int = 1234

    def reply(
        self,
        messages: Iterable[Mapping[str, str]],
        model: str = "oracle",
        structured: bool = False,
        sample: object = "",
    ) -> str:
        """The text that `model` says. `sample` tells apart answers to the same messages, where words are free."""
        turns = [Turn(message["role"], message["content"]) for message in messages]
        said = [turn.content for turn in turns if turn.role == "user"]
        asked = read_request(said[-1], structured, sample) if said else None
        if asked is None:
            return self._tutor(turns, model, sample)
        if model in TEACHERS or asked.task not in ANSWERS:
            return CANNOT
        try:
            return ANSWERS[asked.task](self, asked)
        except (_Unreadable, UserError):
            return CANNOT

    def _tutor(self, turns: list[Turn], model: str, sample: object) -> str:
        try:
            exchange = read_prompt(turns)
        except UserError:
            return CANNOT_TUTOR
        name = model if model in TEACHERS else "strong"
        return TEACHERS[name](exchange, random_of(self.seed, name, *(turn.content for turn in turns), sample))

    # judgements: a form of words, or a JSON object

    def _rating(self, asked: Asked) -> str:
        """The oracle's 1 to 7, or its utility stretched to the scale that the form of the reply names."""
        answer = asked.part("Answer")
        seen = _assess(_exchange(asked.conversation), answer)
        utility, rng = seen.utility, random_of(self.seed, "noise", asked.conversation, answer)
        if rng.random() < self.noise:
            utility += rng.choice([step for step in (-2, -1, 1, 2) if LOWEST <= seen.rating + step <= HIGHEST])
        scale = SCALE.search(asked.parts.get("Reply", ""))
        low, high = map(float, scale.groups()) if scale else (LOWEST, HIGHEST)
        stretched = round(low + (utility - LOWEST) * (high - low) / (HIGHEST - LOWEST), 2)
        whole = low.is_integer() and high.is_integer()
        rating = min(high, max(low, math.floor(stretched + 0.5) if whole else stretched))
        return _worded(asked, int(rating) if whole else rating, "Rating: {}")

    def _preference(self, asked: Asked) -> str:
        """The same draw whichever answer is shown first; C for answers of one rating."""
        exchange, answers = _exchange(asked.conversation), asked.answers
        first, second = sorted(answers[letter] for letter in ("A", "B"))
        key = (asked.conversation, first, second)
        seen = _assess(exchange, first), _assess(exchange, second)
        verdict = prefer(*seen, self.noise_temperature, self.seed, *key)
        better = {"a": first, "b": second}.get(verdict)
        if better is not None and self._errs(key):
            better = second if better == first else first
        letter = "C" if better is None else "A" if answers["A"] == better else "B"
        return _worded(asked, "A" if self._sees_the_first(asked) else letter, "Answer: {}")

    def _order(self, asked: Asked) -> str:
        """Plackett-Luce: utility + temperature x Gumbel noise, drawn for each text, sorted. Of any two answers the
        better one comes first with probability sigmoid(gap / temperature), as in a preference; equal texts tie."""
        exchange = _exchange(asked.conversation)
        scores = {text: self._noisy_utility(exchange, asked.conversation, text) for text in asked.answers.values()}
        ranked = sorted(set(scores.values()), reverse=True)
        if self._errs((asked.conversation, *sorted(scores))):
            ranked.reverse()
        groups = [[letter for letter, text in asked.answers.items() if scores[text] == score] for score in ranked]
        if self._sees_the_first(asked):
            groups = [[letter] for letter in asked.answers]
        return _worded(asked, " > ".join(" = ".join(group) for group in groups), "Order: {}")

    def _noisy_utility(self, exchange: Exchange, conversation: str, text: str) -> float:
        wait = random_of(self.seed, "order", conversation, text).expovariate(1.0)
        return _assess(exchange, text).utility - self.noise_temperature * math.log(wait + 1e-300)

    def _explain(self, asked: Asked) -> str:
        """The aspect in which two answers differ most, or an answer and what its comment would make of it."""
        exchange = _exchange(asked.conversation)
        if "Comment" in asked.parts:
            answer = asked.part("Answer")
            texts = (answer, tasks.improve(exchange, answer, asked.part("Comment"), random_of(self.seed)))
        else:
            texts = tuple(asked.answers[letter] for letter in ("A", "B"))
        one, other = (_assess(exchange, text).points for text in texts)
        gaps = {letter: abs(sum(one.get(a, 0) - other.get(a, 0) for a in ASPECTS[letter])) for letter in ASPECTS}
        letter = max(gaps, key=gaps.__getitem__)
        if self._errs((asked.conversation, *texts)):
            letter = random_of(self.seed, *texts).choice([other for other in ASPECTS if other != letter])
        return _worded(asked, letter, "Answer: {}")

    def _errs(self, key: tuple[str, ...]) -> bool:
        return random_of(self.seed, "noise", *key).random() < self.noise

    def _sees_the_first(self, asked: Asked) -> bool:
        draw = random_of(self.seed, "position", asked.conversation, *asked.answers.values()).random()
        return draw < self.position_bias

    # words

    def _critique(self, asked: Asked) -> str:
        said = tasks.critique(_exchange(asked.conversation), asked.part("Answer"))
        return _worded(asked, said, "{}")

    def _refinement(self, asked: Asked) -> str:
        exchange, answer = _exchange(asked.conversation), asked.part("Answer")
        better = tasks.refine(exchange, answer, self._words(asked))
        trigger = TRIGGER.search(asked.text)
        form = f"{tasks.critique(exchange, answer)}\n\n{trigger[0] if trigger else 'A better answer is:'} {{}}"
        return _worded(asked, better, form)

    def _improve(self, asked: Asked) -> str:
        exchange, rng = _exchange(asked.conversation), self._words(asked)
        better = tasks.improve(exchange, asked.part("Answer"), asked.part("Comment"), rng)
        return _worded(asked, better, "{}")

    def _problem(self, asked: Asked) -> str:
        return json.dumps(tasks.lesson(_exchange(asked.parts.get("Conversation", asked.text)).problem))

    def _conversation(self, asked: Asked) -> str:
        problem = _exchange(asked.parts.get("Conversation", asked.text)).problem
        return json.dumps(tasks.mock_conversation(problem, self._words(asked)))

    def _words(self, asked: Asked) -> random.Random:
        return random_of(self.seed, asked.text, asked.sample)


def _worded(asked: Asked, value: object, form: str) -> str:
    return json.dumps({asked.task: value}) if asked.structured else form.replace("{}", str(value))


ANSWERS = {
    "rating": Judge._rating,
    "preference": Judge._preference,
    "order": Judge._order,
    "explain": Judge._explain,
    "critique": Judge._critique,
    "refinement": Judge._refinement,
    "improve": Judge._improve,
    "problem": Judge._problem,
    "conversation": Judge._conversation,
}
