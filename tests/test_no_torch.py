"""data_collect/ on a laptop: every program starts, and the central ones work, where what trains models is not there.

One process without those packages runs all programs one after another, as `python PROGRAM …` runs each."""

import json
import os
import subprocess
import sys

import pytest
from judging import cases
from toys import ROOT

from utils.records import Answer, Message, Record, read_records, write_jsonl

TRAINING = ("torch", "deepspeed", "datasets", "peft", "accelerate", "tensorboard", "matplotlib", "scipy", "jinja2")
PROGRAMS = sorted((ROOT / "data_collect").glob("*.py"))

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


def test_the_world_is_made_and_labelled(laptop, tmp_path):
    world, sampled, labelled = tmp_path / "world", tmp_path / "sampled.jsonl", tmp_path / "labelled.jsonl"
    sizes = ["--num_demonstrations", 300, "--num_prompts", 20, "--num_pairs", 20, "--num_test", 5, "--vocab_size", 400]
    rows = [(tuple(Message(*turn) for turn in turns), texts) for _, turns, texts in cases(20, 3)]
    write_jsonl(sampled, [Record(prompt, tuple(Answer(text) for text in texts)) for prompt, texts in rows])
    collect = ROOT / "data_collect"
    answers = laptop(
        [
            [collect / "make_world.py", "--output_dir", world, *sizes],
            [collect / "label_world.py", "--data_path", sampled, "--output_path", labelled],
            [collect / "train_tokenizer.py", "--data_path", world / "sft/train.jsonl", "--output_dir", tmp_path / "t"]
            + ["--vocab_size", 400],
        ]
    )
    assert [code for code, _ in answers] == [0, 0, 0], answers
    assert all(answer.rating for record in read_records(labelled) for answer in record.answers)
    assert (world / "model/config.json").exists() and (tmp_path / "t/config.json").exists()
