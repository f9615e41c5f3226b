"""What the oracle thinks of records, and what its noise leaves of its verdicts: by hand."""

import math

import pytest
from world_examples import GOOD, WRONG

from utils.errors import UserError
from utils.records import Answer, Message, Record, Verdict
from utils.world.truth import utilities, verdict_ceiling

PROMPT = tuple(Message(*turn) for turn in WRONG)
FAIR = "Not quite."
WORTH = {GOOD: 6.5, FAIR: 4.0, "": 1.0}  # 2.5 + 1.5 evaluation + 1.5 hint + 1 question; 2.5 + 1.5; the lowest
AT = {0.7: (0.9726532, 0.9864231, 0.9996132), 5.0: (0.6224593, 0.6456563, 0.7502601)}  # sigma of 2.5, 3 and 5.5 over it


def judged(*verdicts):
    return Record(PROMPT, tuple(map(Answer, WORTH)), tuple(Verdict(*verdict) for verdict in verdicts))


def test_every_answer_has_its_worth():
    assert utilities(judged()) == [6.5, 4.0, 1.0]
    cut = Record(PROMPT, (Answer(GOOD, finished=False), Answer(FAIR, finished=False)))
    assert utilities(cut) == [5.5, 3.0] and utilities(Record(PROMPT)) == []


@pytest.mark.parametrize("temperature", AT)
def test_the_ceiling_is_the_mean_of_what_the_noise_leaves(temperature):
    near, middle, far = AT[temperature]
    ceiling = lambda *records: verdict_ceiling(records, temperature)  # noqa: E731
    assert ceiling(judged((0, 1, "a"))) == pytest.approx(near, abs=1e-6)
    # an error of the oracle, or the other order, is as likely to be foreseen
    assert ceiling(judged((0, 1, "b"), (1, 0, "a"))) == pytest.approx(near, abs=1e-6)
    every = judged((0, 1, "a"), (0, 2, "a"), (1, 2, "b"))
    assert ceiling(every) == pytest.approx((near + middle + far) / 3, abs=1e-6)
    # over verdicts, not over records: one record with two, one with one
    two = judged((0, 1, "a"), (0, 1, "a")), judged((0, 2, "a"))
    assert ceiling(*two) == pytest.approx((2 * near + far) / 3, abs=1e-6)


def test_ties_do_not_count():
    assert verdict_ceiling([judged((0, 1, "tie"), (0, 2, "a"))], 5.0) == pytest.approx(AT[5.0][2], abs=1e-6)
    assert math.isnan(verdict_ceiling([judged((0, 1, "tie")), judged()], 0.7)) and math.isnan(verdict_ceiling([], 0.7))


def test_without_noise_nothing_is_lost_and_with_too_much_everything():
    assert verdict_ceiling([judged((0, 1, "a"), (2, 1, "b"))], 0) == 1
    assert verdict_ceiling([judged((0, 1, "a"), (2, 1, "b"))], 1e9) == pytest.approx(0.5)
    alike = Record(PROMPT, (Answer(FAIR), Answer(FAIR)), (Verdict(0, 1, "a"),))
    assert verdict_ceiling([alike], 0) == verdict_ceiling([alike], 0.7) == 0.5


def test_a_record_of_another_world_is_refused():
    poem = Record((Message("user", "Write a poem."),), (Answer("Roses."),), where="poems.jsonl:1")
    for judge in (utilities, lambda record: verdict_ceiling([record], 0.7)):
        with pytest.raises(UserError, match=r"^poems\.jsonl:1: the prompt names no problem of the tutor's world"):
            judge(poem)
