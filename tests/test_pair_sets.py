"""Pairs from every kind of feedback, sets of pairs, and their measures, on tables worked by hand."""

import json
import re
from collections import Counter
from pathlib import Path

import pytest
from toy_rows import DATA, mixture, real_data, user, write

from data_collect import pairs as program
from utils.errors import UserError
from utils.feedback.pairs import KINDS, Pair, collect, divided, measured
from utils.feedback.pairs.measures import contradictions, has_cycle, length_bias, won_by_model
from utils.feedback.pairs.sets import without_duplicates
from utils.raw_datasets.whole import records_of
from utils.records import Answer, Message, Record, Verdict, prompt_hash
from utils.records.files import read_records, write_jsonl


def record(*answers, verdicts=(), prompt="q", **meta):
    return Record(user(prompt), tuple(answers), tuple(verdicts), meta=meta)


def won(found):
    return [(pair.chosen.text, pair.rejected.text) for pair in found.pairs]


def pair(chosen, rejected, prompt="q", models=(None, None), kind="preference", margin=None):
    answers = (Answer(text, model) for text, model in zip((chosen, rejected), models, strict=True))
    return Pair(user(prompt), *answers, kind, margin)


# ---- from feedback to pairs


def test_ratings_make_every_pair_with_a_gap():
    rated = record(*(Answer(text, rating=rating) for text, rating in (("a", 6), ("b", 2), ("c", 5), ("d", 2))))
    found = collect([rated], ["rating"])
    assert won(found) == [("a", "b"), ("a", "c"), ("a", "d"), ("c", "b"), ("c", "d")]
    assert [p.margin for p in found.pairs] == [4, 1, 4, 3, 3]
    assert found.tally == {("rating", "pairs"): 5, ("rating", "ties"): 1}
    found = collect([rated], ["rating"], min_gap=3)
    assert won(found) == [("a", "b"), ("a", "d"), ("c", "b"), ("c", "d")]
    assert found.tally["rating", "gaps below --min_gap"] == 1 and found.tally["rating", "ties"] == 1


def test_answers_without_a_rating_or_of_one_text_make_none():
    found = collect([record(Answer("a", rating=6), Answer("b"), Answer("a", rating=1))], ["rating"])
    assert won(found) == [] and found.tally == {("rating", "of one text"): 1}


def test_ranks_and_thumbs():
    ranked = record(*(Answer(text, rank=rank) for text, rank in (("a", 2), ("b", 1), ("c", 2))))
    assert won(collect([ranked])) == [("b", "a"), ("b", "c")]
    thumbs = record(
        *(Answer(text, thumb=thumb) for text, thumb in (("a", True), ("b", False), ("c", True), ("d", None)))
    )
    found = collect([thumbs])
    assert won(found) == [("a", "b"), ("c", "b")] and found.tally["thumb", "ties"] == 1
    assert {p.margin for p in found.pairs} == {None}


def test_verdicts_and_what_is_none():
    texts = [Answer(text, model) for text, model in (("a", "m"), ("b", "n"), ("c", "o"))]
    said = [Verdict(0, 1, "a", "judge", "ab"), Verdict(1, 2, "b"), Verdict(0, 2, "tie"), Verdict(0, 1, "refused")]
    found = collect([record(*texts, verdicts=[*said, Verdict(0, 1, "failed"), Verdict(1, 0, "a", "ratings")])])
    assert won(found) == [("a", "b"), ("c", "b")]  # what the ratings imply they say themselves
    assert (found.pairs[0].judge, found.pairs[0].order, found.pairs[0].chosen.model) == ("judge", "ab", "m")
    assert found.tally == {("preference", what): count for what, count in
                           (("pairs", 2), ("ties", 1), ("refused", 1), ("failed", 1))}  # fmt: skip


def test_a_refinement_is_better_than_its_answer_unless_it_is_the_same():
    better = record(Answer("a", refinement=" A. "), Answer("b", refinement="b "), Answer("c"))
    found = collect([better])
    assert won(found) == [("A.", "a")] and found.tally["refinement", "unchanged"] == 1


@pytest.mark.parametrize(
    "said, chosen",
    [
        ("It is two.\n\nAnd more.", "It is two.\n\nAnd more."),
        ("Human: why?\n\nIt is two.\n\nThe revised answer is shorter.\n\nBye.", "It is two."),
        ("It is two.\n\nComment: it was vague.", "It is two."),
        ("It is two.\n\nHuman: thanks", "It is two."),
        ("It is two.\n\nExplanation: I changed it.", None),  # is it part of the answer?
        ("It is two.\n\nTo provide more context, ask.", "It is two."),
        ("It is one.\n\nThe original response was vague.", None),  # then it is unchanged
        ("The original answer is fine.", None),
        ("", None),
    ],
)
def test_a_critique_counts_by_way_of_the_rewritten_answer(said, chosen):
    found = collect([record(Answer("It is one.", critique="Wrong.", refinement=said))])
    assert won(found) == ([(chosen, "It is one.")] if chosen else [])
    assert [p.kind for p in found.pairs] == ["critique"] * len(found.pairs)
    assert found.waiting == [] and sum(found.tally.values()) == 1


def test_critiques_wait_until_their_answer_is_rewritten():
    first, second = record(Answer("a", critique="c")), record(Answer("b", critique="c"), prompt="r")
    found = collect([first, second])
    assert [answer.text for _, answer in found.waiting] == ["a", "b"]
    assert found.tally["critique", "critiques without a new answer"] == 2
    found = collect([first, second, record(Answer("b", critique="c", refinement="B"), prompt=" r ")])
    assert [answer.text for _, answer in found.waiting] == ["a"] and won(found) == [("B", "b")]


# ---- sets


def test_duplicates_are_taken_out_and_the_opposite_is_none():
    said = [pair("a", "b"), pair("a", "b", kind="rating", margin=2), pair("b", "a"), pair("a", "b", prompt="r")]
    assert without_duplicates(said) == [said[0], said[2], said[3]]
    assert without_duplicates([pair("a", "b"), pair("a", "b", prompt=" q ")]) == [pair("a", "b")]


def test_the_division_is_by_prompt_and_by_seed():
    said = [pair(f"a{k}", "b", prompt=f"q{i}") for i in range(400) for k in range(3)]
    train, valid = divided(said, 0.1, 42)
    prompts = [{prompt_hash(p.prompt) for p in part} for part in (train, valid)]
    assert not prompts[0] & prompts[1] and len(train) + len(valid) == 1200
    assert 20 < len(prompts[1]) < 60  # 40 expected, standard deviation 6
    assert divided(said, 0.1, 42) == (train, valid) != divided(said, 0.1, 7)
    assert set(map(id, valid)) <= set(map(id, divided(said, 0.3, 42)[1]))  # more of them, the same ones among them
    assert divided(said, 0.0, 42) == (said, [])


# ---- measures


def test_length_bias_by_hand():
    """Gaps in words 2, 1, -1, 0: of three that differ two are longer; mean 0.5, sd 1.290994, half width 1.265151."""
    found = length_bias([pair("a b c", "a"), pair("a b", "a"), pair("a", "a b"), pair("a", "b")])
    assert found["chosen_longer"]["value"] == pytest.approx(2 / 3) and found["chosen_longer"]["n"] == 3
    assert found["same_length"] == 1 and found["difference"]["value"] == 0.5
    assert found["difference"]["high"] - 0.5 == pytest.approx(1.96 * 1.290994 / 2, rel=1e-4)


def test_who_wins_by_hand():
    """m beats n twice and loses once; pairs of one model, or of an unknown one, say nothing."""
    said = [("m", "n"), ("m", "n"), ("n", "m"), ("m", "m"), ("m", None)]
    found = won_by_model([pair(f"a{i}", "b", models=models) for i, models in enumerate(said)])
    assert {name: (row["won"], row["lost"], row["share"]["value"]) for name, row in found.items()} == {
        "m": (2, 1, pytest.approx(2 / 3)), "n": (1, 2, pytest.approx(1 / 3)),
    }  # fmt: skip


def test_conflicts_and_cycles_by_hand():
    """q: a > b and b > a. r: a > b > c > a. s: the same, but two say c > b for one that says b > c: no circle, and a
    conflict. t: a > b > c and a > c."""
    said = [("q", "ab"), ("q", "ba"), ("r", "ab"), ("r", "bc"), ("r", "ca"), ("s", "ab"), ("s", "bc"), ("s", "ca")]
    said += [("s", "cb"), ("s", "cb"), ("t", "ab"), ("t", "bc"), ("t", "ac")]
    found = contradictions([pair(*texts, prompt=prompt) for prompt, texts in said])
    assert (found["conflicts"]["pairs"], found["conflicts"]["prompts"], found["cycles"]["prompts"]) == (2, 2, 1)
    assert not has_cycle(Counter({("a", "b"): 1, ("b", "a"): 1}))
    assert has_cycle(Counter({("a", "b"): 2, ("b", "a"): 1, ("b", "c"): 1, ("c", "d"): 1, ("d", "a"): 1}))


def test_measures_are_json_even_of_one_pair():
    said = [pair("a b", "c", models=("m", "n"))]
    found = json.loads(json.dumps(measured(said, said), allow_nan=False))
    assert found["words"]["chosen"] == {"mean": 2.0, "median": 2.0, "95 %": 2.0, "longest": 2}
    assert found["length"]["difference"] == {"value": 1.0, "low": None, "high": None, "n": 1}


# ---- the program


def run(tmp_path, *flags):
    """{split: rows} and stats of a run."""
    program.main([*map(str, flags), "--output_dir", str(tmp_path / "sets"), "--stats"])
    parts = {name: tmp_path / "sets" / f"{name}.jsonl" for name in ("train", "valid")}
    rows = {name: [json.loads(row) for row in path.read_text().splitlines()] if path.exists() else []
            for name, path in parts.items()}  # fmt: skip
    return rows, json.loads((tmp_path / "sets" / "stats.json").read_text())


def rated(tmp_path, prompts=40):
    """Three rated answers to each prompt, the first twice."""
    rows = [record(*(Answer(f"{a}{i}", rating=r) for a, r in zip("abc", (7, 4, 4), strict=True)), prompt=f"q{i}", k=i)
            for i in range(prompts)]  # fmt: skip
    write_jsonl(tmp_path / "rated.jsonl", [*rows, rows[0]])
    return tmp_path / "rated.jsonl"


def test_a_run_writes_pairs_and_reports(tmp_path, capsys):
    rows, stats = run(tmp_path, "--data_path", rated(tmp_path), "--min_gap", 2)
    assert len(rows["train"]) + len(rows["valid"]) == 80 and rows["valid"]
    assert stats["pairs"] == 80 and stats["prompts"] == 40 and stats["duplicates"] == 2
    assert stats["feedback"]["rating"] == {"pairs": 82, "ties": 41} and stats["kinds"] == {"rating": 80}
    (first, *_), names = rows["train"], ("kind", "margin")
    assert [answer["rating"] for answer in first["answers"]] == [7, 4] and first["verdicts"][0]["preferred"] == "a"
    assert {name: first["meta"][name] for name in names} == {"kind": "rating", "margin": 3} and "k" in first["meta"]
    out = capsys.readouterr().out
    assert "82 pairs; left out: 2 duplicates, 0 of test prompts" in out and "chosen is longer" in out
    stream = mixture(tmp_path / "sets", split="eval")  # the training programs find both splits
    assert len(list(mixture(tmp_path / "sets"))) == len(rows["train"]) and len(list(stream)) == len(rows["valid"])


def test_prompts_of_a_test_set_are_left_out(tmp_path, capsys):
    write_jsonl(tmp_path / "test.jsonl", [record(prompt=f"q{i} ") for i in range(10)])
    rows, stats = run(tmp_path, "--data_path", rated(tmp_path), "--test_path", tmp_path / "test.jsonl")
    assert stats["of_test_prompts"] == 20 and stats["pairs"] == 60
    prompts = {row["prompt"][0]["content"] for row in rows["train"] + rows["valid"]}
    assert prompts == {f"q{i}" for i in range(10, 40)}
    assert "20 of test prompts" in capsys.readouterr().out


def test_sets_hold_a_prompt_once(tmp_path):
    rows, _ = run(tmp_path, "--data_path", rated(tmp_path), "--form", "sets", "--valid_share", 0.5)
    every = rows["train"] + rows["valid"]
    assert len(every) == 40 and {len(row["answers"]) for row in every} == {3}
    assert [(v["a"], v["b"], v["preferred"]) for v in every[0]["verdicts"]] == [(0, 1, "a"), (0, 2, "a")]
    assert every[0]["meta"]["margins"] == [3, 3] and every[0]["meta"]["kinds"] == ["rating"] * 2
    assert sum(len(each.pairs()) for each in read_records(tmp_path / "sets" / "train.jsonl")) == 2 * len(rows["train"])


def test_lines_are_columns(tmp_path):
    dialogue = (Message("user", "Hello"), Message("assistant", "Hi."), Message("user", "POST x\n\nTL;DR:"))
    write_jsonl(tmp_path / "a.jsonl", [Record(dialogue, (Answer("a"), Answer("b")), (Verdict(0, 1, "b"),))])
    rows, _ = run(tmp_path, "--data_path", tmp_path / "a.jsonl", "--form", "lines", "--valid_share", 0)
    prompt = "Human: Hello\n\nAssistant: Hi.\n\nHuman: POST x\n\nAssistant: TL;DR:"
    assert rows["train"] == [{"prompt": prompt, "chosen": "b", "reject": "a", "kind": "preference"}]
    assert next(records_of(str(tmp_path / "sets"))).prompt == dialogue


LINES = [  # of a language model's own words: feedback, what it is, what becomes of it
    ("critic", "It is vague.", "waits"),
    ("refine", "I made it clear. A better answer is: It is three.", ("It is three.", "one")),
    ("refine", "It is three.", None),  # no trigger
    ("prefer", "(A)", ("one", "two")),
    ("prefer", "B.", ("two", "one")),
    ("prefer", "C) both are equally good", None),
    ("prefer", "Both (A) and (B) are fine", None),
]


def test_raw_feedback_from_critique_to_sets(tmp_path, capsys):
    """Steps 1.4 to 1.6: what waits is written for a model, and its answers come back as pairs."""
    rows = [
        {"prompt": f"Human: q{i}\n\nAssistant:", "task": "qa", "feedback_type": kind, "feedback": words,
         "output": {"m": "one", "n": "two"}} for i, (kind, words, _) in enumerate(LINES)
    ]  # fmt: skip
    path, critiques = write(tmp_path / "feedbacks.txt", rows), tmp_path / "critique.txt"
    program.main(["--data_path", path, "--critique_path", str(critiques)])
    (waiting,) = map(json.loads, critiques.read_text().splitlines())
    assert waiting["origin_prompt"] == [{"role": "user", "content": "q0"}] and waiting["reject"] == "one"
    asked = waiting["prompt"][-1]["content"]
    assert all(
        re.search(rf"^### {part}$", asked, re.MULTILINE) for part in ("Conversation", "Answer", "Comment", "Reply")
    )
    assert "It is vague." in asked and waiting["task"] == "qa" and waiting["model"] == "m"
    improved = write(tmp_path / "improved.jsonl", [{**waiting, "greedy": "It is four.\n\nComment: done"}])
    found, stats = run(tmp_path, "--data_path", path, improved, "--valid_share", 0)
    said = [(row["answers"][0]["text"], row["answers"][1]["text"]) for row in found["train"]]
    assert said == [("It is three.", "one"), ("one", "two"), ("two", "one"), ("It is four.", "one")]
    assert stats["feedback"] == {
        "preference": {"pairs": 2, "ties": 1, "failed": 1}, "rating": {}, "ranking": {}, "thumb": {},
        "critique": {"pairs": 1}, "refinement": {"pairs": 1},
    }  # fmt: skip
    assert stats["models"]["m"]["won"] == 1 and stats["models"]["n"]["won"] == 1
    assert {row["meta"]["task"] for row in found["train"]} == {"qa"} and "feedback" not in found["train"][0]["meta"]


def test_a_critique_that_was_followed_in_vain_does_not_wait(tmp_path, capsys):
    """It was asked and paid for: the answer came back unchanged, or was refused. Only `later` is still to be asked."""
    good, bad, later = (Answer(text, critique="Vague.") for text in ("good", "bad", "later"))
    asked = record(good, bad, not_improved=[{"answer": 0, "why": "unchanged"}, {"answer": 1, "why": "refusal"}])
    found = collect([record(good, bad), asked, record(later, prompt="r")])  # the critiques before and after the asking
    assert [answer.text for _, answer in found.waiting] == ["later"]
    expected = {("critique", what): 1 for what in ("unchanged", "refusal", "critiques without a new answer")}
    assert found.tally == expected
    both = record(Answer("x", rating=7), Answer("y", rating=1), good, not_improved=[{"answer": 2, "why": "unchanged"}])
    write_jsonl(tmp_path / "a.jsonl", [both])
    program.main(
        ["--data_path", str(tmp_path / "a.jsonl"), "--output_dir", str(tmp_path / "sets"), "--valid_share", "0"]
    )
    assert "wait for" not in capsys.readouterr().out
    assert "not_improved" not in (tmp_path / "sets/train.jsonl").read_text()
    for foreign in ("no", [1], {"answer": 0}):  # a column of this name with another meaning
        assert len(collect([record(good, not_improved=foreign)]).waiting) == 1


def test_chatbot_answers_the_requests_to_rewrite(tmp_path):
    """What --critique_path writes is a file that inference/chatbot.py reads, and keeps the columns of."""
    from utils.answering.rows import read_rows
    from utils.raw_datasets.spec import Spec

    write_jsonl(tmp_path / "a.jsonl", [record(Answer("It is one.", critique="Vague."))])
    program.main(["--data_path", str(tmp_path / "a.jsonl"), "--critique_path", str(tmp_path / "c.jsonl")])
    (row,) = read_rows([Spec(str(tmp_path / "c.jsonl"))])
    assert row.record.prompt[-1].role == "user" and not row.record.answers
    answered = row.with_answers([Answer("It is two.")], greedy=True)
    (back,) = records_of(write(tmp_path / "d.jsonl", [answered]))
    assert back.answers == (Answer("It is one.", critique="Vague.", refinement="It is two."),)
    assert won(collect([back])) == [("It is two.", "It is one.")]


def test_kinds_can_be_chosen(tmp_path):
    both = record(Answer("a", rating=1), Answer("b", rating=2), verdicts=[Verdict(0, 1, "a")])
    write_jsonl(tmp_path / "a.jsonl", [both])
    for kinds, chosen in (([], ["a", "b"]), (["rating"], ["b"]), (["preference"], ["a"])):
        flags = ["--kinds", *kinds] if kinds else []
        found, stats = run(tmp_path, "--data_path", tmp_path / "a.jsonl", "--valid_share", 0, *flags)
        assert [row["answers"][0]["text"] for row in found["train"]] == chosen
        assert set(stats["feedback"]) == set(kinds or KINDS)


def test_ratings_in_c_csv_form(tmp_path):
    (tmp_path / "f.csv").write_text("Name a fruit.,,Fig.,6\nName a fruit.,,No.,2\nName a fruit.,,Pear.,6\n")
    found, stats = run(tmp_path, "--data_path", f"ratings-feedback-csv:{tmp_path / 'f.csv'}", "--valid_share", 0)
    assert [row["meta"]["margin"] for row in found["train"]] == [4, 4]
    assert stats["feedback"]["rating"] == {"pairs": 2, "ties": 1} and stats["feedback"]["preference"] == {}


# ---- real data


@real_data
def test_human_preferences_on_dialogues(tmp_path):
    """1,999 pairs, of which 9 differ before the last turn."""
    found, stats = run(tmp_path, "--data_path", DATA / "hh-rlhf" / "helpful-base")
    assert stats["feedback"]["preference"]["pairs"] == 1990 - stats["feedback"]["preference"].get("of one text", 0)
    assert stats["train"] + stats["valid"] == stats["pairs"] == len(found["train"]) + len(found["valid"])
    assert 0.08 < stats["valid"] / stats["pairs"] < 0.12
    assert stats["length"]["chosen_longer"]["low"] > 0.5  # what people prefer is longer


@real_data
def test_human_ratings_of_tutors(tmp_path):
    """MRBench: a tutor's rating is how many of three things people saw in its answer, 0 to 6."""
    worth = {"Yes": 2, "To some extent": 1, "No": 0}
    asked = ("Mistake_Identification", "Providing_Guidance", "Actionability")
    rows = json.loads((DATA / "mrbench" / "MRBench_V1.json").read_text())
    every = []
    for row in rows:
        answers = [
            Answer(said["response"], model=name, rating=sum(worth.get(said["annotation"][a], 0) for a in asked))
            for name, said in row["anno_llm_responses"].items()
        ]
        every.append(record(*answers, prompt=row["conversation_history"]))
    path = Path(tmp_path / "mrbench.jsonl")
    write_jsonl(path, every)
    found, stats = run(tmp_path, "--data_path", path, "--min_gap", 2)
    assert len(rows) == 192 and stats["pairs"] == len(found["train"]) + len(found["valid"]) > 1000
    assert all(row["meta"]["margin"] >= 2 for row in found["train"])
    assert stats["cycles"]["prompts"] == 0  # one number orders all
    assert stats["models"]["Expert"]["share"]["low"] > 0.5 > stats["models"]["Phi3"]["share"]["high"]


@real_data
def test_experts_revisions_of_tutors(tmp_path):
    """BRIDGE: the expert's turn is a refinement of the tutor's own."""
    rows = json.loads((DATA / "bridge" / "train.json").read_text())
    text = lambda turns: " ".join(turn["text"] for turn in turns)  # noqa: E731
    every = [record(Answer(text(row["c_r"]), refinement=text(row["c_r_"])), prompt=text(row["c_h"])) for row in rows]
    write_jsonl(tmp_path / "bridge.jsonl", every)
    _, stats = run(tmp_path, "--data_path", tmp_path / "bridge.jsonl")
    said = stats["feedback"]["refinement"]
    assert said["pairs"] + said.get("unchanged", 0) == 419 and stats["kinds"] == {"refinement": stats["pairs"]}


def test_a_run_without_pairs_says_what_became_of_the_feedback(tmp_path, capsys):
    write_jsonl(tmp_path / "a.jsonl", [record(Answer("a", rating=3), Answer("b", rating=3))])
    with pytest.raises(UserError, match=r"a\.jsonl: no pair is left"):
        run(tmp_path, "--data_path", tmp_path / "a.jsonl")
    assert "ties" in capsys.readouterr().out and not (tmp_path / "sets").exists()


def test_a_former_division_leaves_nothing(tmp_path):
    """Without validation rows a valid.jsonl of before would share prompts with train.jsonl, and without --stats a
    stats.json of before would describe other sets; another's file stays."""
    feedback = [record(Answer("a", rating=1), Answer("b", rating=5), prompt=f"q{n}") for n in range(8)]
    write_jsonl(tmp_path / "a.jsonl", feedback)
    run(tmp_path, "--data_path", tmp_path / "a.jsonl", "--valid_share", "0.5")
    assert (tmp_path / "sets" / "valid.jsonl").exists() and (tmp_path / "sets" / "stats.json").exists()
    run(tmp_path, "--data_path", tmp_path / "a.jsonl", "--valid_share", "0")
    assert not list((tmp_path / "sets").glob("*valid*")) and (tmp_path / "sets" / "train.jsonl").exists()
    program.main(["--data_path", str(tmp_path / "a.jsonl"), "--output_dir", str(tmp_path / "sets")])
    assert not list((tmp_path / "sets").glob("*stats*"))
    (tmp_path / "sets" / "valid.jsonl").write_text("{}")
    run(tmp_path, "--data_path", tmp_path / "a.jsonl", "--valid_share", "0")
    assert (tmp_path / "sets" / "valid.jsonl").read_text() == "{}"
