"""inference/eval_ckpt.sh as it is typed: a tiny model answers, the oracle judges through the ledger."""

import csv
import json
import subprocess

import pytest
from oracle import oracle_program
from processes import environment
from toy_folders import lm_folder
from toys import ROOT

from utils.world.exchanges import PROBLEMS

SCRIPT = ROOT / "inference" / "eval_ckpt.sh"
QUESTIONS = [f"What is {problem.topic}?" for problem in PROBLEMS.values() if problem.kind == "sum"][:6]


def started(folder, *words, **settings):
    return subprocess.run(["bash", SCRIPT, *map(str, words)], cwd=folder, text=True, capture_output=True, timeout=300,
                          env=environment(**settings))  # fmt: skip


@pytest.fixture
def reference(tmp_path):
    path = tmp_path / "reference.json"
    rows = [{"instruction": q, "output": "It is 4.", "generator": "ref", "dataset": "sums"} for q in QUESTIONS]
    path.write_text(json.dumps(rows))
    return path


@pytest.mark.full
def test_a_checkpoint_gets_its_win_rate(tmp_path, reference):
    model = lm_folder(tmp_path / "lm")
    with oracle_program(tmp_path, "--any_model") as (_, url):
        settings = {"REFERENCE": str(reference), "OPENAI_API_KEY": "any",
                    "JUDGE": f"--provider openai --base_url {url}",
                    "GENERATE": "--top_p 0.9 --max_new_tokens 8 --template human_assistant"}  # fmt: skip
        done = started(tmp_path, "", model, "tiny", "all", "0", **settings)
        assert done.returncode == 0, done.stderr
    folder = tmp_path / "output" / "alpaca_eval" / "tiny"
    outputs = json.loads((folder / "model_outputs.json").read_text())
    assert [row["instruction"] for row in outputs] == QUESTIONS and {row["generator"] for row in outputs} == {"tiny"}
    for annotator in ("gpt4", "claude"):
        found = json.loads((folder / annotator / "win_rate.json").read_text())
        with (folder / annotator / "leaderboard.csv").open() as lines:
            (row,) = csv.DictReader(lines)
        # What an untrained model says is noise, which the oracle rates below an answer that tells.
        assert found["n"] + found["nulls"] == len(QUESTIONS) and found["win_rate"] == float(row["win_rate"]) <= 50
        assert row[""] == "tiny" and int(row["n_total"]) == found["n"]
        assert f"{annotator}/leaderboard.csv: win rate of tiny" in done.stdout
    assert done.stdout.count("tiny: win rate") == 2


@pytest.mark.parametrize(
    ("words", "line"),
    [((), "found 0 arguments; expected GPU CHECKPOINT RUN_NAME"), (("0", "lm", "x"), "REFERENCE '' is no file")],
)
def test_wrong_use_is_one_line(tmp_path, words, line):
    done = started(tmp_path, *words)
    assert (
        done.returncode == 2 and line in done.stderr and done.stderr.count("\n") == 1 and not list(tmp_path.iterdir())
    )
