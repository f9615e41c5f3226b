"""Checkpoints: small with LoRA, checked by every rank, refused on another base; ranks wait for each other."""

import json
import os
import shutil
import subprocess
import sys

import in_process
import pytest
import torch
from in_process import PPO, REWARD, SFT
from processes import environment
from stages import demonstrations, metrics, run_stage, toy_data, toy_model, weights
from transformers import AutoModelForCausalLM

from utils.engine import checkpoints

LORA = ("--lora_dim", "1", "--checkpoint_every", "3", "--max_steps", "5", "--eval_every", "never")
ROLLOUTS = ("--prompts_per_rollout", "8", "--samples_per_prompt", "2", "--minibatches", "1", "--unfinished", "keep",
            "--max_answer_seq_len", "6")  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A model of 2 million weights, head and embedding tied, and the rewards of PPO."""
    folder = tmp_path_factory.mktemp("world")
    toy_model(folder / "model", hidden_size=256, intermediate_size=768, tie_word_embeddings=True)
    demonstrations(folder / "demos")
    toy_data(folder / "pairs")
    (folder / "rewards.py").write_text("def one(record):\n    return [float(len(a.text)) for a in record.answers]\n")
    return folder


def train(world, out, stage, stage_of_zero, ranks, *flags, model="model", code=0):
    data = world / ("demos" if stage == SFT else "pairs")
    if stage == PPO:
        flags = (*flags, *ROLLOUTS, "--reward_fn", f"{world / 'rewards.py'}:one")
    flags = (*LORA, "--zero_stage", str(stage_of_zero), *flags)
    return run_stage(stage, world / model, data, out, *flags, ranks=ranks, code=code)


def size(folder, pattern="*"):
    return sum(file.stat().st_size for file in folder.rglob(pattern) if file.is_file())


@pytest.mark.parametrize(
    "stage, zero, ranks",
    [(SFT, 0, 1), (SFT, 2, 2), (REWARD, 3, 2), (PPO, 2, 1),
     *(pytest.param(*cell, marks=pytest.mark.full)
       for cell in [(SFT, 1, 2), (SFT, 2, 1), (SFT, 3, 1), (SFT, 3, 2), (REWARD, 0, 1), (PPO, 3, 2)])],
)  # fmt: skip
def test_a_lora_checkpoint_is_small_and_resumes_to_the_bit(world, tmp_path, stage, zero, ranks):
    flags = ("--ema_decay", "0.9") if stage != REWARD else ()
    out = tmp_path / "out"
    train(world, out, stage, zero, ranks, *flags)
    places = ["", *(["ema"] if flags else []), *(["critic"] if stage == PPO else [])]
    whole, rows = [weights(out / place) for place in places], metrics(out)
    engines = 2 if stage == PPO else 1
    # DeepSpeed puts two programs of 60 kB into each; each rank's random states take 25 kB
    assert size(out / "checkpoints" / "step-00000003") < 0.15 * engines * size(world / "model", "*.safetensors")
    (out / "finished.json").unlink()
    for file in ("model.safetensors", "ema", "critic"):
        target = out / file
        shutil.rmtree(target) if target.is_dir() else target.unlink(missing_ok=True)
    assert "continuing after step 3" in train(world, out, stage, zero, ranks, *flags)
    assert metrics(out) == rows
    for place, before in zip(places, whole, strict=True):
        after = weights(out / place)
        assert before.keys() == after.keys() and all(torch.equal(before[n], after[n]) for n in before)


@pytest.mark.parametrize("of", ["model", "critic"])
def test_another_base_is_refused_by_name(world, tmp_path, of):
    """Its weights are not in the checkpoint, so nothing else could tell."""
    shutil.copytree(world / "model", world / of / "copy" if of == "model" else world / "critic", dirs_exist_ok=True)
    start = "model/copy" if of == "model" else "model"
    flags = ("--critic_model_name_or_path", str(world / "critic")) if of == "critic" else ()
    stage = PPO if of == "critic" else SFT
    train(world, tmp_path / "out", stage, 0, 1, *flags, model=start)
    (tmp_path / "out" / "finished.json").unlink()
    changed = world / (start if of == "model" else "critic")
    model = AutoModelForCausalLM.from_pretrained(changed)
    model.model.layers[0].self_attn.q_proj.weight.data[0, 0] += 1
    model.save_pretrained(changed)
    told = " ".join(train(world, tmp_path / "out", stage, 0, 1, *flags, model=start, code=2).split())
    what = f"content of --model_name_or_path {changed}" if of == "model" else "critic"
    assert f"this checkpoint was made with another {what} (" in told


def test_a_checkpoint_of_other_weights_is_refused(world, tmp_path):
    """Loading is not strict about frozen weights; about trained ones it is."""
    out = tmp_path / "out"
    train(world, out, SFT, 0, 1)
    (out / "finished.json").unlink()
    folder = out / "checkpoints" / "step-00000003"
    states = torch.load(folder / "mp_rank_00_model_states.pt", weights_only=False)
    lost = next(name for name in states["module"] if "lora_B" in name)
    del states["module"][lost]
    torch.save(states, folder / "mp_rank_00_model_states.pt")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["mp_rank_00_model_states.pt"] = checkpoints._digest(folder / "mp_rank_00_model_states.pt")
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert lost in "".join(train(world, out, SFT, 0, 1, code=2).split())


@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_share_the_bytes(monkeypatch, ranks):
    monkeypatch.setenv("WORLD_SIZE", str(ranks))
    sizes = {"model": 70, "optimizer-0": 60, "optimizer-1": 60, "rank-0": 5, "rank-1": 5, "script": 1}
    shares = checkpoints.shared_out(sizes)
    assert sorted(name for share in shares for name in share) == sorted(sizes)
    loads = [sum(sizes[name] for name in share) for share in shares]
    assert max(loads) <= (125 if ranks == 2 else 71)


@pytest.mark.parametrize("victim, fault", [(0, "is damaged"), (1, "is damaged"), (1, "is missing")])
def test_two_ranks_agree_on_the_newest_intact_checkpoint(world, tmp_path, victim, fault):
    """Each checks its share; a fault in either's makes both take the earlier checkpoint."""
    out, flags = tmp_path / "out", ("--keep_last", "2")
    train(world, out, SFT, 2, 2, *flags, "--num_train_epochs", "1")
    (out / "finished.json").unlink()
    newest = out / "checkpoints" / "step-00000003"
    shutil.copytree(newest, out / "checkpoints" / "step-00000002")  # as good as an earlier one
    files = json.loads((newest / "manifest.json").read_text())["files"]
    name = sorted(files, key=lambda n: (-files[n][0], n))[victim]  # the largest is rank 0's, the next one rank 1's
    if fault == "is missing":
        (newest / name).unlink()
    else:
        content = bytearray((newest / name).read_bytes())
        content[len(content) // 2] ^= 1
        (newest / name).write_bytes(content)
    told = train(world, out, SFT, 2, 2, *flags, "--num_train_epochs", "1")
    assert f"{name} {fault}; taking an earlier checkpoint" in " ".join(told.split())
    assert "continuing after step 2" in told


WAITING = """
import datetime, torch
from utils.arguments.options import TrainingArguments
from utils.engine.deepspeed_engine import start
from utils.reporting import run_program
run_program(lambda: start(TrainingArguments("x", report_to=["none"])))
print("waits", torch.distributed.group.WORLD._get_backend(torch.device("cpu")).options._timeout.total_seconds())
"""


@pytest.mark.parametrize("minutes, told", [(None, "waits 3600.0"), ("7", "waits 420.0"), ("soon", "is 'soon'")])
def test_ranks_wait_for_each_other(minutes, told):
    more = {} if minutes is None else {"DEEPSPEED_TIMEOUT": minutes}
    kept = {k: v for k, v in environment(**more).items() if minutes is not None or k != "DEEPSPEED_TIMEOUT"}
    done = subprocess.run([sys.executable, "-c", WAITING], env=kept, capture_output=True, text=True)
    assert told in done.stdout + done.stderr and done.returncode == (2 if minutes == "soon" else 0)


def test_determinism_is_an_option_of_the_run(world, tmp_path, capsys):
    """On a CPU it changes no setting, but a run with it is another run."""
    places = (world / "model", world / "demos", tmp_path / "out", world / "cache")
    flags = ("--max_steps", "2", "--eval_every", "never")
    assert in_process.run_stage(SFT, *places, *flags, "--deterministic") == 0
    assert not torch.are_deterministic_algorithms_enabled() or torch.cuda.is_available()
    assert in_process.run_stage(SFT, *places, *flags) == 2
    assert "--deterministic True, now False" in " ".join(capsys.readouterr().err.split())


def test_determinism_on_gpus(monkeypatch):
    from utils.engine.deepspeed_engine import _deterministic

    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    fill = torch.utils.deterministic.fill_uninitialized_memory
    try:
        _deterministic(True)
        assert torch.are_deterministic_algorithms_enabled() and torch.backends.cudnn.deterministic
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    finally:
        _deterministic(False)
        torch.utils.deterministic.fill_uninitialized_memory = fill
    assert not torch.are_deterministic_algorithms_enabled()
