"""Generation in training with ZeRO-3 on two ranks, with numbers of prompts that do not divide: every place that
generates ends, and says what one rank with whole weights says."""

import json

import pytest
from stages import demonstrations, metrics, run_stage, toy_data, toy_model
from test_ppo_resume import REWARD

pytestmark = pytest.mark.timeout(300)  # ranks that wait for each other wait for ever
ZERO3 = ("--zero_stage", "3")
SHARDED = (*ZERO3, "--no_enable_hybrid_engine")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    toy_model(folder / "model")
    toy_data(folder / "pairs", rows=24)
    demonstrations(folder / "demonstrations")
    (folder / "rewards.py").write_text(REWARD)
    return folder


@pytest.mark.parametrize("stage, data", [("step1_sft", "demonstrations"), ("step3_dpo", "pairs")])
def test_samples_of_an_evaluation(world, tmp_path, stage, data):
    """Three prompts, one to a batch: rank 0 answers two of them, rank 1 one."""
    flags = ("--sample_during_eval", "3", "--sample_max_new_tokens", "8", "--per_device_eval_batch_size", "1",
             "--max_steps", "2", "--max_eval_samples", "3")  # fmt: skip
    run_stage(stage, world / "model", world / data, tmp_path / "one", *flags)
    run_stage(stage, world / "model", world / data, tmp_path / "two", *flags, *ZERO3, ranks=2)
    one, two = ((tmp_path / run / "samples-step-0.jsonl").read_text() for run in ("one", "two"))
    assert len(one.splitlines()) == 3 and one == two
    assert len((tmp_path / "two" / "samples-step-2.jsonl").read_text().splitlines()) == 3


@pytest.mark.parametrize("flags", [ZERO3, SHARDED], ids=["gathered", "sharded"])
def test_rollouts_and_the_evaluation_of_ppo(world, tmp_path, flags):
    """Rollouts of three prompts to a rank, and five held-out prompts (three to rank 0, two to rank 1), two to a batch:
    in the evaluation rank 0 has two batches and rank 1 has one."""
    options = ("--max_answer_seq_len", "8", "--prompts_per_rollout", "6", "--samples_per_prompt", "2",
               "--generation_batch_size", "2", "--minibatches", "2", "--max_steps", "2", "--max_eval_samples", "5",
               "--unfinished", "keep", "--learning_rate", "1e-3",
               "--reward_fn", f"{world / 'rewards.py'}:yes")  # fmt: skip
    run_stage("step3_ppo", world / "model", world / "pairs", tmp_path / "one", *options)
    run_stage("step3_ppo", world / "model", world / "pairs", tmp_path / "two", *options, *flags, ranks=2)
    one, two = (metrics(tmp_path / run) for run in ("one", "two"))
    for ours, theirs in zip(two, one, strict=True):
        names = [n for n in theirs if n.startswith("eval/") or n in ("score", "kl", "length", "finished")]
        assert "eval/score" in ours or ours["step"] == 1
        assert [ours[n] for n in names] == pytest.approx([theirs[n] for n in names], abs=1e-4)
    tables = [(tmp_path / run / "samples-step-1.jsonl").read_text().splitlines() for run in ("one", "two")]
    one, two = ([json.loads(line)["answers"] for line in table] for table in tables)
    assert len(one) == 6 and one == two
