"""What the kinds ask, and what they make of the replies: worked by hand."""

import dataclasses

import pytest

from utils.errors import UserError
from utils.feedback import KINDS, Asker, Case, PromptTemplates, follow
from utils.feedback.cases import expect_questions, hashed, questions_of
from utils.feedback.comparisons import combined
from utils.feedback.forms import MATERIAL
from utils.feedback.requests import RequestSettings
from utils.feedback.summary import ResultsSummary
from utils.llm.asking import Outcome
from utils.parsing import PARSERS, Unparsed
from utils.records import Answer, Message, Record, Verdict
from utils.world.requests import read_request

ASKER = Asker("openai", "judge-1", PromptTemplates([], MATERIAL))
PROMPT = (Message("user", "What is 3 + 4?"),)
RECORD = Record(PROMPT, (Answer("one", "m1"), Answer("two", "m2"), Answer("three", "m3")), where="rows.jsonl:1")
PLANNED = Outcome("planned")


def asked(question):
    """What the judge sees of a question."""
    return read_request(question.request.body["messages"][-1]["content"])


def said(text, finish="stop"):
    """Replies as the ledger keeps them: the same text to every question, or what a function says of each."""

    def outcome(question):
        reply = text(asked(question)) if callable(text) else text
        try:
            value = PARSERS[question.parser].parse(reply, **question.parser_args)
        except Unparsed as unparsed:
            return Outcome("unparsed", text=reply, finish_reason=finish, reason=unparsed.reason)
        return Outcome("parsed", value, reply, finish)

    return outcome


def told(kind, reply, numbers=(0, 1, 2), record=RECORD, asker=ASKER, task="dialogue"):
    return follow(Case(record, kind, task, numbers), asker, reply)


def choosing(best):
    """A judge that prefers the answer of this text, wherever it stands."""
    return said(lambda one: f"Answer: {next((k for k, v in one.answers.items() if v == best), 'C')}")


def summary(cases):
    counted = ResultsSummary()
    assert list(counted.watch(cases)) == cases
    return counted.lines()


def with_(**changes):
    return dataclasses.replace(ASKER, **changes)


# ---- single answers


@pytest.mark.parametrize(
    "kind, field, reply, value",
    [
        ("critique", "critique", "It tells.", "It tells."),
        ("refinement", "refinement", "So: A better response is: Count.", "Count."),
        ("rating", "rating", "Rating: 6", 6),
    ],
)
def test_facts_of_answers(kind, field, reply, value):
    found = told(kind, said(reply), (0, 2))
    assert [asked(q).parts["Answer"] for q in found.questions] == ["one", "three"]
    assert {asked(q).task for q in found.questions} == {kind}
    assert [getattr(a, field) for a in found.record.answers] == [value, None, value]
    assert found.record.id == RECORD.id and found.settled
    failed = told(kind, said(""), (0, 2))
    assert failed.record == RECORD and failed.settled
    assert [getattr(a, field) for a in told(kind, lambda q: PLANNED, (0, 2)).record.answers] == [None] * 3


def test_a_rating_on_another_scale():
    found = told("rating", said('{"rating": 85}'), (0,), asker=with_(scale=(0, 100), structured=True))
    (question,) = found.questions
    assert question.parser_args == {"low": 0, "high": 100} and found.record.answers[0].rating == 85
    assert "from 0 to 100" in asked(question).parts["Reply"] and '{"rating": N}' in asked(question).parts["Reply"]
    schema = question.request.body["response_format"]["json_schema"]["schema"]
    assert schema["properties"] == {"rating": {"type": "integer", "minimum": 0, "maximum": 100}}


def test_tasks_have_their_own_words():
    texts = {t: told("critique", said("x"), (0,), task=t).questions[0] for t in ("dialogue", "question", "summary")}
    assert len({question.request.key for question in texts.values()}) == 3


def test_free_text_is_never_structured():
    found = told("critique", said("x"), (0,), asker=with_(structured=True))
    assert "response_format" not in found.questions[0].request.body


def test_improving():
    answers = (Answer("one", critique="Ask."), Answer("two"), Answer("three", critique="Ask."))
    record = dataclasses.replace(RECORD, answers=answers)
    found = told("improve", said(lambda one: "three" if one.parts["Answer"] == "three" else "one?"), record=record)
    assert [asked(q).parts["Comment"] for q in found.questions] == ["Ask.", "Ask."]
    assert [a.refinement for a in found.record.answers] == ["one?", None, None]  # what comes back as it was is none
    assert told("improve", said("x")).questions == []
    with pytest.raises(UserError, match="no row has an answer with a critique"):
        expect_questions([Case(RECORD, "improve", "dialogue", (0,))], ASKER)


def test_what_was_asked_in_vain_is_said():
    """An answer that comes back as it was, or not at all, was asked about; one that is still to be answered was not."""
    answers = tuple(Answer(text, critique="Vague.") for text in ("same", "no", "new", "later"))
    replies = {"same": said("same"), "no": said("I cannot comply with this."), "new": said("better")}
    judge = lambda question: replies.get(asked(question).parts["Answer"], lambda q: PLANNED)(question)  # noqa: E731
    record = told("improve", judge, (0, 1, 2, 3), Record(PROMPT, answers)).record
    assert [answer.refinement for answer in record.answers] == [None, None, "better", None]
    assert record.meta["not_improved"] == [{"answer": 0, "why": "unchanged"}, {"answer": 1, "why": "refusal"}]


def test_completions():
    asker = with_(settings=RequestSettings(temperature=0.5, max_tokens=9))
    found = told("completion", said("7"), (), Record(PROMPT), asker)
    assert found.questions[0].request.body["messages"] == [{"role": "user", "content": "What is 3 + 4?"}]
    assert found.record.answers == (Answer("7", "judge-1", {"temperature": 0.5, "max_tokens": 9}),)
    assert told("completion", said("7", "length"), (), Record(PROMPT)).record.answers == ()
    assert told("completion", lambda q: Outcome("refused", text="no"), (), Record(PROMPT)).record.answers == ()


# ---- comparisons


@pytest.mark.parametrize(
    "verdicts, one",
    [
        (["a", "a"], "a"), (["b"], "b"), (["a", "b"], "tie"), (["a", "tie"], "tie"), (["tie", "tie"], "tie"),
        (["a", "failed"], "failed"), (["refused", "a"], "refused"), (["refused", "failed"], "failed"),
    ],
)  # fmt: skip
def test_two_orders_are_one_verdict(verdicts, one):
    assert combined(verdicts) == one


def test_both_orders_are_asked():
    found = told("preference", choosing("two"), (0, 1))
    assert [asked(q).answers for q in found.questions] == [{"A": "one", "B": "two"}, {"A": "two", "B": "one"}]
    assert found.record.verdicts == (Verdict(0, 1, "b", "judge-1"),)
    assert found.record.meta == {"by_order": [{"a": 0, "b": 1, "ab": "b", "ba": "b"}]}
    assert summary([found])[1] == "both orders: 1 of 1 pairs judged alike; the answer shown first won 1 of 2"


def test_a_judge_that_sees_only_the_place_ties():
    found = told("preference", said("Answer: A"), (1, 0))
    assert found.record.verdicts == (Verdict(1, 0, "tie", "judge-1"),)
    assert found.record.meta == {"by_order": [{"a": 1, "b": 0, "ab": "a", "ba": "b"}]}
    assert summary([found])[1] == "both orders: 0 of 1 pairs judged alike; the answer shown first won 2 of 2"


@pytest.mark.parametrize("order, shown", [("fixed", {"one": "A"}), ("random", None)])
def test_one_order(order, shown):
    found = told("preference", choosing("two"), (0, 1), asker=with_(orders=order))
    (question,) = found.questions
    place = "ab" if asked(question).answers["A"] == "one" else "ba"
    assert found.record.verdicts == (Verdict(0, 1, "b", "judge-1", place),) and found.record.meta == {}
    assert order == "random" or place == "ab"


def test_random_orders_are_balanced_and_stay():
    places = []
    for number in range(200):
        record = dataclasses.replace(RECORD, id=str(number))
        places.append(told("preference", choosing("two"), (0, 1), record, with_(orders="random")).record.verdicts)
    assert 70 < sum(v[0].order == "ab" for v in places) < 130
    again = told("preference", choosing("two"), (0, 1), dataclasses.replace(RECORD, id="7"), with_(orders="random"))
    assert again.record.verdicts == places[7] and hashed("a", 2) in (0, 1)


def test_failures_and_refusals_are_verdicts():
    assert told("preference", said("Hm."), (0, 1)).record.verdicts[0].preferred == "failed"
    assert told("preference", said("I cannot compare these."), (0, 1)).record.verdicts[0].preferred == "refused"
    refused = told("preference", lambda q: Outcome("refused", text="no"), (0, 1))
    assert refused.record.verdicts[0].preferred == "refused" and refused.settled
    waiting = told("preference", lambda q: PLANNED, (0, 1))
    assert waiting.record == RECORD and not waiting.settled  # no verdict yet is no failure
    failed = told("preference", lambda q: Outcome("failed", reason="HTTP 400"), (0, 1))
    assert failed.record.verdicts[0].preferred == "failed" and not failed.settled
    assert told("ranking", lambda q: PLANNED, asker=with_(listwise=True)).record == RECORD


def test_identical_answers_are_a_tie_that_nobody_is_asked_about():
    record = Record(PROMPT, (Answer("x", "m1"), Answer("x", "m2")))
    found = told("preference", said("Answer: A"), (0, 1), record)
    assert found.questions == [] and found.record.verdicts == (Verdict(0, 1, "tie", "identical answers"),)


def test_a_preference_is_between_two():
    with pytest.raises(UserError, match="rows.jsonl:1: 3 answers to compare; name two models with --base_models"):
        told("preference", said("Answer: A"))


def test_ranking_by_pairs():
    found = told("ranking", choosing("three"))
    assert len(found.questions) == 6
    assert [(v.a, v.b, v.preferred) for v in found.record.verdicts] == [(0, 1, "tie"), (0, 2, "b"), (1, 2, "b")]
    assert [answer.rank for answer in found.record.answers] == [None] * 3


def best_first(texts):
    """A judge that orders by a list of groups of texts."""

    def reply(one):
        letters = {text: letter for letter, text in one.answers.items()}
        return "Order: " + " > ".join(" = ".join(letters[text] for text in group) for group in texts)

    return said(reply)


def test_ranking_of_all_at_once():
    found = told("ranking", best_first([["three"], ["one", "two"]]), asker=with_(listwise=True))
    (question,) = found.questions
    assert question.parser_args == {"count": 3} and "3 responses" in asked(question).parts["Task: order"]
    assert [answer.rank for answer in found.record.answers] == [2, 2, 1]
    assert [(v.a, v.b, v.preferred) for v in found.record.verdicts] == [(0, 1, "tie"), (0, 2, "b"), (1, 2, "b")]
    shown = list(asked(question).answers.values())
    place = {text: number for number, text in enumerate(shown)}
    for verdict in found.record.verdicts:
        a, b = (RECORD.answers[n].text for n in (verdict.a, verdict.b))
        assert verdict.order == ("ab" if place[a] < place[b] else "ba")
    fixed = told("ranking", best_first([["three"], ["two"], ["one"]]), asker=with_(listwise=True, orders="fixed"))
    assert list(asked(fixed.questions[0]).answers.values()) == ["one", "two", "three"]
    assert [answer.rank for answer in fixed.record.answers] == [3, 2, 1]


def test_ranking_of_all_in_both_orders():
    asker = with_(listwise=True, orders="both")
    alike = told("ranking", best_first([["two"], ["three"], ["one"]]), asker=asker)
    assert [list(asked(q).answers.values()) for q in alike.questions] == [
        ["one", "two", "three"],
        ["three", "two", "one"],
    ]
    assert [answer.rank for answer in alike.record.answers] == [3, 1, 2]
    biased = told("ranking", said("Order: A > B > C"), asker=asker)
    assert [v.preferred for v in biased.record.verdicts] == ["tie"] * 3
    assert [answer.rank for answer in biased.record.answers] == [1, 1, 1]
    assert biased.record.meta["by_order"][0] == {"a": 0, "b": 1, "ab": "a", "ba": "b"}
    failed = told("ranking", said("Order: A > B"), asker=asker)
    assert [v.preferred for v in failed.record.verdicts] == ["failed"] * 3
    assert [answer.rank for answer in failed.record.answers] == [None] * 3


def test_labels_show_an_order_that_the_instruction_decides():
    records = [Record((Message("user", f"task {n}"),), (Answer("one"), Answer("two"))) for n in range(200)]
    first = [asked(told("label", choosing("two"), (0, 1), r).questions[0]).answers["A"] for r in records]
    assert 70 < first.count("one") < 130
    other = Record(records[0].prompt, (Answer("one"), Answer("zwei")))
    assert asked(told("label", choosing("two"), (0, 1), other).questions[0]).answers["A"] == {"two": "zwei"}.get(
        first[0], "one"
    )


def test_explaining():
    answers = (Answer("one", critique="Ask."), Answer("two", refinement="better"), Answer("three"))
    record = Record(PROMPT, answers, (Verdict(0, 2, "b"), Verdict(0, 1, "tie")), meta={"feedback_type": "prefer"})
    found = told("explain", said("Answer: B"), (), record)
    assert [asked(q).parts.get("Answer A") for q in found.questions] == ["three", None, "better"]
    assert asked(found.questions[1]).parts["Comment"] == "Ask." and asked(found.questions[2]).answers["B"] == "two"
    assert found.record.meta["explain"] == [
        {"of": "preference", "answers": [2, 0], "aspect": "B"},
        {"of": "critique", "answers": [0], "aspect": "B"},
        {"of": "refinement", "answers": [1], "aspect": "B"},
    ]
    assert summary([found]) == ["3 questions: 3 parsed", "prefer: B 3"]
    unparsed = told("explain", said("Hm."), (), dataclasses.replace(record, meta={}))
    assert summary([unparsed])[2:] == ["preference: unparsed 1", "critique: unparsed 1", "refinement: unparsed 1"]


# ---- several steps


def lesson(one):
    if one.task == "problem":
        step = {name: "x" for name in ("Question", "Answer", "Hint", "Incorrect Response", "Feedback")}
        return str({"Problem": "p", "SubProblems": [step], "Facts": ["f"], "Solution": "s"})
    assert '"Problem": "p"' in one.text
    keys = ("Student", "Evaluation of Student Response", "Action Based on Evaluation", "Subproblem State", "Subproblem")
    return str([dict.fromkeys([*keys, "Tutorbot"], "x")])


def test_a_lesson_is_asked_for_once_its_problem_is_there():
    case = Case(Record((Message("user", "diffusion"),)), "conversation", "dialogue", ())
    assert KINDS["conversation"].steps == 2
    known = {}

    def outcome_of(question):
        return known.get(question.request.key, PLANNED)

    for number, task in enumerate(["problem", "conversation"], start=1):
        questions = list(questions_of(iter([case]), ASKER, outcome_of))
        assert len(questions) == number and asked(questions[-1]).task == task
        known[questions[-1].request.key] = said(lesson)(questions[-1])
    found = follow(case, ASKER, outcome_of)
    assert found.record.meta["problem"]["Problem"] == "p" and found.record.meta["lesson"][0]["Tutorbot"] == "x"
    failed = told("conversation", said("I do not know."), (), case.record)
    assert len(failed.questions) == 1 and failed.record == case.record


def test_the_summary_leaves_out_what_was_known_before():
    before = dataclasses.replace(RECORD, meta={"by_order": [{"a": 0, "b": 1, "ab": "a", "ba": "b"}]})
    found = told("preference", choosing("two"), (0, 1), before)
    assert len(found.record.meta["by_order"]) == 2
    assert summary([found])[1] == "both orders: 1 of 1 pairs judged alike; the answer shown first won 1 of 2"


def test_the_summary_counts_and_names():
    rows = [told("rating", said(text), (0,)) for text in ("Rating: 6", "Rating: 9", "good", "good")]
    rows.append(told("rating", lambda q: Outcome("failed", reason="500"), (0,)))
    assert summary(rows) == [
        "5 questions: 3 unparsed, 1 parsed, 1 failed",
        "  2 unparsed: no rating (rows.jsonl:1)",
        "  1 unparsed: out of range (rows.jsonl:1)",
        "  1 failed: 500 (rows.jsonl:1)",
    ]
    assert summary([]) == ["0 questions: none"]
