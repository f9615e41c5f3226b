"""What rw_eval.py finds in scores: by hand on few pairs, planted faults, and through the program."""

import json
import random

import numpy as np
import pytest
from toy_folders import rm_folder, write_rows

from training.step2_reward import rw_eval
from utils.evaluation.perturbations import FILLER, PERTURBATIONS, SWAPPED, perturbed, preferred_perturbations
from utils.evaluation.reward_scores import JudgedScores, fitted_temperature
from utils.records import Message, comparison


def row(better, worse, texts=("yes", "no"), number=0):
    answers = [{"text": t, "scores": {"rm": s}} for t, s in zip(texts, (better, worse), strict=True)]
    prompt = [{"role": "user", "content": f"hello {number}"}]
    return {"prompt": prompt, "answers": answers, "verdicts": [{"a": 0, "b": 1, "preferred": "a"}]}


def test_by_hand():
    """Three of four pairs are right; of those where the better answer is longer one of two."""
    rows = [row(2, 1, ("long", "no")), row(0, 1, ("longer", "x")), row(3, 0, ("a", "bcd")), row(1, 0, ("ab", "cd"))]
    found = JudgedScores.of(rows, "rm", ["x", "x", "y", "y"]).to_json()
    assert found["accuracy"]["value"] == 0.75 and found["margin"]["value"] == 1.0
    by_length = found["by_length"]
    assert (by_length["better is longer"]["value"], by_length["better is longer"]["n"]) == (0.5, 2)
    assert by_length["better is shorter"]["value"] == by_length["equal"]["value"] == 1.0
    assert {name: share["value"] for name, share in found["by_source"].items()} == {"x": 0.5, "y": 1.0}
    # lengths and scores: 4 2, 2 1; 6 0, 1 1; 1 3, 3 0; 2 1, 2 0
    lengths, scores = np.array([4, 2, 6, 1, 1, 3, 2, 2]), np.array([2, 1, 0, 1, 3, 0, 1, 0])
    assert found["length_correlation"]["over_all"] == pytest.approx(np.corrcoef(lengths, scores)[0, 1])
    halves = np.array([1, -1, 2.5, -2.5, -1, 1, 0, 0]), np.array([0.5, -0.5, -0.5, 0.5, 1.5, -1.5, 0.5, -0.5])
    assert found["length_correlation"]["within_prompts"] == pytest.approx(np.corrcoef(*halves)[0, 1])
    assert found["by_margin"] == []  # four pairs have no quarters


def test_the_temperature_undoes_what_scaled_the_scores():
    """Verdicts drawn by σ(gap): gaps three times as large need T = 3. Two right gaps of 1 and one wrong: T is where
    σ(1/T) = 2/3, 1/log 2."""
    draw = np.random.default_rng(0)
    gaps = np.abs(draw.normal(0, 2, 20_000))
    verdicts = np.where(draw.random(20_000) < 1 / (1 + np.exp(-gaps)), 1, -1)
    assert fitted_temperature(3 * gaps * verdicts) == pytest.approx(3, rel=0.05)
    assert fitted_temperature([1, 1, -1]) == pytest.approx(1 / np.log(2))
    assert fitted_temperature([1, 2]) is None and fitted_temperature([-2, 1]) is None


def test_a_model_that_likes_long_answers_is_found_out():
    draw = np.random.default_rng(1)
    rows = []
    for number in range(80):
        texts = ["x" * int(draw.integers(1, 99)) for _ in range(2)]
        rows.append(row(len(texts[0]), len(texts[1]), texts, number))
    found = JudgedScores.of(rows, "rm", ["x"] * 80).to_json()
    assert found["length_correlation"] == {"over_all": pytest.approx(1), "within_prompts": pytest.approx(1)}
    quarters = [quarter["accuracy"]["value"] for quarter in found["by_length"]["quarters"]]
    assert quarters[0] == 0 and quarters[-1] == 1
    assert sum(quarter["accuracy"]["n"] for quarter in found["by_margin"]) == 80


def test_perturbations():
    draw = random.Random(0)
    assert PERTURBATIONS["truncation"]("one two three four", draw) == "one two"
    shuffled = PERTURBATIONS["shuffled sentences"]("One. Two? Three! Four.", draw)
    assert sorted(shuffled.split()) == ["Four.", "One.", "Three!", "Two?"] and shuffled != "One. Two? Three! Four."
    records = [comparison([Message("user", f"q{n}")], f"One {n}. Two {n}.", "bad") for n in range(4)]
    made = perturbed(records, seed=0)
    assert perturbed(records, seed=0) == made
    for number, record in enumerate(made):
        named = {answer.model: answer.text for answer in record.answers}
        assert named[None] == f"One {number}. Two {number}." and named["filler"].endswith(FILLER)
        assert named[SWAPPED] == f"One {(number + 2) % 4}. Two {(number + 2) % 4}."
    # one that likes length prefers filler, and never half an answer
    rows = []
    for record in made:
        answers = [{"text": a.text, "model": a.model, "scores": {"rm": len(a.text)}} for a in record.answers]
        rows.append({"answers": answers})
    found = preferred_perturbations(rows, "rm")
    assert found["filler"]["preferred"]["value"] == 1 and found["filler"]["drop"]["value"] == -len(f" {FILLER}")
    assert found["truncation"]["preferred"]["value"] == 0
    assert found[SWAPPED]["preferred"]["value"] == 0.5  # equal lengths


def test_the_program_writes_all_of_it(tmp_path, capsys):
    folder = rm_folder(tmp_path / "rm")
    pairs = [{"prompt": f"hello {n}", "chosen": f"yes. five is {n}", "rejected": "no"} for n in range(9)]
    data = [str(write_rows(tmp_path / f"{name}.jsonl", pairs[:k])) for name, k in (("a", 9), ("b", 3))]
    words = ["--model_name_or_path", str(folder), "--template", "human_assistant", "--perturb", "--data_path", *data]
    rw_eval.main([*words, "--output_path", str(tmp_path / "out.jsonl")])
    found = json.loads((tmp_path / "out-metrics.json").read_text())
    assert {name: share["n"] for name, share in found["by_source"].items()} == {data[0]: 9, data[1]: 3}
    assert found["perturbations"].keys() == {*PERTURBATIONS, SWAPPED}
    assert found["perturbations"]["filler"]["preferred"]["n"] == 12
    assert (tmp_path / "out-metrics.png").read_bytes().startswith(b"\x89PNG")
    said = capsys.readouterr().out
    assert "filler: preferred" in said and "over 12 pairs" in said
