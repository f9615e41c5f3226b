"""What is taken of a record, what is cut from it, and what a person sees of that."""

import numpy as np
import pytest
from small_tokenizers import RECORD, byte_level, llama

from utils.errors import UserError
from utils.records import Answer, Message, Record, Verdict, comparison
from utils.tokens.group import Group
from utils.tokens.templates import LengthLimits, Renderer, Row, Tally, choose, coloured, fit

LONG = Record(
    (Message("system", "Be kind."), *[Message(role, f"{role} {n}") for n in range(3) for role in ("user", "assistant")],
     Message("user", "why?")),
    (Answer("because yes because yes"), Answer("yes")), (Verdict(0, 1, "a"),),
)  # fmt: skip


def cut(limits, record=LONG, name="human_assistant", tokenizer=None, train_on="last", answers=(0, 1), pairs=((0, 1),)):
    renderer = Renderer(tokenizer or llama("first"), name)
    row, tally = Row(record, answers, pairs, train_on), Tally()
    whole = renderer.group(*row)
    return renderer, whole, fit(renderer, row, whole, limits, tally), dict(tally.counts)


def test_what_fits_is_left_alone():
    _, whole, group, counts = cut(LengthLimits(500, 500, 1000, "keep_end"))
    assert group.prompt.tolist() == whole.prompt.tolist() and counts == {}
    assert [a.tolist() for a in group.answers] == [a.tolist() for a in whole.answers]


def test_keep_end_keeps_the_begin_token():
    renderer, whole, group, counts = cut(LengthLimits(60, 500, 1000, "keep_end"), train_on="all")
    assert group.prompt.tolist() == [renderer.tokenizer.bos_token_id, *whole.prompt[-59:].tolist()]
    assert group.prompt_trained.tolist() == [False, *whole.prompt_trained[-59:].tolist()]
    assert counts == {"prompts cut at their start": 1}


def test_keep_start_keeps_the_words_that_open_the_answer():
    renderer, whole, group, counts = cut(LengthLimits(60, 500, 1000, "keep_start"))
    header = renderer.encoder.ids(["\n\nAssistant:"])[0][-renderer.header :]
    assert len(group.prompt) == 60 and group.prompt[-len(header) + 1 :].tolist() == header[1:]
    assert group.prompt[: 60 - renderer.header].tolist() == whole.prompt[: 60 - renderer.header].tolist()
    assert counts == {"prompts cut at their end": 1}


def test_drop_turns_drops_the_oldest_exchange_and_keeps_the_system_message():
    renderer, whole, _, _ = cut(LengthLimits(500, 500, 1000, "drop_turns"))
    _, _, group, counts = cut(LengthLimits(len(whole.prompt) - 1, 500, 1000, "drop_turns"))
    expected = renderer.prompt_ids([LONG.prompt[0], *LONG.prompt[3:]])
    assert group.prompt.tolist() == expected and counts == {"prompts that lost their oldest turns": 1}
    last = renderer.prompt_ids([LONG.prompt[0], LONG.prompt[-1]])
    _, _, group, _ = cut(LengthLimits(len(last), 500, 1000, "drop_turns"))
    assert group.prompt.tolist() == last
    _, _, group, counts = cut(LengthLimits(len(last) - 1, 500, 1000, "drop_turns"))  # then the start goes, <s> aside
    assert group.prompt.tolist() == [last[0], *last[2:]] and len(counts) == 2


def test_drop_drops():
    _, _, group, counts = cut(LengthLimits(60, 500, 1000, "drop"))
    assert group is None and counts == {"records dropped: prompt too long": 1}


def test_a_cut_answer_has_no_stop_token():
    renderer, whole, group, counts = cut(LengthLimits(500, 3, 1000, "keep_end"))
    assert group.answers[0].tolist() == whole.answers[0][:3].tolist()
    assert renderer.tokenizer.eos_token_id not in group.answers[0]
    assert (
        group.answers[1].tolist() == whole.answers[1].tolist()
        and group.answers[1][-1] == renderer.tokenizer.eos_token_id
    )
    assert counts == {"answers cut at their end": 1}


def test_together_the_prompt_gives_way_then_the_answers():
    renderer, whole, group, _ = cut(LengthLimits(500, 500, 80, "keep_end"))
    assert len(group.prompt) == 80 - len(whole.answers[0]) and len(group.answers[0]) == len(whole.answers[0])
    record = Record((Message("user", "a " * 50),), (Answer("b " * 50),))
    _, _, group, _ = cut(LengthLimits(500, 500, 61, "keep_end"), record, answers=(0,), pairs=())
    assert (len(group.prompt), len(group.answers[0])) == (30, 31)


def test_pairs_that_become_equal_are_dropped():
    record = comparison((Message("user", "why?"),), "because yes", "because no")
    assert cut(LengthLimits(500, 500, 1000, "keep_end"), record)[2] is not None
    _, _, group, counts = cut(LengthLimits(500, 1, 1000, "keep_end"), record)
    assert group is None and counts["pairs dropped: both answers are the same tokens"] == 1


def test_a_limit_below_the_templates_own_words_is_an_error():
    with pytest.raises(UserError, match="has to fit in 5, and the words around it take 9; raise --max_prompt_seq_len"):
        cut(LengthLimits(5, 500, 1000, "keep_end"))


# --- choosing and showing ---


def test_choose_takes_the_preferred_answer():
    ask = (Message("user", "why?"),)
    ranked = Record(
        ask, (Answer("c"), Answer("b"), Answer("a")), (Verdict(1, 0, "a"), Verdict(2, 1, "a"), Verdict(0, 2, "tie"))
    )
    tally = Tally()
    assert choose(ranked, "demonstrations", tally).answers == (2,)
    assert choose(ranked, "comparisons", tally)[1:3] == ((0, 1, 2), ((1, 0), (2, 1)))
    assert choose(ranked, "prompts", tally)[1:3] == ((), ())
    assert choose(Record(ask, (Answer(" "), Answer("a", finished=False))), "demonstrations", tally, "all") == (
        Record(ask, (Answer(" "), Answer("a", finished=False))), (1,), (), "all")  # fmt: skip
    assert tally.counts == {"empty answers left out": 1}
    assert choose(comparison(ask, "", "b"), "demonstrations", tally) is None
    assert choose(comparison(ask, "", "b"), "comparisons", tally) is None
    assert choose(Record(ask, (Answer("a"), Answer("b"))), "comparisons", tally) is None


def test_comparisons_of_some_answers_are_counted_anew():
    record = Record((Message("user", "why?"),), (Answer("x"), Answer("yes"), Answer("because")), (Verdict(1, 2, "b"),))
    row = choose(record, "comparisons", Tally())
    group = Renderer(byte_level(), "vicuna").group(*row)
    assert row.answers == (1, 2) and group.pairs == ((1, 0),)


def test_coloured_shows_what_is_trained():
    tokenizer = byte_level()
    text = coloured(tokenizer, Renderer(tokenizer, "vicuna").group(RECORD, [0, 1], [(0, 1)], train_on="all"))
    assert [text.plain[s.start : s.end] for s in text.spans if s.style == "green"] == [
        " yes.</s>",
        " because</s>",
        " no, never</s>",
    ]
    assert "answer 1 (preferred):" in text.plain and "answer 2 (rejected):" in text.plain
    long = Group(np.full(1000, tokenizer.convert_tokens_to_ids("a"), np.int32), ())
    assert "700 tokens" in coloured(tokenizer, long).plain
