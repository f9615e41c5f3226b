"""Cases (rows to be asked about), the model that is asked, and the run of a kind of feedback from questions to record.

A kind is a generator function `kind(case, asker)`: it yields lists of questions, is sent their outcomes, and returns
the record with the feedback. It is a pure function of those, so that it can be run again at any time from the outcomes
in the ledger. Questions that build on others are asked once these have values.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from utils.errors import UserError
from utils.feedback.forms import FORM_OF_PROMPT, FORMS, NOUNS, schema_of
from utils.feedback.prompts import PromptTemplates, answers_text, conversation_text, material
from utils.feedback.requests import RequestSettings, Wanted
from utils.llm.asking import Outcome, Question
from utils.records import Record

# The outcomes that stay; questions with another outcome are asked (again) by the same command.
SETTLED = ("parsed", "unparsed", "refused")
Steps = Generator[list[Question], list[Outcome], Record]


@dataclass(frozen=True)
class Kind:
    """A kind of feedback.

    Args:
        name: its name for --kind.
        run: the generator function.
        answers: the fewest answers that a row needs.
        steps: the rounds of questions, each built on the outcomes of those before.
        needs: what at least one row must have besides, in words, or None.
        forms: the forms of reply that it asks for, of FORMS.
        about: the line of --help.
    """

    name: str
    run: Callable[[Case, Asker], Steps]
    answers: int
    steps: int
    needs: str | None
    forms: tuple[str, ...]
    about: str


KINDS: dict[str, Kind] = {}


def kind(name: str, *forms: str, answers: int = 1, steps: int = 1, needs: str | None = None) -> Callable:
    """Register a kind of feedback. The first line of the function's docstring is shown by --help.

    Args:
        name: its name for --kind.
        *forms: the forms of reply that it asks for, of FORMS.
        answers: the fewest answers that a row needs.
        steps: the rounds of questions.
        needs: what at least one row must have besides, in words, or None.

    Returns:
        The decorator.
    """

    def register(run: Callable[[Case, Asker], Steps]) -> Callable[[Case, Asker], Steps]:
        about, *_ = inspect.getdoc(run).splitlines()
        KINDS[name] = Kind(name, run, answers=answers, steps=steps, needs=needs, forms=forms, about=about)
        return run

    return register


@dataclass(frozen=True)
class Case:
    """A record to be asked about.

    Args:
        record: the row as a record.
        kind: the kind of feedback to ask for.
        task: dialogue, question or summary.
        numbers: the numbers of the answers that are asked about.
        source: the row as read, where its own fields are kept; else None.
        sample: the number of the sample, from 0, where a row is asked about several times.
    """

    record: Record
    kind: str
    task: str
    numbers: tuple[int, ...]
    source: dict[str, Any] | None = None
    sample: int = 0

    @property
    def texts(self) -> list[str]:
        """The answers that are asked about."""
        return [self.record.answers[number].text for number in self.numbers]


@dataclass(frozen=True)
class Asker:
    """The model that is asked, and the settings of its questions; the same for all rows.

    Args:
        provider: openai, anthropic or replay.
        model: the model's name.
        prompts: the prompt templates of every kind and task.
        scale: the lowest and the highest rating.
        orders: which answer is shown first: both, random or fixed; None is the kind's own way.
        listwise: whether a ranking asks for one order of all answers instead of pairs.
        structured: whether replies are JSON by a schema, for the forms that have one.
        settings: what its requests have besides their words.
    """

    provider: str
    model: str
    prompts: PromptTemplates
    scale: tuple[float, float] = (1, 7)
    orders: str | None = None
    listwise: bool = False
    structured: bool = False
    settings: RequestSettings = field(default_factory=RequestSettings)

    def question(self, prompt: str, case: Case, texts: list[str] | None = None, **more: Any) -> Question:
        """Return a question in the words of a prompt template.

        Args:
            prompt: the kind of prompt, of MATERIAL.
            case: the row that is asked about.
            texts: the answers in the order shown; None shows those of the case.
            **more: further material, by its name in the template.

        Returns:
            The question, with the parser that reads the reply.
        """
        name = FORM_OF_PROMPT.get(prompt, prompt)
        form, (low, high) = FORMS[name], self.scale
        if texts is None:
            texts = case.texts
        arguments = {}
        if name == "rating":
            arguments = {"low": low, "high": high}
        elif name == "order":
            arguments = {"count": len(texts)}
        structured = self.structured and form.json_words is not None
        schema = None
        if structured:
            schema = schema_of(name, arguments)
        number = "a number"
        if isinstance(low, int) and isinstance(high, int):
            number = "a whole number"
        words = {"low": low, "high": high, "number": number, "noun": NOUNS[case.task]}
        messages = self.prompts.of(prompt, case.task).messages(
            conversation=conversation_text(case.record.prompt),
            answer="".join(map(material, texts[:1])),
            answers=answers_text(texts),
            count=len(texts),
            reply=form.reply(structured, **words),
            **{key: material(value) for key, value in more.items()},
            **words,
        )
        return self._ask(messages, form.parser, arguments=arguments, schema=schema, sample=case.sample)

    def next_turn(self, case: Case) -> Question:
        """Return the dialogue itself, to be continued."""
        messages = [{"role": message.role, "content": message.content} for message in case.record.prompt]
        return self._ask(messages, "completion", arguments={}, schema=None, sample=case.sample)

    def _ask(
        self, messages: list[dict[str, str]], parser: str, arguments: dict, schema: dict | None, sample: int
    ) -> Question:
        wanted = Wanted(
            self.provider, self.model, messages, parser=parser, arguments=arguments, schema=schema, sample=sample
        )
        return self.settings.question(wanted)


@dataclass
class CaseResult:
    """A case with the outcomes that are known so far.

    Args:
        case: the row that is asked about.
        questions: its questions so far.
        outcomes: their outcomes.
        record: the record with the feedback, once there are no further questions.
    """

    case: Case
    questions: list[Question] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)
    record: Record | None = None

    @property
    def settled(self) -> bool:
        """Tell whether every question has an outcome that stays."""
        return all(outcome.state in SETTLED for outcome in self.outcomes)


def follow(case: Case, asker: Asker, outcome_of: Callable[[Question], Outcome]) -> CaseResult:
    """Run a kind on the outcomes that are known. The result's questions are all that can be asked now, settled ones
    among them."""
    result, steps, outcomes = CaseResult(case), KINDS[case.kind].run(case, asker), None
    try:
        while True:
            questions = steps.send(outcomes)
            outcomes = [outcome_of(question) for question in questions]
            result.questions += questions
            result.outcomes += outcomes
    except StopIteration as done:
        result.record = done.value
    return result


def questions_of(cases: Iterator[Case], asker: Asker, outcome_of: Callable[[Question], Outcome]) -> Iterator[Question]:
    """Yield all questions that can be asked now, settled ones among them."""
    for case in cases:
        yield from follow(case, asker, outcome_of).questions


def expect_questions(cases: Iterable[Case], asker: Asker) -> list[str]:
    """Return the kinds of the cases. Raises UserError where no row of a kind has what the kind asks about."""
    has_questions: dict[str, bool] = {}
    for case in cases:
        found = KINDS[case.kind]
        if not has_questions.get(case.kind):
            has_questions[case.kind] = not found.needs or bool(next(found.run(case, asker)))
    for name, found in has_questions.items():
        if not found:
            raise UserError(f"no row has {KINDS[name].needs}: there is nothing to ask for --kind {name}")
    return list(has_questions)


def hashed(text: str, among: int) -> int:
    """Return a number below `among` that depends on the text alone."""
    # Not hash(): Python seeds that anew in every process.
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") % among


def refusal_or_failure(outcome: Outcome) -> str | None:
    """Return the verdict of an outcome without a value, in the words of the records; None: it is not answered yet."""
    if outcome.state in ("planned", "sent"):
        return None
    if outcome.state == "refused" or (outcome.state == "unparsed" and outcome.reason == "refusal"):
        return "refused"
    return "failed"
