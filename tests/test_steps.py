"""One optimizer step is the same step however it is cut: micro-batches, ranks, ZeRO stages."""

import os
import subprocess
import sys

import pytest
import torch
from toys import ROOT

WORKER = ROOT / "tests" / "steps_worker.py"


def run_steps(out, *flags, ranks=1):
    starter = [sys.executable]
    if ranks > 1:
        starter += ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(ranks)]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*starter, str(WORKER), str(out), *flags], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return torch.load(out)


def gradient(result):
    """What the weights moved by under SGD with rate 1, over all parameters together."""
    return torch.cat([(result["before"][n] - result["after"][n]).flatten() for n in sorted(result["before"])])


@pytest.fixture(scope="module")
def whole_batch(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return {s: run_steps(folder / s, "--sgd", "--stage", s, "--per_device", "8") for s in ("sft", "reward", "dpo")}


CUTS = {
    "4x2": (["--per_device", "4", "--accumulation", "2"], 1),
    "1x8": (["--per_device", "1", "--accumulation", "8", "--zero_stage", "2"], 1),
    "by tokens": (["--per_device", "8", "--token_budget", "150"], 1),
    "two ranks": (["--per_device", "4"], 2),
    "two ranks, split groups": (["--per_device", "4", "--token_budget", "60", "--zero_stage", "3"], 2),
}


def cells():
    """Every cut with every stage: DPO's all, and of the others the hardest in every run of the tests."""
    for name, (cut, ranks) in CUTS.items():
        for stage in ("sft", "reward", "dpo"):
            often = stage == "dpo" or name == "two ranks, split groups"
            yield pytest.param(stage, cut, ranks, id=f"{name}-{stage}", marks=[] if often else [pytest.mark.full])


@pytest.mark.parametrize("stage, cut, ranks", cells())
def test_gradients_do_not_depend_on_the_cut(whole_batch, tmp_path, stage, cut, ranks):
    whole, parts = whole_batch[stage], run_steps(tmp_path / "out", "--sgd", "--stage", stage, *cut, ranks=ranks)
    expected, found = gradient(whole), gradient(parts)
    assert expected.norm() > 1e-2
    assert (found - expected).norm() / expected.norm() <= 1e-6
    assert parts["rows"][0]["loss"] == pytest.approx(whole["rows"][0]["loss"], abs=1e-6)


def losses(result):
    return [row["loss"] for row in result["rows"]]


@pytest.mark.full
def test_zero_stages_and_offload_give_the_same_losses(tmp_path):
    flags = ["--steps", "4", "--per_device", "3", "--accumulation", "2", "--clipping", "1.0"]
    runs = {
        (stage, offload): losses(
            run_steps(tmp_path / f"{stage}{offload}", *flags, "--zero_stage", str(stage), *offload)
        )
        for stage, offload in [(0, ()), (1, ()), (2, ()), (3, ()), (2, ("--offload",)), (3, ("--offload",))]
    }
    for key, found in runs.items():
        assert found == pytest.approx(runs[0, ()], abs=2e-6), key
    assert runs[0, ()][0] - runs[0, ()][-1] > 0.01


@pytest.mark.parametrize("bf16", [pytest.param((), marks=pytest.mark.full), ("--bf16",)], ids=["fp32", "bf16"])
def test_two_ranks_agree_between_sharded_stages(tmp_path, bf16):
    flags = ["--steps", "3", "--per_device", "2", "--accumulation", "2", *bf16]
    stages = [losses(run_steps(tmp_path / str(z), *flags, "--zero_stage", str(z), ranks=2)) for z in (2, 3)]
    assert stages[0] == pytest.approx(stages[1], abs=2e-6 if not bf16 else 2e-3)
