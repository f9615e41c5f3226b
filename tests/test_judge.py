"""The oracle in words: it says what the oracle's functions say, errs at the rates it is told, and can be parsed."""

import itertools
import json
import math
import random

import pytest
from judging import cases, conversation, request
from world_examples import GOOD, RIGHT, WRONG

from utils.parsing import PARSERS
from utils.parsing.base import Unparsed
from utils.world.exchanges import Turn, read_prompt
from utils.world.judge import CANNOT, CANNOT_TUTOR, Judge
from utils.world.oracle import assess, prefer, preference_probability
from utils.world.requests import read_request
from utils.world.tasks import critique, improve, lesson, mock_conversation
from utils.world.teachers import TEACHERS

TELLS = "The answer is 7."  # 2.5 - 2: rated 1
BARE = "Not quite."  # 4


def said(task, turns, *answers, judge=None, **rest):
    how = {name: rest.pop(name) for name in ("model", "structured", "sample") if name in rest}
    return (judge or Judge()).reply(request(task, turns, *answers, **rest), **how)


# --- what it says is what the oracle knows ---


def test_by_hand():
    exact = Judge(noise_temperature=0)
    assert said("rating", WRONG, GOOD) == "Rating: 7" and said("rating", WRONG, BARE) == "Rating: 4"
    assert said("preference", WRONG, BARE, GOOD, judge=exact) == "Answer: B"
    assert said("preference", WRONG, GOOD, BARE, judge=exact) == "Answer: A"
    assert said("preference", WRONG, GOOD, GOOD + " You can do this!", judge=exact) == "Answer: C"  # both rated 7
    assert said("order", WRONG, TELLS, GOOD, BARE, GOOD, judge=exact) == "Order: B = D > C > A"
    assert said("critique", WRONG, GOOD) == "It is a good answer."
    assert said("explain", WRONG, GOOD, TELLS) == "Answer: A"  # a hint and a question, and it does not tell: 4.5
    assert said("explain", WRONG, GOOD, GOOD.replace("Not quite", "That is right")) == "Answer: B"
    assert said("explain", WRONG, GOOD, GOOD + " You should know this by now.") == "Answer: C"
    telling_and_rude = GOOD + " You should know this by now. The answer is 7."
    assert said("explain", WRONG, GOOD, telling_and_rude) == "Answer: A"  # 2.0 against 0.8
    assert said("explain", WRONG, BARE, comment="It should help with 4 + 3.") == "Answer: A"
    assert said("explain", WRONG, TELLS, comment="It should say what holds: the student is wrong.") == "Answer: B"


def test_ratings_and_critiques_are_the_oracles():
    for exchange, turns, (text,) in cases(300, 1):
        assert said("rating", turns, text) == f"Rating: {assess(exchange, text).rating}"
        assert said("critique", turns, text) == critique(exchange, text)


def test_preferences_are_the_oracles_draws_whichever_comes_first():
    judge, flips = Judge(noise_temperature=1.5, seed=7), 0
    for exchange, turns, (one, other) in cases(300, 2):
        first, second = sorted((one, other))
        seen = assess(exchange, first), assess(exchange, second)
        verdict = prefer(*seen, 1.5, 7, conversation(turns), first, second)
        expected = {"a": "A", "b": "B", "tie": "C"}[verdict]
        assert said("preference", turns, first, second, judge=judge) == f"Answer: {expected}"
        swapped = {"A": "B", "B": "A", "C": "C"}[expected]
        assert said("preference", turns, second, first, judge=judge) == f"Answer: {swapped}"
        flips += verdict != "tie" and (verdict == "a") != (seen[0].utility > seen[1].utility)
    assert 10 < flips < 120  # there was noise


def test_orders_do_not_depend_on_the_letters():
    for _, turns, texts in cases(50, 4, seed=3):
        orders = set()
        for shown in itertools.permutations(texts):
            groups = PARSERS["order"].parse(said("order", turns, *shown), count=4)
            orders.add(tuple(frozenset(shown[number] for number in group) for group in groups))
        assert len(orders) == 1
        assert sum(map(len, orders.pop())) == len(set(texts))


@pytest.mark.parametrize("temperature", [0.7, 2.0])
def test_orders_have_the_marginals_of_bradley_terry(temperature):
    """How often the better of two comes first, against sum of sigmoid(gap / T): within 3.5 standard errors, over all
    pairs and over the close ones."""
    judge = Judge(noise_temperature=temperature, seed=11)
    observed, expected, variance = [0, 0], [0.0, 0.0], [0.0, 0.0]
    for exchange, turns, texts in cases(1500, 3, seed=5):
        groups = PARSERS["order"].parse(said("order", turns, *texts, judge=judge), count=3)
        place = {number: at for at, group in enumerate(groups) for number in group}
        utilities = [assess(exchange, text).utility for text in texts]
        for a, b in itertools.combinations(range(3), 2):
            if texts[a] == texts[b]:
                assert place[a] == place[b]
                continue
            if utilities[a] < utilities[b]:
                a, b = b, a
            p = preference_probability(utilities[a], utilities[b], temperature)
            for kind in (0, 1) if utilities[a] - utilities[b] < 1 else (0,):
                observed[kind] += place[a] < place[b]
                expected[kind] += p
                variance[kind] += p * (1 - p)
    for kind in (0, 1):
        assert abs(observed[kind] - expected[kind]) < 3.5 * math.sqrt(variance[kind])
        assert variance[kind] > 50


# --- switches that make it worse ---


def test_the_noise_rate_is_kept():
    """A judge that errs in 1 of 4 against one that does not: the number of differences is binomial."""
    right, wrong = Judge(noise_temperature=0), Judge(noise_temperature=0, noise=0.25)
    count = dict.fromkeys(("rating", "preference", "order", "explain"), 0)
    differ = dict(count)
    for _, turns, texts in cases(1500, 2, seed=9):
        for task in count:
            shown = texts[:1] if task == "rating" else texts
            one, other = (said(task, turns, *shown, judge=judge) for judge in (right, wrong))
            if one != "Answer: C" or task == "explain":  # no noise makes a tie a verdict
                count[task] += "=" not in one
                differ[task] += one != other
            if task == "rating":
                gap = abs(int(one[-1]) - int(other[-1]))
                assert gap <= 2 and 1 <= int(other[-1]) <= 7
            if task == "preference" and one != other:
                assert {one, other} == {"Answer: A", "Answer: B"}
                assert said(task, turns, *shown[::-1], judge=wrong) == one  # the same error in the other order
    for task, n in count.items():
        assert abs(differ[task] - n / 4) < 3.5 * math.sqrt(n * 3 / 16), task
    assert min(count.values()) > 500


def test_noise_of_an_order_reverses_it():
    right, wrong = Judge(), Judge(noise=1.0)
    for _, turns, texts in cases(50, 4, seed=2):
        one, other = (said("order", turns, *texts, judge=judge) for judge in (right, wrong))
        assert other.removeprefix("Order: ").split(" > ") == one.removeprefix("Order: ").split(" > ")[::-1]


def test_position_bias_is_found_by_asking_both_orders():
    fair, biased = Judge(noise_temperature=0), Judge(noise_temperature=0, position_bias=0.3)
    decided = firsts = 0
    for _, turns, (one, other) in cases(1500, 2, seed=4):
        verdict = said("preference", turns, one, other, judge=fair)
        if verdict == "Answer: B":
            decided += 1
            firsts += said("preference", turns, one, other, judge=biased) == "Answer: A"
    assert abs(firsts - 0.3 * decided) < 3.5 * math.sqrt(decided * 0.21) and decided > 300
    always = Judge(position_bias=1.0)
    assert said("order", WRONG, TELLS, GOOD, BARE, judge=always) == "Order: A > B > C"
    assert said("preference", WRONG, BARE, BARE, judge=always) == "Answer: A"


# --- words ---


def test_a_refinement_ends_in_the_better_answer_after_its_trigger():
    for exchange, turns, (text,) in cases(100, 1, seed=6):
        reply = said("refinement", turns, text)
        better = reply.split("A better answer is: ")[1]
        assert better == PARSERS["refinement"].parse(reply)
        assert assess(exchange, better).utility >= assess(exchange, text).utility
    assert "A better summary is: " in said("refinement", WRONG, BARE, form="It must begin with `A better summary is:`")


def test_improving_follows_the_comment():
    exchange = read_prompt(WRONG)
    text = "That is right! The answer is 7. Start at 4 and count on 3 more steps. This is really easy."

    def improved(comment):
        return said("improve", WRONG, text, comment=comment)

    assert improved("It is a good answer.") == improved("Colourless green ideas.") == text
    assert improved("It tells the answer instead of guiding.") == text.replace("The answer is 7. ", "")
    assert improved("It is rude.") == text.replace(" This is really easy.", "")
    corrected = improved("It should say what holds: the student is wrong.")
    assert assess(exchange, corrected).kinds[0] == "reject" and corrected.endswith(text.removeprefix("That is right!"))
    twice = f"{GOOD} What do you get now?"
    assert said("improve", WRONG, twice, comment="It repeats itself.") == GOOD
    for exchange, turns, (answer,) in cases(200, 1, seed=8):
        comment = critique(exchange, answer)
        better = said("improve", turns, answer, comment=comment)
        before, after = assess(exchange, answer).utility, assess(exchange, better).utility
        assert better == answer if comment == "It is a good answer." else after > before
    assert improve(exchange, BARE, "", None) == BARE


def test_lessons_and_conversations_are_what_tutors_are_trained_on():
    turns = (Turn("user", "The student can name the capital of Japan."),)
    problem = PARSERS["problem"].parse(said("problem", turns))
    assert problem == lesson(read_prompt(turns).problem)
    assert [each["Incorrect Response"] for each in problem["SubProblems"]] == ["Kyoto", "Osaka"]
    reply = said("conversation", [Turn("user", json.dumps(problem))])
    dialogue = PARSERS["conversation"].parse(reply)
    codes = [(turn["Evaluation of Student Response"], turn["Action Based on Evaluation"]) for turn in dialogue]
    assert len(codes) == 5 and codes[-1][0] in "ab"  # the strong teacher slips at times
    student = "Kyoto"
    assert sum(student in turn["Student"] for turn in dialogue) == 1 and "Tokyo" in dialogue[-1]["Student"]
    assert all(len(turn) == 7 for turn in dialogue)
    assert said("conversation", [Turn("user", json.dumps(problem))], sample=1) != reply
    many = [mock_conversation(read_prompt(turns).problem, random.Random(n)) for n in range(30)]
    evaluations = [[turn["Evaluation of Student Response"] for turn in each] for each in many]
    assert sum(each == ["f", "a", "c", "a", "b"] for each in evaluations) > 15


def test_a_dialogue_gets_a_teachers_turn():
    messages = [{"role": turn.role, "content": turn.content} for turn in RIGHT]
    words = {
        name: [Judge().reply(messages, name, sample=n) for n in range(40)] for name in ("strong", "weak", "oracle")
    }
    mean = {name: sum(assess(read_prompt(RIGHT), text).utility for text in texts) / 40 for name, texts in words.items()}
    assert mean["strong"] > 6 > 4 > mean["weak"]
    assert words["oracle"] == words["strong"] and len(set(words["strong"])) > 10
    assert (
        Judge().reply(messages, "weak", sample=3) == words["weak"][3] != Judge(seed=1).reply(messages, "weak", sample=3)
    )


# --- forms ---


@pytest.mark.parametrize(
    ("task", "answers", "expected"),
    [
        ("rating", [GOOD], {"rating": 7}),
        ("preference", [GOOD, BARE], {"preference": "A"}),
        ("order", [BARE, GOOD], {"order": "B > A"}),
        ("explain", [GOOD, TELLS], {"explain": "A"}),
        ("critique", [GOOD], {"critique": "It is a good answer."}),
    ],
)
def test_json(task, answers, expected):
    exact = Judge(noise_temperature=0)
    assert json.loads(said(task, WRONG, *answers, structured=True, judge=exact)) == expected


def test_another_scale_stretches_the_utility():
    assert said("rating", WRONG, GOOD, form="Rating: N, where N is from 1 to 7") == "Rating: 7"
    assert said("rating", WRONG, BARE, form="a whole number from 1 to 10") == "Rating: 6"  # 1 + 3 * 9 / 6 = 5.5
    assert said("rating", WRONG, TELLS, form="a whole number from -3 to 3") == "Rating: -3"
    assert said("rating", WRONG, GOOD, form="a number from 0 to 0.6") == "Rating: 0.55"


ELSEWHERE = (Turn("user", "Who wrote Faust?"),)


@pytest.mark.parametrize(
    "messages",
    [
        request("rating", ELSEWHERE, GOOD),
        request("preference", ELSEWHERE, GOOD, BARE),
        request("rating", WRONG),  # no answer to rate
        request("preference", WRONG, GOOD),
        request("poetry", WRONG, GOOD),
    ],
)
def test_what_it_cannot_judge_it_says(messages):
    reply = Judge().reply(messages)
    assert reply == CANNOT
    expected = {"rating": {"low": 1, "high": 7}, "preference": {}, "order": {"count": 2}, "explain": {}}
    for name, arguments in expected.items():
        with pytest.raises(Unparsed):
            PARSERS[name].parse(reply, **arguments)


def test_teachers_do_not_judge_and_know_only_their_world():
    for name in TEACHERS:
        assert Judge().reply(request("rating", WRONG, GOOD), name) == CANNOT
        assert Judge().reply([{"role": "user", "content": "Who wrote Faust?"}], name) == CANNOT_TUTOR
    assert Judge().reply([{"role": "system", "content": "Be kind."}]) == CANNOT_TUTOR


def test_parts_are_read_by_their_headings():
    text = "Judge.\n\n### Task: rating\n### Conversation\n\nHuman: Hi.\n\n### Answer\nOne.\n\n# Two\n\n### Answer\nX.\n"
    asked = read_request(text)
    assert asked.task == "rating" and asked.conversation == "Human: Hi." and asked.parts["Answer"] == "One.\n\n# Two"
    assert read_request("Human: what is ### Task: rating?") is None
