"""Questions as requests to the model that is asked, and the other forms of a request in which a ledger may hold its
answer."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from utils.llm.asking import Outcome, Question
from utils.llm.ledger import Ledger
from utils.llm.ledger.shapes import has_answers, shape_of, shapes
from utils.llm.providers import ModelFacts, Request, request_of

# Tokens of the longest reply where the cost has to be bounded (--max_usd) or the API wants a limit (Anthropic's), by
# parser; a mock lesson is the longest text that is asked for. What the model thinks counts as well.
BOUND, BOUNDS, THINKING = 4096, {"conversation": 16384}, 8192
# The limits that were sent before these were: with --max_usd, and to Anthropic.
FORMER_BOUNDS = {"openai": (4096,), "anthropic": (4096, 1024)}
# The temperature that was sent where none was given.
FORMER_TEMPERATURE = 0.0
# Questions without an answer before the shapes of the ledger's requests are read, which then spares most hashes.
ENOUGH = 2000


@dataclass(frozen=True)
class Wanted:
    """A question, whatever the settings of its request.

    Args:
        provider: openai, anthropic or replay.
        model: the model's name.
        messages: the chat.
        parser: the name of the parser that reads the reply.
        arguments: the parser's.
        schema: a JSON schema of the reply, or None.
        sample: 0, or the number of a further sample of the same question.
    """

    provider: str
    model: str
    messages: list[dict[str, str]]
    parser: str
    arguments: dict[str, Any]
    schema: dict[str, Any] | None = None
    sample: int = 0


@dataclass(frozen=True)
class RequestSettings:
    """What every request of a run has besides its words.

    Args:
        temperature: of sampling; None sends none, which is the server's own.
        max_tokens: longest reply in tokens; None: `bound`, where there has to be one.
        bounded: whether every reply has to have a limit.
        reasoning_effort: how long the model thinks, in its provider's words; None is its own.
        extra_body: further fields of the body.
        own: whether the server is the provider's own, or stands in for it.
        facts: what is known of the model.
        is_settled: tells whether the ledger holds the answer to a question; None: it holds none.
    """

    temperature: float | None = None
    max_tokens: int | None = None
    bounded: bool = False
    reasoning_effort: str | None = None
    extra_body: dict[str, Any] = field(default_factory=dict)
    own: bool = False
    facts: ModelFacts = field(default_factory=ModelFacts)
    is_settled: Callable[[Question], bool] | None = None

    def bound(self, parser: str) -> int:
        """Return the limit of a reply where none was given: tokens."""
        bound = BOUNDS.get(parser, BOUND)
        if self.facts.thinks(self.reasoning_effort):
            bound += THINKING
        return min(bound, self.facts.longest or bound)

    def question(self, wanted: Wanted) -> Question:
        """Return a question in the form of the settings, or in the form in which the ledger holds its answer."""
        limit = self.max_tokens
        if limit is None and (self.bounded or wanted.provider == "anthropic"):
            limit = self.bound(wanted.parser)
        question = self._question(wanted, limit)
        if self.is_settled is None or self.is_settled(question):
            return question
        for other in self._others(wanted):
            if other.request != question.request and self.is_settled(other):
                return other
        return question

    def _question(self, wanted: Wanted, limit: int | None) -> Question:
        settings = {"temperature": self.temperature, "max_tokens": limit, "reasoning_effort": self.reasoning_effort}
        request = request_of(
            wanted.provider, wanted.model, wanted.messages, schema=wanted.schema, own=self.own, sample=wanted.sample,
            **settings,
        )  # fmt: skip
        if self.extra_body:
            request = replace(request, body=_merged(request.body, self.extra_body))
        return Question(request, wanted.parser, wanted.arguments)

    def _others(self, wanted: Wanted) -> Iterator[Question]:
        """Yield the question in every other form that the same command line has had: with and without a limit that the
        person did not give, with that limit in both spellings, and as it was sent before the options were optional."""
        temperatures, limits = [self.temperature], [self.max_tokens]
        if self.temperature is None:
            temperatures.append(FORMER_TEMPERATURE)
        if self.max_tokens is None:
            limits += [self.bound(wanted.parser), *FORMER_BOUNDS.get(wanted.provider, ())]
        for temperature, limit, own in itertools.product(temperatures, dict.fromkeys(limits), (self.own, not self.own)):
            question = replace(self, temperature=temperature, own=own)._question(wanted, limit)
            yield question
            if wanted.schema and wanted.provider == "anthropic":
                yield replace(question, request=_with_bounds(question.request, wanted.schema))


def _merged(body: dict[str, Any], extra: dict[str, Any]) -> dict[str, Any]:
    """Return a body with further fields; an object that both have holds the fields of both."""
    merged = dict(body)
    for name, value in extra.items():
        if isinstance(value, dict) and isinstance(merged.get(name), dict):
            value = _merged(merged[name], value)
        merged[name] = value
    return merged


def _with_bounds(request: Request, schema: dict[str, Any]) -> Request:
    """Return a request to Anthropic with the schema as it is, which the API refuses today."""
    output = {**request.body["output_config"], "format": {"type": "json_schema", "schema": schema}}
    return replace(request, body={**request.body, "output_config": output})


class SettledQuestions:
    """The questions whose answers a ledger held when it was opened, in whatever form they were asked.

    Args:
        ledger: the ledger.
        outcome_of: returns a question's outcome.
    """

    def __init__(self, ledger: Ledger, outcome_of: Callable[[Question], Outcome]) -> None:
        self._ledger, self.outcome_of = ledger, outcome_of
        self._misses, self._shapes = 0, None  # shapes: a set, once they are worth reading
        with ledger.store.reading() as db:
            self.any = has_answers(db)

    def has(self, question: Question) -> bool:
        """Return whether the question's request was answered or refused."""
        if self._misses >= ENOUGH and self._shapes is None:
            with self._ledger.store.reading() as db:
                self._shapes = shapes(db)
        if self._shapes is not None and shape_of(question.request.body) not in self._shapes:
            return False
        outcome = self.outcome_of(question)
        # A stored text that this parser has not read yet is an answer, too.
        found = outcome.state in ("parsed", "unparsed", "refused") or outcome.text is not None
        self._misses += not found
        return found
