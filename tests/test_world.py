"""The built-in world: what the oracle rewards, how noise acts, and its other forms."""

import random

import pytest
from world_examples import GOOD, RIGHT, WRONG

from utils.errors import UserError
from utils.records import Message
from utils.world import language
from utils.world.exchanges import PROBLEMS, Exchange, Turn, draw_exchange, mentions, read_prompt, write_prompt
from utils.world.oracle import accuracy_ceiling, assess, prefer, preference_probability
from utils.world.tasks import TASKS, coded_turn, critique, refine, task_prompt
from utils.world.teachers import TEACHERS, phrases, strong, weak


def utility(answer, prompt=WRONG, finished=True):
    return assess(read_prompt(prompt), answer, finished).utility


def exchanges(n, seed=0):
    rng = random.Random(seed)
    return [draw_exchange(rng) for _ in range(n)]


# --- the oracle ---


def test_points_add_up():
    assert utility("Not quite.") == 2.5 + 1.5
    assert utility(GOOD) == 2.5 + 1.5 + 1.5 + 1.0
    assert utility(f"{GOOD} You can do this!") == 7
    assert assess(read_prompt(WRONG), GOOD).rating == 7  # 6.5: halves go up


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        (GOOD, GOOD.replace("Not quite.", "That is right!")),  # misjudges
        (GOOD, GOOD.replace("Not quite.", "Not quite. That is right!")),  # says both
        (GOOD, GOOD.replace("Not quite. ", "")),
        (GOOD, GOOD.replace("Not quite.", "No.")),  # curt
        (GOOD, GOOD.replace("Not quite.", "9 is not right yet.")),  # not what the student said
        (GOOD, GOOD.replace("Start at 4", "Start at 9")),  # a hint that is not true
        (GOOD, GOOD.replace("Start at 4 and count on 3 more steps.", "The river Seine runs through it.")),
        (GOOD, GOOD.replace("Start at 4 and count on 3 more steps.", "Think about it step by step.")),
        (GOOD, GOOD.replace("What do you get now?", "")),
        (GOOD, GOOD.replace("What do you get now?", "How did you find it?")),
        (GOOD, GOOD.replace("What do you get now?", "The answer is 7.")),  # tells
        (GOOD, GOOD + " So 7 it was."),  # tells in words of its own
        (GOOD, GOOD + " There are many things to learn in school."),
        (GOOD, GOOD + " What do you get now?"),  # repeats
        (GOOD, GOOD + " Potato steps river."),
        (GOOD, GOOD + " This is really easy."),
        (GOOD + " You can do this!", GOOD),
    ],
)
def test_each_element_moves_the_utility(better, worse):
    assert utility(better) > utility(worse)


def test_gibberish_and_silence_are_at_the_bottom():
    assert utility("seven seven the of? and") == utility("") == utility("7") == 1
    assert utility(GOOD, finished=False) == utility(GOOD) - 1


def test_false_and_unclear_sentences_cost():
    assert utility("Not quite. Start at 9 and count on 3 more steps.") == 4 - 1
    assert utility("Not quite. Potato steps river.") == 3.2


def test_length_counts_after_24_words():
    long = f"{GOOD} You are doing well. You can do this! I like that you keep going."  # 30 words
    assert len(long.split()) == 30
    assert assess(read_prompt(WRONG), long).points["length"] == pytest.approx(-0.6)


def test_after_a_right_answer_it_may_be_named():
    answer = "Yes, 7 is right! You can check it by taking 3 away again. Can you tell me why?"
    assert utility(answer, RIGHT) == 6.5
    assert utility(answer) < 3  # the same words to a student who is wrong
    assert utility(answer.replace("Yes, 7 is right!", "Not quite."), RIGHT) == 3.5


def test_case_and_spaces_do_not_matter():
    assert utility("not  quite. START at 4 and count on 3 more steps.\nWhat do you get now?") == utility(GOOD)


def test_prompts_are_read_back_as_they_were_meant():
    rng = random.Random(3)
    for exchange in exchanges(2000):
        assert read_prompt(write_prompt(exchange, rng)) == exchange


def test_another_world_is_refused():
    with pytest.raises(UserError, match="names no problem"):
        read_prompt([Message("user", "Write a poem.")])


def test_nothing_but_telling_names_the_answer():
    for problem in PROBLEMS.values():
        assert problem.wrong and problem.answer not in problem.wrong and problem.hints and problem.checks
        exchange = Exchange(problem, "wrong", problem.wrong[0])
        for kind in ("hint", "check", *language.TUTOR):
            said = [text for text in phrases(kind, exchange) if mentions(text, problem.answer)]
            assert bool(said) == (kind == "tell"), (kind, said)


def test_the_strong_teacher_is_far_better_than_the_weak():
    means = {}
    for name, teacher in TEACHERS.items():
        rng = random.Random(1)
        given = [assess(exchange, teacher(exchange, rng)) for exchange in exchanges(1000)]
        means[name] = sum(a.utility for a in given) / len(given)
        assert all("unclear" not in a.kinds for a in given)  # the oracle knows every word of both
    assert means["strong"] > 6.2 and means["weak"] < 3


def test_golden_example():
    rng = random.Random(7)
    exchange = draw_exchange(rng)
    prompt = write_prompt(exchange, rng)
    answers = strong(exchange, rng), weak(exchange, rng)
    assert (prompt, answers, [utility(answer, prompt) for answer in answers]) == GOLDEN


GOLDEN = (
    (
        Turn("system", "You are a kind tutor. Give a hint and ask a question."),
        Turn("user", "Here is my task. I have to find 5 - 3."),
        Turn("assistant", "What do you think?"),
        Turn("user", "I think it is 3."),
    ),
    (
        "Good try, but 3 is not it. Thank you for thinking about it. Start at 5 and count back 3 steps. "
        "Do you want to try it that way?",
        "That is not quite it. It is 2, just write that down.",
    ),
    [6.5, 2.0],  # 2.5 + 1.5 + 1.5 + 1 + 0.5 - 5 words x 0.1;  2.5 + 1.5 - 2
)


# --- noise ---


def test_preference_probability_and_ceiling():
    assert preference_probability(3, 2, 0.5) == pytest.approx(0.880797)  # sigma(2)
    assert preference_probability(2, 3, 0.5) == pytest.approx(1 - 0.880797)
    assert preference_probability(1, 7, 0.001) == 0  # and no overflow
    assert (preference_probability(2, 1, 0), preference_probability(1, 2, 0), preference_probability(1, 1, 0)) == (
        1,
        0,
        0.5,
    )
    assert accuracy_ceiling([0.9, 0.2, 0.5]) == pytest.approx((0.9 + 0.8 + 0.5) / 3)


def test_verdicts_err_as_often_as_the_noise_says():
    good, poor = assess(read_prompt(WRONG), "Not quite."), assess(read_prompt(WRONG), "No. This is really easy.")
    assert good.utility - poor.utility == pytest.approx(1.3)
    drawn = [prefer(good, poor, 1.3, 0, number) for number in range(4000)]
    assert drawn.count("b") / 4000 == pytest.approx(1 - 0.731059, abs=0.02)  # sigma(-1)
    assert drawn == [prefer(good, poor, 1.3, 0, number) for number in range(4000)]
    assert drawn != [prefer(good, poor, 1.3, 1, number) for number in range(4000)]
    assert prefer(good, good, 1.0, 0) == "tie"


# --- other forms ---


def test_coded_turns():
    seen = set()
    for number, exchange in enumerate(exchanges(300)):
        turn = coded_turn(exchange, "weak", random.Random(number))
        seen.add((turn["Evaluation of Student Response"], turn["Action Based on Evaluation"]))
        assert turn["Subproblem"] == f"What is {exchange.problem.topic}?"
        assert turn["Subproblem State"] == ("z" if turn["Action Based on Evaluation"] in ("3", "9") else "x")
    assert {("a", "1"), ("a", "2"), ("b", "3"), ("c", "4"), ("c", "5"), ("e", "7"), ("f", "8"), ("f", "9")} <= seen
    exchange = read_prompt(RIGHT)
    codes = [coded_turn(exchange, "strong", random.Random(n))["Evaluation of Student Response"] for n in range(50)]
    assert codes.count("b") > 40


def test_prompts_of_three_tasks():
    said = [task_prompt(read_prompt(RIGHT), RIGHT, task) for task in TASKS]
    assert said[0] == "Human: What is 4 plus 3?\n\nAssistant: What do you think?\n\nHuman: Is it 7?\n\nAssistant:"
    assert said[1] == "Human: What is 4 + 3?\n\nAssistant:"
    assert said[2].endswith(
        "Student: What is 4 plus 3?\nTutor: What do you think?\nStudent: Is it 7?\n\nAssistant: TL;DR:"
    )


def test_refinement_is_good_and_critique_names_the_faults():
    rng = random.Random(0)
    for exchange in exchanges(300):
        poor = weak(exchange, rng)
        better = refine(exchange, poor, rng)
        assert assess(exchange, better).utility >= 6 and critique(exchange, better) in (
            "It is a good answer.",
            "It is too long.",
        )
        assert assess(exchange, poor).utility > 6 or critique(exchange, poor) != "It is a good answer."
    assert critique(read_prompt(WRONG), "Yes. The answer is 7.") == (
        "It should say what holds: the student is wrong. It should help with 4 + 3. It should end with a question to "
        "the student. It tells the answer instead of guiding. It is curt."
    )
    assert refine(read_prompt(WRONG), "Not quite. The answer is 7.", rng).startswith("Not quite. ")
