"""data_collect/ on a laptop: every program starts, and the central ones work, where what trains models is not there.

One process without those packages runs all programs one after another, as `python PROGRAM …` runs each."""

import json
import os
import subprocess
import sys

import pytest
from judging import cases
from oracle import oracle_program
from toys import ROOT

from utils.records import Answer, Message, Record
from utils.records.files import read_records, write_jsonl

TRAINING = ("torch", "deepspeed", "datasets", "peft", "accelerate", "tensorboard", "matplotlib", "scipy", "jinja2")
COLLECT = ROOT / "data_collect"
LANDS = ("France", "Italy", "Japan")
PROGRAMS = sorted(COLLECT.glob("*.py"))

# What Python reads at its start: the path finder does not see those packages, as if they were not installed.
SITE = f"""
from importlib.machinery import PathFinder
_find = PathFinder.find_spec
def find_spec(name, path=None, target=None):
    return None if name.split(".")[0] in {TRAINING} else _find(name, path, target)
PathFinder.find_spec = find_spec
"""

DRIVER = """
import contextlib, io, json, runpy, sys
for words in json.load(sys.stdin):
    sys.argv, out = words, io.StringIO()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            runpy.run_path(words[0], run_name="__main__")
        code = 0
    except SystemExit as stopped:
        code = stopped.code or 0
    except BaseException as error:
        code = repr(error)
    print(json.dumps([code, out.getvalue()]))
"""


@pytest.fixture(scope="module")
def laptop(tmp_path_factory):
    """laptop(commands) -> [exit code, what was said] of each."""
    folder = tmp_path_factory.mktemp("laptop")
    (folder / "sitecustomize.py").write_text(SITE)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (folder, ROOT, ROOT / "tests")))}

    def run(commands):
        given = json.dumps([[str(word) for word in command] for command in commands])
        words = [sys.executable, "-c", DRIVER]
        done = subprocess.run(words, input=given, capture_output=True, text=True, env=environment, cwd=ROOT)
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    run.environment = environment
    return run


def test_nothing_that_trains_is_there(laptop, tmp_path):
    for name in TRAINING[:3]:
        program = tmp_path / f"uses_{name}.py"
        program.write_text(f"import {name}")
        ((code, _),) = laptop([[program]])
        assert f"No module named '{name}'" in code


def test_every_program_says_how_it_is_used(laptop):
    answers = laptop([[program, "--help"] for program in PROGRAMS])
    for program, (code, said) in zip(PROGRAMS, answers, strict=True):
        assert code == 0 and f"python data_collect/{program.name}" in said, f"{program.name}: {code} {said}"


def answered(path, models=("strong", "weak", "third")):
    """A file of 20 prompts with answers."""
    rows = [(tuple(Message(*turn) for turn in turns), texts) for _, turns, texts in cases(20, len(models))]
    records = [Record(p, tuple(Answer(t, m) for t, m in zip(texts, models, strict=True))) for p, texts in rows]
    write_jsonl(path, records)


def test_the_world_is_made(laptop, tmp_path):
    world = tmp_path / "world"
    sizes = ["--num_demonstrations", 300, "--num_prompts", 20, "--num_pairs", 20, "--num_test", 5, "--vocab_size", 400]
    answers = laptop(
        [
            [COLLECT / "make_world.py", "--output_dir", world, *sizes],
            [COLLECT / "train_tokenizer.py", "--data_path", world / "sft/train.jsonl", "--output_dir", tmp_path / "t"]
            + ["--vocab_size", 400],
        ]
    )
    assert [code for code, _ in answers] == [0, 0], answers
    assert len(list(read_records(world / "pairs/train.jsonl"))) == 20
    assert (world / "model/config.json").exists() and (tmp_path / "t/config.json").exists()


def test_feedback_is_asked_for_and_made_into_sets(laptop, tmp_path):
    answered(tmp_path / "answers.jsonl")
    (tmp_path / "goals.txt").write_text("".join(f"Find the capital of {land}.\n" for land in LANDS))
    (tmp_path / "lessons").mkdir()
    for name in ("a", "b"):
        rows = [{"prompt": f"q{n}", "task": "qa", "greedy": f"{name} {n}", "ppl": n / 9} for n in range(9)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with oracle_program(tmp_path, env=laptop.environment) as (_, url):
        server = ["--base_url", url, "--api_type", "oracle", "--provider", "openai"]

        def request(kind, given="answers", *words):
            files = ["--input_files", tmp_path / f"{given}.jsonl", "--output_file", tmp_path / f"{kind}.jsonl"]
            return [COLLECT / "request.py", "--kind", kind, *files, *server, *words]

        goals = ["--objectives", tmp_path / "goals.txt", "--output_file", tmp_path / "lessons/bio-dataset-1.json"]
        paired = ["--data_path", tmp_path / "ranking.jsonl", "--output_dir", tmp_path / "sets", "--stats"]
        rated_and_ranked = ["--ratings_csv", tmp_path / "rating.jsonl", "--rankings_csv", tmp_path / "ranking.jsonl"]
        converted = ["--input", tmp_path / "ranking.jsonl", "--output", tmp_path / "lines.txt"]
        commands = [
            request("rating"),
            request("ranking", "answers", "--structured"),
            request("critique"),
            request("improve", "critique"),
            [COLLECT / "request.py", "--kind", "conversation", *goals, *server],
            [COLLECT / "ledger.py", "report", "--ledger", tmp_path / "rating.jsonl.ledger"],
            [COLLECT / "ledger.py", "reparse", "--ledger", tmp_path / "rating.jsonl.ledger"],
            [COLLECT / "pairs.py", *paired],
            [COLLECT / "convert.py", "--from", "records", "--to", "feedback-lines", *converted],
            [COLLECT / "consistency.py", *rated_and_ranked],
            [COLLECT / "gather_prompts.py", "--data_path", f"records:{tmp_path / 'answers.jsonl'}"]
            + ["--output_path", tmp_path / "prompts.txt"],
            [COLLECT / "group.py", "--answers", tmp_path / "a.jsonl", tmp_path / "b.jsonl", "--base_models", "a,b"]
            + ["--output_path", tmp_path / "group.txt"],
            [COLLECT / "tutor.py", "split", "--data_dir", tmp_path / "lessons", "--num_sft", 1, "--num_dpo", 1],
        ]
        answers = laptop(commands)
    for command, (code, said) in zip(commands, answers, strict=True):
        assert code == 0, f"{command[:3]}: {code} {said}"
    assert len(list(read_records(tmp_path / "sets/train.jsonl"))) > 10
    sets = [json.loads((tmp_path / f"lessons/bio-{name}.json").read_text()) for name in ("sft", "dpo", "test")]
    assert list(map(len, sets)) == [1, 1, 1]
