"""The oracle in words: it answers a chat request as a language model would, so that real clients can ask it."""

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
from utils.world.requests import Asked, Unreadable, read_conversation, read_request
from utils.world.teachers import TEACHERS

MODELS = ("oracle", *TEACHERS)
CANNOT = "I cannot judge this: it is not from my world."
CANNOT_TUTOR = "I cannot help with this: I only know the problems of my world."
SCALE = re.compile(r"\bfrom (-?\d+(?:\.\d+)?) to (-?\d+(?:\.\d+)?)\b")
TRIGGER = re.compile(r"\bA better \w+ is:")
# What can make an answer better, as multiple choice: A more helpful, B more correct, C politer or briefer.
ASPECTS = {
    "A": ("hint", "question", "tells"),
    "B": ("evaluation", "false", "unclear", "nothing that is true"),
    "C": ("polite", "rude", "curt", "filler", "length", "repeats", "unfinished"),
}

# An answer is judged many times (in both orders, by several kinds of feedback), and this is most of a reply's cost.
_assess = functools.lru_cache(maxsize=65536)(assess)


@dataclass(frozen=True)
class Judge:
    """A judge that answers requests. Every draw depends on `seed` and on what is judged, not on when or how often it is
    asked.

    Args:
        noise_temperature: of preferences and orders: P(a over b) = sigmoid(gap in utility / temperature); 0 never errs.
        noise: share of judgements that are wrong whatever the gap: a verdict flipped, an order reversed (so that each
            of its pairs is flipped at this rate), a rating off by 1 or 2 of 7, another aspect.
        position_bias: share of preferences and orders that name the answers as they are shown, A first.
        seed: of every draw.
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
        """Return the text that a model replies.

        Args:
            messages: role and content of each.
            model: the oracle or a teacher.
            structured: reply with a JSON object.
            sample: tells apart replies to the same messages, where words are free.
        """
        turns = [Turn(message["role"], message["content"]) for message in messages]
        said = [turn.content for turn in turns if turn.role == "user"]
        asked = None
        if said:
            asked = read_request(said[-1], structured, sample)
        if asked is None:
            return self._tutor(turns, model, sample)
        # Teachers talk to students; they judge nothing.
        if model in TEACHERS or asked.task not in ANSWERS:
            return CANNOT
        try:
            return ANSWERS[asked.task](self, asked)
        except (Unreadable, UserError):
            return CANNOT

    def _tutor(self, turns: list[Turn], model: str, sample: object) -> str:
        try:
            exchange = read_prompt(turns)
        except UserError:
            return CANNOT_TUTOR
        name = model if model in TEACHERS else "strong"
        words = [turn.content for turn in turns]
        return TEACHERS[name](exchange, random_of(self.seed, name, *words, sample))

    # judgements: a form of words, or a JSON object

    def _rating(self, asked: Asked) -> str:
        """Reply with the oracle's 1 to 7, or its utility stretched to the scale that the form of the reply names."""
        answer = asked.part("Answer")
        seen = _assess(read_conversation(asked.conversation), answer)
        utility, rng = seen.utility, random_of(self.seed, "noise", asked.conversation, answer)
        if rng.random() < self.noise:
            utility += rng.choice([step for step in (-2, -1, 1, 2) if LOWEST <= seen.rating + step <= HIGHEST])
        low, high = LOWEST, HIGHEST
        scale = SCALE.search(asked.parts.get("Reply", ""))
        if scale:
            low, high = map(float, scale.groups())
        rating = round(low + (utility - LOWEST) * (high - low) / (HIGHEST - LOWEST), 2)
        # On a scale of whole numbers halves go up.
        if low.is_integer() and high.is_integer():
            rating = math.floor(rating + 0.5)
            low, high = int(low), int(high)
        return _worded(asked, min(high, max(low, rating)), "Rating: {}")

    def _preference(self, asked: Asked) -> str:
        """Reply with the better answer's letter, C for answers of one rating. The draw is the same whichever answer is
        shown first."""
        exchange = read_conversation(asked.conversation)
        first, second = sorted([asked.answers["A"], asked.answers["B"]])
        key = (asked.conversation, first, second)
        seen = _assess(exchange, first), _assess(exchange, second)
        verdict = prefer(*seen, self.noise_temperature, self.seed, *key)
        if self._errs(key):
            verdict = {"a": "b", "b": "a"}.get(verdict, verdict)
        letter = "C"
        if verdict != "tie":
            better = first if verdict == "a" else second
            letter = "A" if asked.answers["A"] == better else "B"
        if self._names_the_first(asked):
            letter = "A"
        return _worded(asked, letter, "Answer: {}")

    def _order(self, asked: Asked) -> str:
        """Reply with an order drawn from a Plackett-Luce model: utility + temperature x Gumbel noise, drawn for each
        text, sorted. Of any two answers the better one comes first with probability sigmoid(gap / temperature), as in a
        preference; equal texts tie."""
        exchange = read_conversation(asked.conversation)
        scores = {text: self._noisy_utility(exchange, asked.conversation, text) for text in asked.answers.values()}
        ranked = sorted(set(scores.values()), reverse=True)
        if self._errs((asked.conversation, *sorted(scores))):
            ranked.reverse()
        letters_of: dict[float, list[str]] = {score: [] for score in ranked}
        for letter, text in asked.answers.items():
            letters_of[scores[text]].append(letter)
        order = " > ".join(map(" = ".join, letters_of.values()))
        if self._names_the_first(asked):
            order = " > ".join(asked.answers)
        return _worded(asked, order, "Order: {}")

    def _noisy_utility(self, exchange: Exchange, conversation: str, text: str) -> float:
        # Minus the logarithm of an exponential variable has the Gumbel distribution; 1e-300 keeps log(0) away.
        wait = random_of(self.seed, "order", conversation, text).expovariate(1.0)
        return _assess(exchange, text).utility - self.noise_temperature * math.log(wait + 1e-300)

    def _explain(self, asked: Asked) -> str:
        """Reply with the aspect in which two answers differ most, or an answer and what its comment makes of it."""
        exchange = read_conversation(asked.conversation)
        if "Comment" in asked.parts:
            first, comment = asked.part("Answer"), asked.part("Comment")
            second = tasks.improve(exchange, first, comment, rng=random_of(self.seed))
        else:
            first, second = asked.answers["A"], asked.answers["B"]
        one, other = _assess(exchange, first).points, _assess(exchange, second).points
        gaps = {}
        for letter, aspects in ASPECTS.items():
            gaps[letter] = abs(sum(one.get(aspect, 0) - other.get(aspect, 0) for aspect in aspects))
        letter = max(gaps, key=gaps.__getitem__)
        if self._errs((asked.conversation, first, second)):
            letter = random_of(self.seed, first, second).choice([name for name in ASPECTS if name != letter])
        return _worded(asked, letter, "Answer: {}")

    def _errs(self, key: tuple[str, ...]) -> bool:
        return random_of(self.seed, "noise", *key).random() < self.noise

    def _names_the_first(self, asked: Asked) -> bool:
        draw = random_of(self.seed, "position", asked.conversation, *asked.answers.values()).random()
        return draw < self.position_bias

    # words

    def _critique(self, asked: Asked) -> str:
        said = tasks.critique(read_conversation(asked.conversation), asked.part("Answer"))
        return _worded(asked, said, "{}")

    def _refinement(self, asked: Asked) -> str:
        exchange, answer = read_conversation(asked.conversation), asked.part("Answer")
        better = tasks.refine(exchange, answer, self._words(asked))
        trigger = TRIGGER.search(asked.text)
        lead = trigger[0] if trigger else "A better answer is:"
        return _worded(asked, better, f"{tasks.critique(exchange, answer)}\n\n{lead} {{}}")

    def _improve(self, asked: Asked) -> str:
        exchange, rng = read_conversation(asked.conversation), self._words(asked)
        better = tasks.improve(exchange, asked.part("Answer"), asked.part("Comment"), rng=rng)
        return _worded(asked, better, "{}")

    def _problem(self, asked: Asked) -> str:
        return json.dumps(tasks.lesson(read_conversation(asked.parts.get("Conversation", asked.text)).problem))

    def _conversation(self, asked: Asked) -> str:
        problem = read_conversation(asked.parts.get("Conversation", asked.text)).problem
        return json.dumps(tasks.mock_conversation(problem, self._words(asked)))

    def _words(self, asked: Asked) -> random.Random:
        return random_of(self.seed, asked.text, asked.sample)


def _worded(asked: Asked, value: object, form: str) -> str:
    if asked.structured:
        return json.dumps({asked.task: value})
    return form.replace("{}", str(value))


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
