"""inference/win_rate.py on hand-made feedback CSVs, on records and on AlpacaEval's annotations."""

import json

import pytest
from in_process import run
from toy_rows import DATA, real_data
from toys import ROOT

PROGRAM = ROOT / "inference" / "win_rate.py"
REFERENCE = "Name a fruit.,,A pear,4\nName a fruit.,red,A cherry,5\nAdd.,1 and 2,3,7\nSing.,,La,2\n"
MODEL = "Name a fruit.,,An apple,6\nName a fruit.,red,Soup,1\nAdd.,1 and 2,three,7\nDance.,,No,3\n"


@pytest.fixture
def win_rate(tmp_path, capsys):
    def run_it(*argv):
        assert run(PROGRAM, *argv, "--json", tmp_path / "out.json") == 0
        return json.loads((tmp_path / "out.json").read_text()), capsys.readouterr().out

    return run_it


@pytest.fixture
def files(tmp_path):
    for name, text in (("reference.csv", REFERENCE), ("model.csv", MODEL)):
        (tmp_path / name).write_text(text)
    return ["--reference", tmp_path / "reference.csv", "--model", tmp_path / "model.csv"]


def test_ratings_joined_by_prompt(win_rate, files):
    """A win, a loss and a tie: 50 %, standard deviation 1/2, 1.96 * 0.5 / sqrt(3)."""
    found, said = win_rate("ratings", *files)
    assert (found["n"], found["wins"], found["ties"], found["losses"]) == (3, 1, 1, 1)
    assert found["win_rate"] == 50 and found["ci95"] == pytest.approx(196 * 0.5 / 3**0.5)
    assert found["prompts_needed"] is None and found["sign_test"] == 1
    assert "model.csv: 4" in said and "win rate: 50.00 % +- 56.58" in said


def test_ratings_joined_by_the_instruction_alone(win_rate, files):
    """As the source's script joins: of each instruction the first row of either file counts."""
    found, _ = win_rate("ratings", *files, "--join", "instruction")
    assert (found["n"], found["wins"], found["ties"], found["losses"]) == (2, 1, 1, 0)
    assert found["win_rate"] == 75


def test_rankings(win_rate, tmp_path):
    """(b) is the model's answer; what is no verdict is counted and left out."""
    file = tmp_path / "rankings.csv"
    file.write_text("i,,x,y,(b)\ni,,x,y,(b)\nj,,x,y,equal\nk,,x,y,(a)\nl,,x,y,unsure\n")
    found, said = win_rate("rankings", "--input", file)
    assert (found["n"], found["wins"], found["ties"], found["losses"], found["failed"]) == (4, 2, 1, 1, 1)
    assert found["win_rate"] == 62.5 and "1 without a verdict" in said


def test_one_judgement_has_a_rate_and_no_interval(win_rate, tmp_path):
    file = tmp_path / "rankings.csv"
    file.write_text("i,,x,y,(b)\n")
    found, said = win_rate("rankings", "--input", file)
    assert found["win_rate"] == 100 and found["ci95"] is found["prompts_needed"] is found["prompts"]["low"] is None
    assert "+- unknown" in said


@real_data
def test_alpaca_evals_annotations_give_its_leaderboard(win_rate):
    path = DATA / "alpaca_eval" / "alpaca-7b" / "annotations.json"
    found, _ = win_rate("judged", "--input", f"annotations:{path}", "--model", "alpaca-7b")
    assert found["win_rate"] == pytest.approx(26.459627, abs=1e-6) and (found["n"], found["ties"]) == (805, 16)
    assert found["ci95"] / 1.96 == pytest.approx(1.535711, abs=1e-6)
    other, _ = win_rate("judged", "--input", f"annotations:{path}", "--model", "text_davinci_003", "--overwrite")
    assert other["win_rate"] == pytest.approx(100 - 26.459627, abs=1e-6)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("instruction,input,output,score\n", "column 'score' is 'score'; expected a number (the file has a header"),
        ("Name a fruit.,,Soup,good\n", "model.csv:1: column 'score' is 'good'; expected a number"),
        ("Name a fruit.,,Soup,nan\n", "model.csv:1: column 'score' is 'nan'; expected a number"),
        ("Name a fruit.,,Soup\n", "the line has not the 4 fields"),
        ("Jump.,,Hop,3\n", "is in"),
        ("", "no rows; expected instruction,input,output,score without a header"),
    ],
)
def test_wrong_input_is_one_line(files, tmp_path, capsys, text, line):
    (tmp_path / "model.csv").write_text(text)
    assert run(PROGRAM, "ratings", *files) == 2
    said = capsys.readouterr().err
    assert line in said and said.count("\n") == 1


def test_unknown_models_are_named(tmp_path, capsys):
    row = {"instruction": "i", "output_1": "x", "generator_1": "one", "output_2": "y", "generator_2": "two"}
    row["preference"] = 1
    (tmp_path / "annotations.json").write_text(json.dumps([row]))
    assert run(PROGRAM, "judged", "--input", tmp_path / "annotations.json", "--model", "three") == 2
    assert "compared models: one, two" in capsys.readouterr().err
