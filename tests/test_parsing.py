"""Parsing as a whole: what is written is read, nothing crashes, and two verdicts are never one."""

import contextlib
import json
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from utils.parsing import PARSERS, Unparsed
from utils.parsing.base import is_refusal, json_value, take_objects
from utils.parsing.texts import PROBLEM, SUBPROBLEM, TURN

ARGUMENTS = {"rating": {"low": 1, "high": 7}, "order": {"count": 4}}
QUICK = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
LETTER = {"a": "A", "b": "B", "tie": "C"}
orders = st.permutations(range(4)).flatmap(
    lambda items: st.lists(st.booleans(), min_size=3, max_size=3).map(lambda ties: grouped(items, ties))
)
# Pieces of real replies in any order say more of the parsers than letters at random.
pieces = st.sampled_from(
    ["Rating: 6", "Rating:", "6", "7", "/7", "Answer: A", "Answer:", "A", "B", "(b)", "C", " > ", " = ", "Order: ",
     "\n", " ", "{", "}", '"rating"', ": ", '"preference"', "[", "]", "```", "json", "A better answer is:", "**", "NaN",
     "<think>", "</think>", "### Reply\n", "Human:", "\n\n", "not", "better", "is", "’", "６", "\x00", "\ud800"]
)  # fmt: skip
replies = st.one_of(st.text(), st.lists(pieces).map("".join))


def grouped(items, ties):
    """Groups of equals, [[2], [0, 3], [1]], of a permutation and of which neighbours are equal."""
    groups = [[items[0]]]
    for item, tie in zip(items[1:], ties, strict=True):
        if tie:
            groups[-1].append(item)
        else:
            groups.append([item])
    return [sorted(group) for group in groups]


def parsed(name, text):
    return PARSERS[name].parse(text, **ARGUMENTS.get(name, {}))


def fails(name, text):
    with pytest.raises(Unparsed) as failed:
        parsed(name, text)
    return failed.value.reason


@pytest.mark.parametrize("name", sorted(PARSERS))
@QUICK
@given(text=replies)
def test_nothing_crashes_and_values_are_json(name, text):
    try:
        value = parsed(name, text)
    except Unparsed as failed:
        assert 0 < len(failed.reason) < 60
    else:
        assert json.loads(json.dumps(value, allow_nan=False)) == value


@QUICK
@given(
    st.one_of(st.integers(1, 7), st.floats(1, 7).map(lambda x: round(x, 3))),
    st.sampled_from(
        [
            "Rating: {}",
            "{}",
            "**{}**",
            "Rating: {}/7",
            '{{"rating": {}}}',
            '```\n{{"rating": {}}}\n```',
            "Ok.\n\nRating: {}",
        ]
    ),
)
def test_a_written_rating_is_read(value, form):
    assert parsed("rating", form.format(value)) == value


@QUICK
@given(
    st.sampled_from(sorted(LETTER)),
    st.sampled_from(["Answer: {}", "({})", "{}", '{{"preference": "{}"}}', "Answer: ({})", "So:\n\n**Answer:** {}\n"]),
)
def test_a_written_preference_is_read(value, form):
    assert parsed("preference", form.format(LETTER[value])) == value
    assert parsed("preference", form.format(LETTER[value].lower())) == value


@QUICK
@given(orders, st.sampled_from(["Order: {}", "{}", '{{"order": "{}"}}', "Ranking: {}."]))
def test_a_written_order_is_read(value, form):
    chain = " > ".join(" = ".join("ABCD"[item] for item in group) for group in value)
    if form == "{}" and ">" not in chain:
        return  # nothing marks a chain of equals alone as an order
    assert parsed("order", form.format(chain)) == value


TWO = {
    "rating": ([1, 2, 3, 4, 5, 6, 7], ["Rating: {}", "**Rating:** {}", '{{"rating": {}}}', "Score = {}/7"]),
    "preference": (["A", "B", "C"], ["Answer: {}", "[[{}]]", '{{"preference": "{}"}}', "({})", "**Winner:** {}"]),
    "explain": (["A", "B", "C"], ["Answer: {}", '{{"answer": "{}"}}', "{}"]),
    "order": (["A > B > C > D", "B > A = C > D", "D > C > B > A"], ["Order: {}", '{{"order": "{}"}}', "Ranking: {}"]),
}


@pytest.mark.parametrize("name", sorted(TWO))
@QUICK
@given(data=st.data(), between=st.sampled_from(["\n", "\n\n", "\nOne could also say:\n", "\n\nOn the other hand:\n"]))
def test_two_verdicts_are_none(name, data, between):
    values, forms = TWO[name]
    one, other = data.draw(st.permutations(values))[:2]
    first, second = data.draw(st.sampled_from(forms)), data.draw(st.sampled_from(forms))
    fails(name, first.format(one) + between + second.format(other))


WORDED = {"rating": "Rating: {}", "preference": "Answer: {}", "explain": "Answer: {}", "order": "Order: {}"}


@pytest.mark.parametrize("name", sorted(TWO))
@pytest.mark.parametrize("again", ["No, wait.\n", "Hmm, wait.\n", "On second thought, B has a flaw.\n", "Final "])
def test_a_judge_that_corrects_itself_is_read(name, again):
    """What it says last counts if it says that it corrects itself, or that this is final; else nothing does."""
    first, second, *_ = TWO[name][0]
    form = WORDED[name]
    corrected = f"{form.format(first)}\n\n{again}{form.format(second)}"
    assert parsed(name, corrected) == parsed(name, form.format(second)) != parsed(name, form.format(first))
    assert fails(name, f"{form.format(first)}\n\nNo, wait. There is a flaw.") == "verdict taken back"


@QUICK
@given(st.text(min_size=1).filter(str.strip), st.text())
def test_the_last_trigger_counts(answer, before):
    answer = answer.replace("`", "").replace('"', "").lstrip("* ”").strip()
    if not answer or "better" in answer.lower() or answer.startswith("TL;DR:") or "<think>" in before + answer:
        return
    assert parsed("refinement", f"{before}\nA better answer is: none\nA better answer is: {answer}") == answer


@QUICK
@given(replies)
def test_cleaning_twice_changes_nothing(text):
    try:
        once = parsed("improve", text)
        twice = parsed("improve", once)
    except Unparsed:
        return
    assert once == twice


def test_tutoring_documents():
    step = dict.fromkeys(SUBPROBLEM, "x")
    problem = {**dict.fromkeys(PROBLEM, "x"), "SubProblems": [step, step]}
    turn = dict.fromkeys(TURN, "x")
    assert parsed("problem", json.dumps(problem)) == problem
    assert parsed("problem", f"Here it is:\n```json\n{json.dumps(problem, indent=1)}\n```") == problem
    assert parsed("problem", str(problem)) == problem
    assert parsed("conversation", f"{json.dumps([turn, turn])}\nHope that helps.") == [turn, turn]
    assert fails("conversation", f"{json.dumps([turn])}\n{json.dumps([turn])}") == "different JSON values"
    assert fails("conversation", json.dumps([turn, {**turn, "Tutorbot": 3} | {"Student": None}])) == "not text: Student"
    del step["Hint"]
    assert fails("problem", json.dumps(problem)) == "field missing: Hint"


def test_json_inside_text():
    assert take_objects('a {"x": {"y": 1}} b {c} {"z": 2}') == ([{"x": {"y": 1}}, {"z": 2}], "a  b {c} ")
    assert json_value("it is {'a': None}") == {"a": None}
    with pytest.raises(Unparsed, match="not a number"):
        take_objects('{"x": NaN}')
    assert fails("problem", "[" * 100_000) == "not JSON"
    assert fails("problem", "{" + "1" * 10_000) == "not JSON"


REPEATED = [
    " ", "(", "*", '"', "[[", "<think>", "Rating: ", "A\n", "A > ", "6 out of ", "I rate ", "Human: \n \n", "(((\n",
    "A better answer is:", "Revised answer:\n", "---\n", "no, wait. ", "回答", "(A) ", "“ ", "1. A\n",
    "<answer>A</answer>", "because ",
    "Here is the revised answer ", "\n\n", "# ", "\\boxed{A} ", ", A", "★", "- ", "I cannot ",
]  # fmt: skip


@pytest.mark.parametrize("name", sorted(PARSERS))
@pytest.mark.parametrize("unit", REPEATED)
def test_no_reply_takes_long(name, unit):
    assert_linear(name, unit, 10_000)


@pytest.mark.parametrize("name", sorted(PARSERS))
@pytest.mark.parametrize("unit", ["".join(REPEATED).replace("<think>", ""), '{"a": '], ids=["all", "braces"])
def test_a_hundred_kilobytes_take_no_long_time(name, unit):
    assert_linear(name, unit, 100_000)


def assert_linear(name, unit, length):
    """Assert that ten times the text takes about ten times as long, and far less than a hundred times."""
    for _ in range(3):
        times = []
        for characters in (length // 10, length):
            text = "Sure" + unit * (characters // len(unit)) + "so"
            start = time.process_time()
            with contextlib.suppress(Unparsed):
                parsed(name, text)
            times.append(time.process_time() - start)
        small, large = times
        # A busy machine disturbs a measurement; quadratic work fails all three.
        if large < 30 * max(small, 0.001):
            return
    raise AssertionError(times)


def test_refusals_are_short_and_say_so_at_once():
    assert is_refusal("I’m sorry, but I can’t help with that.")
    assert is_refusal("Unfortunately I am unable to fulfil this request.")
    assert not is_refusal("The answer can't be right: 3 + 4 is 7.")
    assert not is_refusal("It is long. " * 20 + "I cannot help with this.")


def test_every_parser_has_a_version():
    assert all(parser.version >= 1 for parser in PARSERS.values())
    texts = {"critique", "refinement", "improve", "completion", "problem", "conversation"}
    assert set(PARSERS) == {"rating", "preference", "order", "explain"} | texts


def test_another_scale_and_other_labels():
    assert PARSERS["rating"].parse("Rating: 0", low=0, high=10) == 0
    assert PARSERS["rating"].parse("Rating: -2/5", low=-5, high=5) == -2
    assert PARSERS["rating"].parse("85", low=0, high=100) == 85
    assert PARSERS["preference"].parse("Answer: m", labels=["m", "M2"]) == "a"
    assert PARSERS["preference"].parse("Answer: 2", labels=["1", "2"]) == "b"
    with pytest.raises(Unparsed, match="no verdict"):
        PARSERS["preference"].parse("They are equally good.", labels=["A", "B"])
