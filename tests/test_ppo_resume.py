"""PPO killed with SIGKILL in a rollout or in an update goes on to the same bits; two ranks with ZeRO-3 flip between
training and generation without waiting for each other."""

import random
import time

import pytest
import torch
from stages import metrics, run_stage, toy_data, toy_model, weights
from test_resume import kill_at_row

REWARD = "def yes(record):\n    return [float(a.text.split().count('yes')) for a in record.answers]\n"
FLAGS = (
    "--max_answer_seq_len", "8", "--prompts_per_rollout", "8", "--samples_per_prompt", "3", "--minibatches", "2",
    "--max_steps", "10", "--unfinished", "keep", "--checkpoint_every", "2", "--learning_rate", "3e-3",
)  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    toy_model(folder / "model")
    toy_data(folder / "pairs", rows=24)
    (folder / "rewards.py").write_text(REWARD)
    return folder


def ppo(world, out, flags, ranks, **more):
    reward = ("--reward_fn", f"{world / 'rewards.py'}:yes")
    return run_stage("step3_ppo", world / "model", world / "pairs", out, *flags, *reward, ranks=ranks, **more)


EVERYTHING = ("--kl_target", "2", "--normalize_scores", "--ema_decay", "0.9")


@pytest.mark.parametrize(
    "flags, ranks",
    [(("--eval_every", "4", *EVERYTHING), 1), (("--eval_every", "never", "--zero_stage", "2", "--bf16"), 2)],
    ids=["one rank, controller, normaliser, ema", "two ranks, bf16"],
)
def test_resume_is_bit_identical(world, tmp_path, flags, ranks):
    flags = (*FLAGS, *flags)
    ppo(world, tmp_path / "whole", flags, ranks)
    row, wait = random.Random(time.time_ns()).randint(4, 8), random.Random(time.time_ns()).uniform(0, 0.15)
    print(f"killed {wait:.3f} s after row {row}")
    reward = ("--reward_fn", f"{world / 'rewards.py'}:yes")
    killed = tmp_path / "killed"
    kill_at_row("step3_ppo", world / "model", world / "pairs", killed, (*flags, *reward), ranks, row, wait)
    assert "continuing after step" in ppo(world, killed, flags, ranks)
    assert metrics(killed) == metrics(tmp_path / "whole")
    for place in ("", "critic", *(["ema"] if "--ema_decay" in flags else [])):
        ours, theirs = weights(killed / place), weights(tmp_path / "whole" / place)
        assert ours.keys() == theirs.keys() and all(torch.equal(ours[n], theirs[n]) for n in ours)


def test_a_finished_rollout_is_not_made_again(world, tmp_path):
    """Killed right after a rollout was kept: the next start reads it, and ends with the same bits."""
    flags = (*FLAGS[:-4], "--checkpoint_every", "3", "--eval_every", "never")
    ppo(world, tmp_path / "whole", flags, 1)
    out = tmp_path / "out"
    ppo(world, out, flags, 1)
    (out / "finished.json").unlink()  # what is left: a checkpoint of step 9, the rollout of step 10
    kept = out / "checkpoints" / "rollout-00000010.pt"
    assert kept.is_file()
    rollouts = torch.load(kept, weights_only=False)
    rollouts["rollouts"][0].texts[0] = "this one"
    torch.save(rollouts, kept)
    said = ppo(world, out, (*flags, "--kl_coef", "1"), 1, code=2)
    assert "other options" in said
    said = ppo(world, out, flags, 1)
    assert "the rollout of step 10 was finished before" in said and "this one" in said
    assert metrics(out) == metrics(tmp_path / "whole")


SHARDED = ("--no_enable_hybrid_engine",)


@pytest.mark.parametrize(
    "flip, more", [((), ()), ((), ("--lora_dim", "4")), (SHARDED, ())], ids=["gathered", "gathered, lora", "sharded"]
)
def test_two_ranks_with_zero_3_flip_three_times(world, tmp_path, flip, more):
    """Answers end at different places on the two ranks; every round generates with what the last one learned."""
    flags = (*FLAGS, *more, *flip, "--zero_stage", "3", "--eval_every", "never")
    flags = tuple("3" if before == "--max_steps" else word for before, word in zip(("", *flags), flags, strict=False))
    said = ppo(world, tmp_path / "out", flags, 2)
    assert ("gathered once each" if flip == () else "stay sharded") in said
    rows = metrics(tmp_path / "out")
    assert len(rows) == 3 and max(row["first_ratio_gap"] for row in rows) <= 1e-5
    assert rows[0]["kl"] == pytest.approx(0, abs=1e-5) and rows[2]["kl"] != rows[1]["kl"]


def test_zero_stages_learn_the_same(world, tmp_path):
    """Whole, partitioned and gathered weights give one trajectory (float32)."""
    rows = []
    for stage in ("0", "2", "3"):
        flags = (*FLAGS, "--zero_stage", stage, "--eval_every", "never")
        ppo(world, tmp_path / stage, flags, 1)
        rows.append(metrics(tmp_path / stage))
    for other in rows[1:]:
        assert [r["score"] for r in other] == [r["score"] for r in rows[0]]
        assert [r["policy_loss"] for r in other] == pytest.approx([r["policy_loss"] for r in rows[0]], abs=1e-4)
