"""rerank.py, eval_sft.py, prompt_eval.py, rw_eval.py: formats, arithmetic, and who wins."""

import json
import math

import in_process
import pytest
import torch
from stages import toy_data, toy_model
from toy_folders import lm_folder, read_rows, rm_folder, write_rows
from toys import ROOT

from inference import rerank
from training.step1_sft import eval_sft, prompt_eval
from training.step2_reward import rw_eval
from utils.answering.files import input_files, output_file
from utils.answering.rows import answer_row
from utils.errors import UserError
from utils.records import Message
from utils.records.files import read_records

TEXTS = ["hello", "what is two plus three?", "be kind"]
HUMAN = ["--template", "human_assistant"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    lm_folder(folder / "lm")
    lm_folder(folder / "tuned", seed=3)
    rm_folder(folder / "rm")
    return folder


def start(program, *words):
    program.main([str(word) for word in words])


def record(scores, name="judge", **more):
    answers = [{"text": f"answer {k}", "scores": {name: s, "nll_per_token": 1.0}} for k, s in enumerate(scores)]
    return {"prompt": [{"role": "user", "content": "hello"}], "answers": answers, **more}


def test_best_of_n_takes_the_highest_of_the_first_n(tmp_path, capsys):
    """By hand: of (1, 3, 3, 9) and (5, 0, 2, 4) the best of 1 are 1, 5; of 2: 3, 5; of 4: 9, 5; the first of equals."""
    rows = [record([1, 3, 3, 9], id="a", meta={"kind": 1}), record([5, 0, 2, 4], id="b")]
    data = write_rows(tmp_path / "x.jsonl", rows)
    start(rerank, "--data_path", data, "--n", "1,2,4,3")
    for n, texts, mean in ((1, ["0", "0"], 3), (2, ["1", "0"], 4), (3, ["1", "0"], 4), (4, ["3", "0"], 7)):
        best = list(read_records(tmp_path / f"x-best-of-{n}.jsonl"))
        assert [r.answers[0].text for r in best] == [f"answer {t}" for t in texts] and {
            len(r.answers) for r in best
        } == {1}
        assert [r.id for r in best] == ["a", "b"] and best[0].meta == {"kind": 1}
        curve = json.loads((tmp_path / "x-best-curve.json").read_text())["best_of"][str(n)]
        assert curve["score"]["value"] == mean and curve["kl_bound"] == pytest.approx(math.log(n) - (n - 1) / n)
    assert "best of   4: score 7.000" in capsys.readouterr().out
    # the mean over all pairs of answers is 36 / 6 for a and 25 / 6 for b
    over_n = json.loads((tmp_path / "x-best-curve.json").read_text())["expected"]
    expected = {"1": (4 + 2.75) / 2, "2": (36 / 6 + 25 / 6) / 2, "4": 7}
    assert {n: point["score"]["value"] for n, point in over_n.items()} == pytest.approx(expected)
    assert over_n["2"]["kl_bound"] == pytest.approx(math.log(2) - 1 / 2)
    start(rerank, "--data_path", data, "--n", "2", "--output_path", tmp_path / "chosen.jsonl")
    assert len(read_rows(tmp_path / "chosen.jsonl")) == 2


def test_best_of_n_scores_what_has_no_scores(folder, tmp_path):
    """Records and plain rows; the second time the scores are there."""
    write_rows(tmp_path / "r.jsonl", [{"prompt": text, "answers": ["yes", "five is it", "no"]} for text in TEXTS])
    write_rows(tmp_path / "p.jsonl", [{"prompt": text, "sample": ["yes", "five is it", "no"]} for text in TEXTS])
    for name in ("r", "p"):
        words = [
            "--data_path",
            tmp_path / f"{name}.jsonl",
            "--reward_model_name_or_path",
            folder / "rm",
            *HUMAN,
            "--n",
            3,
        ]
        start(rerank, *words)
        start(rerank, *words)
    best = [list(read_records(tmp_path / f"{name}-best-of-3.jsonl")) for name in ("r", "p")]
    assert [r.answers[0].text for r in best[0]] == [r.answers[0].text for r in best[1]]
    for scored, (chosen) in zip(read_records(tmp_path / "r-rm.jsonl"), best[0], strict=True):
        (score,) = chosen.answers[0].scores.values()
        assert score == max(a.scores[f"{folder.name}/rm"] for a in scored.answers)


def test_best_of_n_refuses_what_it_cannot_choose_from(tmp_path):
    data = write_rows(tmp_path / "x.jsonl", [record([1, 2], id="a"), record([1, 2], name="other", id="b")])
    for words, message in [
        (["--n", "2"], "have scores of judge, other; choose one with --scorer"),
        (["--n", "2", "--scorer", "judge"], "x.jsonl:2: an answer has no score of judge"),
        (["--n", "3", "--scorer", "judge"], "x.jsonl:1: 2 answers, too few for --n 3"),
        (["--n", "0"], "--n is '0'"),
    ]:
        with pytest.raises(UserError, match=message):
            start(rerank, "--data_path", data, *words)
    write_rows(data, [{"prompt": "hello", "answers": ["yes"]}])
    with pytest.raises(UserError, match="x.jsonl:1: the answers have no scores; give --reward_model_name_or_path"):
        start(rerank, "--data_path", data)


def test_eval_sft_writes_two_samples(folder, tmp_path):
    rows = [{"instruction": text, "input": "", "output": "five"} for text in TEXTS]
    data = write_rows(tmp_path / "x.jsonl", rows)
    words = ["--model_name_or_path", folder / "lm", *HUMAN, "--data_path", data, "--max_new_tokens", 6]
    start(eval_sft, *words, "--output_path", tmp_path / "two.jsonl")
    found = read_rows(tmp_path / "two.jsonl")
    assert [row["instruction"] for row in found] == TEXTS and all(
        list(row) == ["instruction", "output_1", "output_2"] for row in found
    )
    assert all(row["output_1"] != row["output_2"] for row in found)
    start(rw_eval, "--model_name_or_path", folder / "rm", *HUMAN, "--data_path", tmp_path / "two.jsonl")
    scored = read_rows(tmp_path / "two-scored.jsonl")
    assert [{k: row[k] for k in found[0]} for row in scored] == found
    assert all(isinstance(row[f"output_{k}_score"], float) for row in scored for k in (1, 2))


def test_prompt_eval_shows_models_side_by_side(folder, tmp_path):
    common = [*HUMAN, "--max_new_tokens", 5, "--output_path", tmp_path / "x.json"]
    start(
        prompt_eval,
        "--model_name_or_path_baseline",
        folder / "lm",
        *common,
        "--temperature",
        0,
        "--num_return_sequences",
        2,
    )
    alone = json.loads((tmp_path / "x.json").read_text())
    assert [row["prompt"] for row in alone] == list(prompt_eval.PROMPTS["English"]) and len(alone[0]["response"]) == 2
    data = write_rows(tmp_path / "p.jsonl", [{"prompt": text} for text in TEXTS])
    both = ["--model_name_or_path_baseline", folder / "lm", "--model_name_or_path_finetune", folder / "tuned"]
    start(
        prompt_eval, *both, *common, "--local_data_files", data, "--dataset_name", "prompt_answer", "--max_samples", 2
    )
    rows = json.loads((tmp_path / "x.json").read_text())
    assert [list(row) for row in rows] == [["prompt", "baseline", "response"]] * 2
    assert [row["prompt"] for row in rows] == TEXTS[:2] and rows[0]["baseline"] != rows[0]["response"]


def test_rw_eval_counts_who_wins(folder, tmp_path):
    """Pairs put the way the model scores them are all right, turned around they are all wrong."""
    words = ["--model_name_or_path", folder / "rm", *HUMAN, "--data_path"]
    single = write_rows(
        tmp_path / "s.jsonl", [{"prompt": t, "response": r} for t in TEXTS for r in ("yes", "five is it")]
    )
    start(rw_eval, *words, single)
    scores = [row["score"] for row in read_rows(tmp_path / "s-scored.jsonl")]
    pairs = []
    for n, text in enumerate(TEXTS):
        order = ("yes", "five is it") if scores[2 * n] > scores[2 * n + 1] else ("five is it", "yes")
        pairs.append({"prompt": text, "chosen": order[0], "rejected": order[1]})
    turned = [{"prompt": p["prompt"], "chosen": p["rejected"], "reject": p["chosen"]} for p in pairs]
    gaps = [abs(scores[2 * n] - scores[2 * n + 1]) for n in range(3)]
    for name, rows, accuracy, sign in (("right", pairs, 1.0, 1), ("wrong", turned, 0.0, -1)):
        start(rw_eval, *words, write_rows(tmp_path / f"{name}.jsonl", rows))
        found = json.loads((tmp_path / f"{name}-scored-metrics.json").read_text())
        assert found["accuracy"]["value"] == accuracy and found["accuracy"]["n"] == 3
        assert found["margin"]["value"] == pytest.approx(sign * sum(gaps) / 3, abs=1e-4)
        sure = [torch.tensor(gap).sigmoid().item() for gap in gaps]
        assert found["brier"] == pytest.approx(sum((p - accuracy) ** 2 for p in sure) / 3, abs=1e-4)
        assert sum(b["n"] for b in found["calibration"]) == 3
        assert {b["observed"]["value"] for b in found["calibration"]} == {accuracy}
    write_rows(single, [{"prompt": "hello", "output_1": "yes"}])
    with pytest.raises(
        UserError, match="s.jsonl:1: found the columns prompt, output_1; expected text in output_1 and output_2"
    ):
        start(rw_eval, *words, single)


def test_step_2_writes_the_bins_of_its_calibration_error(tmp_path):
    places = toy_model(tmp_path / "model"), toy_data(tmp_path / "data"), tmp_path / "reward", tmp_path / "cache"
    assert in_process.run_stage(in_process.REWARD, *places, "--max_steps", "3") == 0
    last = read_rows(tmp_path / "reward" / "metrics.jsonl")[-1]
    found = json.loads((tmp_path / "reward" / "calibration.json").read_text())
    gaps = [b["n"] * abs(b["predicted"] - b["observed"]["value"]) for b in found["bins"]]
    assert found["step"] == last["step"] == 3 and sum(b["n"] for b in found["bins"]) == 12
    assert sum(gaps) / 12 == pytest.approx(last["eval/ece"]) and last["eval/ece"] > 0


def test_rw_eval_has_pairs_of_its_own(folder, tmp_path, monkeypatch, capsys):
    """Prints the scores; writes them only with --output_path, the same numbers."""
    monkeypatch.chdir(tmp_path)
    start(rw_eval, "--model_name_or_path", folder / "rm", *HUMAN)
    shown = capsys.readouterr().out
    assert not list(tmp_path.iterdir()) and all(row.instruction in shown for row in rw_eval.BUILT_IN)
    start(rw_eval, "--model_name_or_path", folder / "rm", *HUMAN, "--output_path", "out/pairs.jsonl")
    assert json.loads((tmp_path / "out/pairs-metrics.json").read_text())["accuracy"]["n"] == len(rw_eval.BUILT_IN)
    assert shown.splitlines()[-2:] == capsys.readouterr().out.splitlines()[-2:]


def test_prompt_eval_writes_nothing_unasked(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    data = write_rows(tmp_path / "p.jsonl", [{"prompt": f"hello {n}"} for n in range(7)])
    words = ["--model_name_or_path_baseline", folder / "lm", *HUMAN, "--max_new_tokens", 2]
    start(prompt_eval, *words)
    start(prompt_eval, *words, "--local_data_files", data)
    shown = capsys.readouterr().out
    assert list(tmp_path.iterdir()) == [data] and "written" not in shown
    assert all(f"prompt: {text}" in shown for text in (*prompt_eval.PROMPTS["English"], "hello 0", "hello 6"))
    start(prompt_eval, *words, "--output_path", "mine.json")
    assert len(json.loads((tmp_path / "mine.json").read_text())) == 2
    assert "written to mine.json" in capsys.readouterr().out


@pytest.mark.parametrize(
    "row, messages",
    [
        (
            {"prompt": "Human: a\n\nAssistant: b\n\nHuman: c\n\nAssistant:"},
            [("user", "a"), ("assistant", "b"), ("user", "c")],
        ),
        ({"prompt": "a"}, [("user", "a")]),
        ({"instruction": "a", "input": "", "output": "b"}, [("user", "a")]),
        ({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}, [("user", "a")]),
    ],
)
def test_prompts_are_read_in_every_spelling(row, messages):
    assert answer_row(row, "x:1").record.prompt == tuple(Message(*m) for m in messages)


def test_a_plain_template_takes_the_text_as_it_stands():
    text = "Human: a\n\nAssistant:"
    assert answer_row({"prompt": text}, "x:1", verbatim=True).record.prompt == (Message("user", text),)


def test_outputs_are_named_after_inputs(tmp_path):
    here = str(tmp_path)
    name = lambda given, *paths: str(output_file(given, [f"{here}/{p}" for p in paths], "rm").relative_to(tmp_path))  # noqa: E731
    (tmp_path / "data").mkdir()
    for given, paths, expected in [
        ("", ["x.jsonl"], "x-rm.jsonl"),
        ("", ["x.txt"], "x-rm.jsonl"),
        ("", ["data"], "data-rm.jsonl"),
        ("", ["part-1.txt", "part-2.txt"], "part-rm.jsonl"),
        ("", ["part-*.txt"], "part-rm.jsonl"),
        (f"{here}/out", ["x.txt"], "out.jsonl"),
        (f"{here}/v1.0", ["x.txt"], "v1.0.jsonl"),
        (f"{here}/out.txt", ["x.txt"], "out.txt"),
        (f"{here}/data", ["x.txt"], "data/x-rm.jsonl"),
    ]:
        assert name(given, *paths) == expected
    for file in ("b.jsonl", "a.txt", ".hidden.jsonl", "c.jsonl.args.json", "d.md"):
        (tmp_path / "data" / file).write_text("{}")
    for path in (f"{here}/data", f"{here}/data/[abc]*"):
        assert [f.path for f in input_files([path], tmp_path / "out")] == [f"{here}/data/a.txt", f"{here}/data/b.jsonl"]
    assert [f.path for f in input_files([f"{here}/data"], tmp_path / "data/a.txt")] == [f"{here}/data/b.jsonl"]


def test_evaluators_stay_short():
    for path in (
        "training/step1_sft/eval_sft.py",
        "training/step1_sft/prompt_eval.py",
        "training/step2_reward/rw_eval.py",
    ):
        assert len((ROOT / path).read_text(encoding="utf-8").splitlines()) <= 175
