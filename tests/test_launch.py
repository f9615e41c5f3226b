"""What a run_*.sh says before it starts anything, and where it reads and writes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from processes import environment
from stages import toy_data, toy_model
from toys import ROOT

DPO_LLAMA = "step3_dpo/run_dpo_llama.sh"
SCRIPTS = ["step1_sft/run_llama.sh", "step2_reward/run_llama.sh", DPO_LLAMA, "step3_ppo/run_ppo_llama.sh"]


def program(folder, name, text):
    """A program of that name, first on the PATH."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/usr/bin/env bash\n{text}\n")
    (folder / name).chmod(0o755)


def launch(folder, script, *flags, gpus=0, cwd=None, **settings):
    """(exit code, stdout, stderr) of the script on a machine where nvidia-smi lists so many GPUs."""
    listed = "".join(f"GPU {n}: H100 (UUID: GPU-{n})\n" for n in range(gpus))
    program(folder / "bin", "nvidia-smi", f"cat <<'END'\n{listed}END")
    path = f"{folder / 'bin'}:{os.path.dirname(sys.executable)}:{os.environ['PATH']}"
    settings = {"OUTPUT_ROOT": str(folder / "output"), **{name: str(value) for name, value in settings.items()}}
    kept = {k: v for k, v in environment().items() if k not in ("CUDA_VISIBLE_DEVICES", "DS_ACCELERATOR")}
    done = subprocess.run(
        ["bash", ROOT / "training" / script, *map(str, flags)], cwd=cwd or folder, capture_output=True, text=True,
        env={**kept, "PATH": path, **settings},
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def refusal(folder, script, *flags, **settings):
    """The one line; nothing is written."""
    start = time.monotonic()
    code, out, line = launch(folder, script, *flags, **settings)
    assert time.monotonic() - start < 3
    assert (code, out, line.count("\n")) == (2, "", 1) and line.startswith("error: ")
    assert not list(folder.glob("output/**/run_*.sh")) and not list(folder.glob("output/*/train.log"))
    return line


def model(folder, kind="LlamaForCausalLM"):
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"architectures": [kind]}))
    return folder


# ---- devices


def test_the_literal_command_says_what_to_run_first(tmp_path):
    line = refusal(tmp_path, DPO_LLAMA, cwd=ROOT / "training" / "step3_dpo")
    assert f"{tmp_path}/output/sft_llama: no such folder; run training/step1_sft/run_llama.sh first, or set" in line
    assert "8 GPUs asked, 0 found; GPUS=1 trains on the CPU" in line and "DS_ACCELERATOR=cpu" in line


@pytest.mark.parametrize("script", SCRIPTS)
def test_more_gpus_than_there_are(tmp_path, script):
    assert "8 GPUs asked, 4 found; GPUS=4 uses these" in refusal(tmp_path, script, gpus=4)
    assert "8 GPUs asked, 0 found" in refusal(tmp_path, script)


def test_visible_devices_count(tmp_path):
    settings = {"DATA": "owner/name", "MODEL": "gpt2", "gpus": 8}
    line = refusal(tmp_path, DPO_LLAMA, CUDA_VISIBLE_DEVICES="4,5", GPUS="3", **settings)
    assert line == "error: 3 GPUs asked, 2 found; GPUS=2 uses these, or run on a machine with 3\n"
    assert "2 GPUs asked, 0 found" in refusal(tmp_path, DPO_LLAMA, CUDA_VISIBLE_DEVICES="", GPUS="2", **settings)


@pytest.mark.parametrize("gpus", ["two", "0", "-1", "1.5"])
def test_gpus_is_a_number(tmp_path, gpus):
    assert f"GPUS is '{gpus}'; expected a whole number, 1 or more" in refusal(tmp_path, DPO_LLAMA, GPUS=gpus)


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"GPUS": "4", "gpus": 4}, "--num_gpus 4"),
        ({"GPUS": "2", "gpus": 4, "CUDA_VISIBLE_DEVICES": "1,3,2"}, "--include localhost:1,3"),
        ({"GPUS": "2", "DS_ACCELERATOR": "cpu"}, "--num_gpus 2 --no_python env CUDA_VISIBLE_DEVICES= python"),
        ({"GPUS": "2", "DS_ACCELERATOR": "cpu", "gpus": 4}, "--num_gpus 2 --no_python env CUDA_VISIBLE_DEVICES="),
        ({"HOSTFILE": "hosts"}, "--hostfile hosts"),
    ],
)
def test_what_is_started(tmp_path, settings, words):
    program(tmp_path / "bin", "deepspeed", 'echo "$@"')
    code, out, err = launch(tmp_path, "step1_sft/run_llama.sh", DATA="owner/name", MODEL="gpt2", **settings)
    assert (code, err) == (0, "") and words in out
    assert f"{ROOT}/training/step1_sft/main.py --model_name_or_path gpt2 --data_path owner/name" in out
    assert (tmp_path / "output/sft_llama/train.log").read_text() == out


# ---- several ranks: how they end


@pytest.mark.parametrize("code, words", [(0, ""), (2, ""), (247, "error: a rank was killed by signal 9")])
def test_the_exit_code_of_the_ranks(tmp_path, code, words):
    program(tmp_path / "bin", "deepspeed", f"exit {code}")
    found, _, err = launch(tmp_path, DPO_LLAMA, MODEL="gpt2", GPUS="2", DS_ACCELERATOR="cpu")
    assert found == code and err.startswith(words) and err.count("\n") == bool(words)


@pytest.mark.parametrize("begun", [True, False])
def test_ctrl_c_ends_every_rank_with_one_line(tmp_path, begun):
    """deepspeed's launcher dies of Ctrl-C without ending its ranks; this one does not hear it at all."""
    program(tmp_path / "bin", "deepspeed", "trap '' INT\nsleep 60 &\necho rank $!\nwait")
    path = f"{tmp_path / 'bin'}:{os.path.dirname(sys.executable)}:{os.environ['PATH']}"
    settings = {"PATH": path, "OUTPUT": str(tmp_path / "out"), "MODEL": "gpt2", "GPUS": "2", "DS_ACCELERATOR": "cpu"}
    script = subprocess.Popen(
        ["bash", ROOT / "training" / DPO_LLAMA], env=environment(**settings), stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    rank = int(script.stdout.readline().split()[1])
    if begun:
        (tmp_path / "out/args.json").write_text("{}")
    os.killpg(script.pid, signal.SIGINT)
    assert script.communicate(timeout=20)[1] == f"interrupted{'; run the same command again to continue' * begun}\n"
    assert script.returncode == 130
    time.sleep(0.2)
    status = Path(f"/proc/{rank}/stat")  # Z: ended, and not yet asked how
    assert not status.exists() or status.read_text().split()[2] == "Z"


@pytest.mark.slow
@pytest.mark.parametrize(
    "flags, words", [("--lerning_rate 1", "did you mean --learning_rate?"), ("--overwrite", "bad.jsonl:1: ")]
)
def test_a_refused_start_leaves_nothing(tmp_path, flags, words):
    """One rank; a folder that was there before is left, with the line in its log."""
    toy_model(tmp_path / "model")
    (tmp_path / "bad.jsonl").write_text('{"a": 1}\n')
    for there in (False, True):
        settings = {"MODEL": "model", "DATA": "bad.jsonl", "OUTPUT": "out"}
        if there:
            (tmp_path / "out").mkdir()
        code, out, _ = launch(tmp_path, "step2_reward/run_tiny.sh", "--cache_dir", "cache", *flags.split(), **settings)
        assert code == 2 and words in out
        assert (tmp_path / "out").exists() == there
    assert words in (tmp_path / "out/train.log").read_text()


@pytest.mark.parametrize("written, left", [("", False), ("touch $out/args.json;", True)])
def test_ranks_that_refuse_leave_nothing(tmp_path, written, left):
    program(tmp_path / "bin", "deepspeed", f"out={tmp_path}/out; {written} echo error: no; exit 2")
    settings = {"MODEL": "gpt2", "GPUS": "2", "DS_ACCELERATOR": "cpu", "OUTPUT": "out"}
    assert launch(tmp_path, DPO_LLAMA, **settings)[:2] == (2, "error: no\n")
    assert (tmp_path / "out").exists() == left


@pytest.mark.full
@pytest.mark.parametrize("flags, words", [("--lerning_rate 1", "did you mean --learning_rate?"), ("", "bad.jsonl:1: ")])
def test_a_mistake_is_one_line_of_two_ranks(tmp_path, flags, words):
    toy_model(tmp_path / "model")
    (tmp_path / "bad.jsonl").write_text('{"a": 1}\n')
    settings = {"MODEL": "model", "DATA": "bad.jsonl", "GPUS": "2", "DS_ACCELERATOR": "cpu", "OUTPUT": "out"}
    code, out, _ = launch(tmp_path, "step2_reward/run_tiny.sh", "--cache_dir", "cache", *flags.split(), **settings)
    said = [line for line in out.splitlines() if not line.startswith("train tokens: ")]
    assert code == 2 and len(said) == 1 and said[0].startswith("error: ") and words in said[0]


# ---- models and data


def test_models_of_the_wrong_kind(tmp_path):
    language, reward = model(tmp_path / "lm"), model(tmp_path / "rm", "LlamaForSequenceClassification")
    (tmp_path / "begun").mkdir()
    said = refusal(tmp_path, "step3_ppo/run_ppo_llama.sh", MODEL=reward, REWARD=language, GPUS=1)
    assert f"{reward} is a reward model; a language model is wanted here; set MODEL" in said
    assert f"{language} is a language model; a reward model is wanted here; set REWARD" in said
    said = refusal(tmp_path, "step3_ppo/run_ppo_llama.sh", MODEL="begun", GPUS=1)
    assert "begun: no config.json in this folder" in said and "run training/step2_reward/run_llama.sh first" in said
    said = refusal(tmp_path, DPO_LLAMA, "--model_name_or_path", reward, MODEL=language, GPUS=1)
    assert said.endswith("a language model is wanted here; set --model_name_or_path to one that exists\n")
    said = refusal(tmp_path, "step2_reward/run_llama.sh", MODEL=reward, GPUS=1, DATA="none.jsonl")  # it may go on
    assert said == "error: none.jsonl: no such file or folder; set DATA to one that exists\n"


@pytest.mark.parametrize(
    "data, missing",
    [
        ("pairs:nowhere.jsonl=0.5", "nowhere.jsonl"),
        ("there.jsonl=20rows /no/such/folder", "/no/such/folder"),
        ("there.jsonl folder/nowhere", "folder/nowhere"),
        ("../pairs", "../pairs"),
    ],
)
def test_data_that_is_missing(tmp_path, data, missing):
    (tmp_path / "there.jsonl").touch()
    (tmp_path / "folder").mkdir()
    line = refusal(tmp_path, DPO_LLAMA, MODEL="gpt2", DATA=data, GPUS=1)
    assert line == f"error: {missing}: no such file or folder; set DATA to one that exists\n"


def test_data_as_it_is_not_written(tmp_path):
    assert "did you mean pairs?" in refusal(tmp_path, DPO_LLAMA, MODEL="gpt2", DATA="pair:x", GPUS=1)


def test_the_built_in_world_names_what_makes_it(tmp_path):
    world = tmp_path / "output/tutor/world"
    said = refusal(tmp_path, "step1_sft/run_tiny.sh")
    assert f"{world}/sft: no such file or folder; run `python data_collect/make_world.py --output_dir {world}`" in said
    said = refusal(tmp_path, "step3_dpo/run_tiny.sh")
    assert "run training/step1_sft/run_tiny.sh first" in said
    assert "feedback: no such file or folder; run `bash run.sh` first, or set DATA" in said


def test_the_reward_model_of_the_world_is_measured_on_its_own_verdicts(tmp_path):
    """As `bash run.sh` calls it; other data on their own test splits."""
    program(tmp_path / "bin", "deepspeed", 'echo "$@"')
    tutor = tmp_path / "output/tutor"
    model(tutor / "sft")
    for name in ("feedback", "world/pairs"):
        (tutor / name).mkdir(parents=True)
    two = {"GPUS": "2", "DS_ACCELERATOR": "cpu"}
    said = launch(tmp_path, "step2_reward/run_tiny.sh", **two)[1]
    assert f"--data_path {tutor}/feedback {tutor}/world/pairs --output_dir" in said
    assert f"--eval_data_path {tutor}/feedback --max_prompt" in said
    assert "--eval_data_path" not in launch(tmp_path, "step2_reward/run_tiny.sh", DATA="owner/name", **two)[1]


def test_a_finished_run_needs_nothing(tmp_path):
    program(tmp_path / "bin", "deepspeed", 'echo "$@"')
    (tmp_path / "output/dpo_llama").mkdir(parents=True)
    (tmp_path / "output/dpo_llama/finished.json").write_text("{}")
    (tmp_path / "output/dpo_llama/args.json").write_text('{"TrainingArguments": {}}')
    assert launch(tmp_path, DPO_LLAMA, gpus=8)[0] == 0


# ---- where it reads and writes


@pytest.mark.slow
@pytest.mark.parametrize("flags, out", [([], "mine"), (["--output_dir", "other"], "other")], ids=["OUTPUT", "flag"])
def test_paths_are_those_of_where_the_command_is_typed(tmp_path, flags, out):
    toy_model(tmp_path / "models/start")
    toy_data(tmp_path / "pairs", rows=16)
    settings = {"MODEL": "models/start", "DATA": "pairs", "OUTPUT": "mine"}
    flags = ["--max_steps", 1, "--report_to", "none", "--sample_during_eval", 0, "--cache_dir", "cache", *flags]
    code, said, err = launch(tmp_path, "step3_dpo/run_tiny.sh", *flags, **settings)
    assert code == 0, said + err
    assert {"config.json", "train.log", "run_tiny.sh", "finished.json"} <= {f.name for f in (tmp_path / out).iterdir()}
    assert (tmp_path / "cache").is_dir() and (out == "mine" or not (tmp_path / "mine").exists())
