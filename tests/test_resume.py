"""Killed with SIGKILL at a random step and started again with the same command: the same bits."""

import random
import subprocess
import time

import psutil
import pytest
import torch
from processes import environment
from stages import command, demonstrations, metrics, run_stage, toy_data, toy_model, weights
from toys import ROOT

STAGES = {"step1_sft": demonstrations, "step2_reward": toy_data, "step3_dpo": toy_data}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    toy_model(folder / "model")
    return folder, {stage: make(folder / stage) for stage, make in STAGES.items()}


def kill_at_row(stage, model, data, out, flags, ranks, row, wait=0.0):
    """Start the stage, wait until metrics.jsonl has `row` rows and `wait` seconds more, kill every process of it."""
    log = open(out.with_suffix(".log"), "w")  # noqa: SIM115 - lives as long as the process
    process = subprocess.Popen(
        command(stage, model, data, out, *flags, ranks=ranks), cwd=ROOT / "training" / stage, env=environment(),
        stdout=log, stderr=log,
    )  # fmt: skip
    path, deadline = out / "metrics.jsonl", time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if path.exists() and len(path.read_text().splitlines()) >= row:
            break
        time.sleep(0.005)
    time.sleep(wait)
    assert process.poll() is None, out.with_suffix(".log").read_text()[-3000:]
    launcher = psutil.Process(process.pid)  # torchrun gives its workers sessions of their own: take the whole tree
    for one in (launcher, *launcher.children(recursive=True)):
        one.kill()
    process.wait()


@pytest.mark.parametrize(
    "stage, flags, ranks",
    [
        ("step1_sft", ("--ema_decay", "0.9", "--dropout", "0.1"), 1),
        pytest.param("step1_sft", ("--ema_decay", "0.9", "--bf16", "--zero_stage", "3"), 2, marks=pytest.mark.full),
        ("step2_reward", ("--bf16", "--zero_stage", "2"), 1),
        ("step3_dpo", (), 1),
        ("step3_dpo", ("--bf16", "--zero_stage", "3"), 2),
        ("step3_dpo", ("--lora_dim", "4", "--zero_stage", "2"), 2),
    ],
    ids=[
        "sft, dropout, ema",
        "sft, ema, bf16, zero-3, two ranks",
        "reward, bf16, zero-2",
        "dpo",
        "dpo, bf16, zero-3, two ranks",
        "dpo, lora, two ranks",
    ],
)
def test_resume_is_bit_identical(world, tmp_path, stage, flags, ranks):
    folder, data = world
    model = folder / "model"
    flags = (*flags, "--checkpoint_every", "3")
    run_stage(stage, model, data[stage], tmp_path / "whole", *flags, ranks=ranks)
    row = random.Random(time.time_ns()).randint(1, 10)
    print(f"killed at row {row}")
    kill_at_row(stage, model, data[stage], tmp_path / "killed", flags, ranks, row)
    said = run_stage(stage, model, data[stage], tmp_path / "killed", *flags, ranks=ranks)
    assert row < 5 or "continuing after step" in said
    assert metrics(tmp_path / "killed") == metrics(tmp_path / "whole")
    for place in ["", "ema"] if "--ema_decay" in flags else [""]:
        ours, theirs = weights(tmp_path / "killed" / place), weights(tmp_path / "whole" / place)
        assert ours.keys() == theirs.keys() and all(torch.equal(ours[n], theirs[n]) for n in ours)
    again = run_stage(stage, model, data[stage], tmp_path / "whole", *flags, ranks=ranks)
    assert "already finished" in again


def test_a_damaged_checkpoint_is_passed_over_and_another_run_is_refused(world, tmp_path):
    folder, data = world
    flags = ("--checkpoint_every", "2", "--keep_last", "3", "--max_steps", "8")
    args = ("step3_dpo", folder / "model", data["step3_dpo"], tmp_path / "out")
    run_stage(*args, *flags)
    whole = metrics(tmp_path / "out")
    (tmp_path / "out" / "finished.json").unlink()
    newest = sorted((tmp_path / "out" / "checkpoints").glob("step-*"))[-1]
    victim = max(newest.glob("*.pt"), key=lambda p: p.stat().st_size)
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 1
    victim.write_bytes(content)
    refused = run_stage(*args, *flags, "--learning_rate", "0.5", code=2)
    assert "other options (--learning_rate 0.01, now 0.5)" in refused
    said = run_stage(*args, *flags)
    assert f"{victim.name} is damaged" in said and "continuing after step 4" in said
    assert metrics(tmp_path / "out") == whole
