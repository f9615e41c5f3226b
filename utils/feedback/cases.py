"""One row to be asked about, who asks, and how a kind of feedback is followed from questions to facts.

A kind is a generator function `kind(case, asker)`: it yields lists of questions, is sent their outcomes, and returns
the record with what they say. It is a pure function of those, so that it can be run again at any time: what is known
stands in the ledger. Questions that build on others are asked once these have values.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from typing import Any

from utils.errors import UserError
from utils.feedback.forms import FORM_OF_PROMPT, FORMS, NOUNS, schema_of
from utils.feedback.prompts import Prompts, answers_text, conversation_text, material
from utils.llm.asking import Outcome, Question
from utils.llm.providers import request_of
from utils.records import Record

SETTLED = ("parsed", "unparsed", "refused")  # an outcome that stays; the others are asked (again) by the same command
Steps = Generator[list[Question], list[Outcome], Record]


@dataclass(frozen=True)
class Kind:
    """`answers` is the fewest that a row needs, `needs` what else some row must have; `steps` the rounds of questions,
    each built on the outcomes before."""

    name: str
    run: Callable[[Case, Asker], Steps]
    answers: int
    steps: int
    needs: str | None
    forms: tuple[str, ...]  # what it asks for, of FORMS
    about: str


KINDS: dict[str, Kind] = {}


def kind(name: str, *forms: str, answers: int = 1, steps: int = 1, needs: str | None = None) -> Callable:
    """Decorator: register a kind of feedback. The first line of its docstring is shown by --help."""

    def register(run: Callable[[Case, Asker], Steps]) -> Callable[[Case, Asker], Steps]:
        KINDS[name] = Kind(name, run, answers, steps, needs, forms, inspect.getdoc(run).splitlines()[0])
        return run

    return register


@dataclass(frozen=True)
class Case:
    """A record and which of its answers are asked about. `source` is the row as read, where its own fields are kept."""

    record: Record
    kind: str
    task: str
    numbers: tuple[int, ...]
    source: dict[str, Any] | None = None

    @property
    def texts(self) -> list[str]:
        return [self.record.answers[number].text for number in self.numbers]


@dataclass(frozen=True)
class Asker:
    """Whom to ask and how; the same for all rows."""

    provider: str
    model: str
    prompts: Prompts
    scale: tuple[float, float] = (1, 7)
    orders: str | None = None  # both | random | fixed; None is the kind's own way
    listwise: bool = False
    structured: bool = False
    temperature: float = 0.0
    max_tokens: int | None = None

    def question(self, prompt: str, case: Case, texts: list[str] | None = None, **more: Any) -> Question:
        """A question in the words of the prompt of that kind. `texts` are the answers, in the order shown."""
        name = FORM_OF_PROMPT.get(prompt, prompt)
        form, (low, high) = FORMS[name], self.scale
        structured = self.structured and form.json_words is not None
        texts = case.texts if texts is None else texts
        arguments = {"rating": {"low": low, "high": high}, "order": {"count": len(texts)}}.get(name, {})
        number = "a whole number" if isinstance(low, int) and isinstance(high, int) else "a number"
        words = {"low": low, "high": high, "number": number, "noun": NOUNS[case.task]}
        messages = self.prompts.of(prompt, case.task).messages(
            conversation=conversation_text(case.record.prompt),
            answer=material(texts[0]) if texts else "",
            answers=answers_text(texts),
            count=len(texts),
            reply=form.reply(structured, **words),
            **{key: material(value) for key, value in more.items()},
            **words,
        )
        return self._ask(messages, form.parser, arguments, schema_of(name, arguments) if structured else None)

    def next_turn(self, case: Case) -> Question:
        """The dialogue itself, to be continued."""
        return self._ask([{"role": m.role, "content": m.content} for m in case.record.prompt], "completion", {}, None)

    def _ask(self, messages: list[dict[str, str]], parser: str, arguments: dict, schema: dict | None) -> Question:
        request = request_of(self.provider, self.model, messages, temperature=self.temperature,
                             max_tokens=self.max_tokens, schema=schema)  # fmt: skip
        return Question(request, parser, arguments)


@dataclass
class Told:
    """How far a case has come: its questions so far, their outcomes, and its record once all are there."""

    case: Case
    questions: list[Question] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)
    record: Record | None = None

    @property
    def settled(self) -> bool:
        return all(outcome.state in SETTLED for outcome in self.outcomes)


def follow(case: Case, asker: Asker, outcome_of: Callable[[Question], Outcome]) -> Told:
    """Run a kind on what is known: `told.questions` are all that can be asked now, settled ones among them."""
    told, steps, outcomes = Told(case), KINDS[case.kind].run(case, asker), None
    try:
        while True:
            questions = steps.send(outcomes)
            outcomes = [outcome_of(question) for question in questions]
            told.questions += questions
            told.outcomes += outcomes
    except StopIteration as done:
        told.record = done.value
    return told


def questions_of(cases: Iterator[Case], asker: Asker, outcome_of: Callable[[Question], Outcome]) -> Iterator[Question]:
    """All questions that can be asked now, settled ones among them."""
    for case in cases:
        yield from follow(case, asker, outcome_of).questions


def expect_questions(cases: list[Case], asker: Asker) -> None:
    """Refuse rows that lack, all of them, what their kind asks about. Raises UserError."""
    for name in dict.fromkeys(case.kind for case in cases):
        if KINDS[name].needs and not any(next(KINDS[name].run(case, asker)) for case in cases if case.kind == name):
            raise UserError(f"no row has {KINDS[name].needs}: there is nothing to ask for --kind {name}")


def hashed(text: str, among: int) -> int:
    """A number below `among` that depends on the text alone."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") % among


def refusal_or_failure(outcome: Outcome) -> str | None:
    """The verdict of an outcome without a value, in the words of the records; None: it has not been answered yet."""
    if outcome.state in ("planned", "sent"):
        return None
    refused = outcome.state == "refused" or (outcome.state == "unparsed" and outcome.reason == "refusal")
    return "refused" if refused else "failed"


def unknown_kind(name: str) -> UserError:
    return UserError(f"--kind {name} is unknown; known: {', '.join(KINDS)}")
