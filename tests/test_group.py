"""Grouping by difficulty: thirds, quantiles, permutations, the random baseline, and joining two models' answers."""

import itertools
import json
from collections import Counter

import pytest
from toy_rows import write

from data_collect import group
from utils.errors import UserError
from utils.feedback.difficulty import joined, levels, random_levels, read_answered
from utils.records import Answer, RecordError
from utils.records.files import read_records

LOSSES = [0.7, 0.1, 0.9, 0.3, 0.2, 0.8, 0.6, 0.5, 0.4, 1.0]  # in order: 1 4 3 8 7 6 0 5 2 9


def line(prompt, answer, ppl=None, task="qa", **more):
    """As chatbot.py writes a plain row that it has answered and perhaps measured."""
    measured = {} if ppl is None else {"ppl": ppl, "nll_per_token": ppl, "perplexity": 2.7}
    known = {"greedy": answer, "greedy_finished": True, **measured, **more}
    return {"prompt": f"Human: {prompt}\n\nAssistant:", "task": task, **known}


def files(folder, losses=LOSSES, tasks=("qa",)):
    first = [line(f"q{i}", f"a{i}", loss, tasks[i % len(tasks)]) for i, loss in enumerate(losses)]
    second = [line(f"q{i}", f"b{i} b") for i in range(len(losses))]
    return [write(folder / "small.jsonl", first), write(folder / "large.jsonl", second)]


def run(tmp_path, *flags, paths=None):
    """(rows, summary) of a run."""
    output, summary = tmp_path / "group.txt", tmp_path / "summary.json"
    paths = paths or files(tmp_path)
    group.main(["--answers", *paths, "--output_path", str(output), "--summary", str(summary), *flags])
    return [json.loads(row) for row in output.read_text().splitlines()], json.loads(summary.read_text())


def test_thirds_are_cut_at_l_3_and_2l_3():
    assert levels(LOSSES) == [2, 0, 2, 0, 0, 2, 1, 1, 1, 2]  # 10 // 3 = 3 easy, 20 // 3 = 6 not hard
    assert levels([1.0, 1.0, 1.0, 1.0]) == [0, 1, 2, 2]  # equal losses keep their order
    assert (levels([]), levels([5.0]), levels([2.0, 1.0])) == ([], [2], [2, 1])


def test_quantiles():
    assert levels(LOSSES, (0.2, 0.5)) == [2, 0, 2, 1, 0, 2, 2, 1, 1, 2]
    assert Counter(levels(list(range(100)), (0.29, 0.7))) == {0: 29, 1: 41, 2: 30}  # 0.29 * 100 < 29 in floats
    assert Counter(levels(list(range(10)), (0.0, 1.0))) == {1: 10}


def test_random_groups_have_the_same_sizes():
    drawn = random_levels(10, (), "42 ")
    assert Counter(drawn) == Counter(levels(LOSSES)) == {0: 3, 1: 3, 2: 4}
    assert random_levels(10, (), "42 ") == drawn != random_levels(10, (), "43 ")


def test_rows_are_what_request_py_reads(tmp_path):
    rows, summary = run(tmp_path, "--base_models", "vicuna-7b,vicuna-13b")
    assert rows[1] == {
        "prompt": "Human: q1\n\nAssistant:", "task": "qa", "loss": 0.1, "difficulty": "easy", "feedback_type": "critic",
        "output": {"vicuna-7b": "a1", "vicuna-13b": "b1 b"},
    }  # fmt: skip
    assert [row["difficulty"] for row in rows][:3] == ["hard", "easy", "hard"]
    kinds = {row["difficulty"]: row["feedback_type"] for row in rows}
    assert kinds == {"easy": "critic", "medium": "refine", "hard": "prefer"}
    easy, _, hard = summary["groups"]
    assert easy["problems"] == 3 and easy["loss"] == {"lowest": 0.1, "mean": pytest.approx(0.2), "highest": 0.3}
    assert easy["words"] == {"prompt": 1.0, "vicuna-7b": 1.0, "vicuna-13b": 2.0}
    assert hard["problems"] == 4 and hard["tasks"] == {"qa": 4} and summary["assign"] == "crp"


@pytest.mark.parametrize("letters", ["".join(p) for p in itertools.permutations("crp")] + ["ppp"])
def test_every_permutation(tmp_path, letters):
    rows, summary = run(tmp_path, "--assign", letters)
    names = {"c": "critic", "r": "refine", "p": "prefer"}
    kinds = {row["difficulty"]: row["feedback_type"] for row in rows}
    assert kinds == {level: names[letter] for level, letter in zip(("easy", "medium", "hard"), letters, strict=True)}
    assert [g["feedback_type"] for g in summary["groups"]] == [names[letter] for letter in letters]


def test_per_task(tmp_path):
    """qa has the losses 0.7, 0.9, 0.2, 0.6, 0.4 (even places), dialog 0.1, 0.3, 0.8, 0.5, 1.0."""
    rows, _ = run(tmp_path, "--per_task", paths=files(tmp_path, tasks=("qa", "dialog")))
    difficulty = [row["difficulty"] for row in rows]
    assert difficulty[0::2] == ["hard", "hard", "easy", "medium", "medium"]  # 5 // 3 = 1, 10 // 3 = 3
    assert difficulty[1::2] == ["easy", "medium", "hard", "medium", "hard"]


def test_random_is_a_baseline_of_the_same_sizes(tmp_path):
    rows, summary = run(tmp_path, "--random")
    assert Counter(row["feedback_type"] for row in rows) == {"critic": 3, "refine": 3, "prefer": 4}
    assert [row["difficulty"] for row in rows] == [row["difficulty"] for row in run(tmp_path)[0]]  # what is true stays
    assert [row["feedback_type"] for row in rows] != [row["feedback_type"] for row in run(tmp_path)[0]]
    assert run(tmp_path, "--random")[0] == rows != run(tmp_path, "--random", "--seed", "7")[0]
    assert [g["group"] for g in summary["groups"]] == ["random"] * 3


def test_answers_are_joined_by_prompt_and_what_does_not_match_is_counted(tmp_path, capsys):
    a = write(tmp_path / "a.jsonl", [*(line(f"q{i}", "x", i) for i in (3, 1, 2, 9)), line("q1", "not the first", 8)])
    b = write(tmp_path / "b.jsonl", [line(f"q{i}", "y" if i > 1 else "x") for i in (1, 2, 3, 4, 5)])
    rows, summary = run(tmp_path, paths=[a, b])
    assert [row["output"] for row in rows] == [{"a": "x", "b": "y"}, {"a": "x", "b": "x"}, {"a": "x", "b": "y"}]
    assert summary["rows"] == {
        "repeated in a": 1, "repeated in b": 0, "only in a": 1, "only in b": 2, "matched": 3,
        "the same answer by all": 1,
    }  # fmt: skip
    out = capsys.readouterr().out
    assert "only in a 1, only in b 2, matched 3" in out and "1 problems have the same answer by all models" in out


@pytest.mark.parametrize("spaced", ["\n\nHuman: q \n\nAssistant: ", " q ", [{"role": "user", "content": "q "}]])
def test_spaces_around_turns_do_not_part_a_prompt_from_itself(tmp_path, spaced):
    answered = {**line("q", "b"), "prompt": spaced}
    paths = [write(tmp_path / "a.jsonl", [line("q", "a", 1)]), write(tmp_path / "b.jsonl", [answered])]
    problems, _ = joined([read_answered(path) for path in paths], ["a", "b"])
    assert len(problems) == 1


def test_one_model_is_enough_without_preferences(tmp_path):
    rows, _ = run(tmp_path, "--assign", "ccr", paths=files(tmp_path)[:1])
    assert rows[0]["output"] == {"small": "a0"}
    with pytest.raises(UserError, match="a preference .* needs the answers of a second model"):
        run(tmp_path, paths=files(tmp_path)[:1])


def test_records_stay_records(tmp_path):
    """Their answers name the models."""
    message = [{"role": "user", "content": "q"}]
    scores = {"nll_per_token": 0.5, "perplexity": 1.6}
    first = {
        "id": "7",
        "prompt": message,
        "answers": [{"text": "a", "model": "sft", "scores": scores}],
        "meta": {"k": 1},
    }
    second = {"prompt": message, "answers": [{"text": "b", "model": "dpo"}]}
    run(tmp_path, paths=[write(tmp_path / "a.jsonl", [first]), write(tmp_path / "b.jsonl", [second])])
    (record,) = read_records(tmp_path / "group.txt")
    assert record.id == "7" and [(a.text, a.model) for a in record.answers] == [("a", "sft"), ("b", "dpo")]
    assert record.answers[0].scores == scores
    assert record.meta == {"k": 1, "loss": 0.5, "difficulty": "hard", "feedback_type": "prefer"}


def test_what_chatbot_and_others_call_the_answer_and_its_loss(tmp_path):
    rows = [
        {"prompt": "q", "sample": ["s", "t"], "ppl": [0.5, 0.6]},
        {"prompt": "q", "output": "o", "loss": 2},
        {"prompt": "q", "response": "r", "nll_per_token": 0.25},
    ]
    found = read_answered(write(tmp_path / "a.jsonl", rows))
    assert [(row.answer.text, row.loss) for row in found] == [("s", 0.5), ("o", 2.0), ("r", 0.25)]


def test_rows_as_chatbot_writes_them(tmp_path):
    """Its own code writes a plain row and a record; both are read alike."""
    from utils.answering.rows import answer_row

    plain = answer_row({"prompt": "Human: q\n\nAssistant:", "task": "qa"}, "a:1")
    record = answer_row({"prompt": [{"role": "user", "content": "q"}], "meta": {"task": "qa"}}, "a:2")
    measured = []
    for row in (plain, record):
        answered = answer_row(row.with_answers([Answer("a", model="sft")], greedy=True), "a:3")
        measured.append(answered.with_likelihood([0.5]))
    found = read_answered(write(tmp_path / "a.jsonl", measured))
    assert [(row.answer.text, row.loss, row.task, row.key) for row in found] == [("a", 0.5, "qa", (("user", "q"),))] * 2


@pytest.mark.parametrize(
    "row, says",
    [
        ({"prompt": "q", "ppl": 1.0}, "found the columns prompt, ppl; expected prompt and greedy or sample"),
        ({"prompt": "q", "greedy": [1], "ppl": 1.0}, "column 'greedy' is"),
        ('{"prompt": "q", "greedy": "a", "ppl": NaN}\n', "the loss of the answer is nan; expected a finite number"),
        ({"prompt": "q", "greedy": "a", "ppl": "low"}, "the loss of the answer is 'low'"),
        ({"prompt": "q", "answers": []}, "the record has no answer"),
        ("7\n", "found '7'; expected a JSON object"),
    ],
)
def test_a_row_that_cannot_be_grouped(tmp_path, row, says):
    with pytest.raises(RecordError, match=rf"a\.jsonl:1: {says}"):
        read_answered(write(tmp_path / "a.jsonl", [row]))
