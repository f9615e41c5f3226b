"""Every loss trains through the stage's main.py and lowers its own held-out loss; the normal run tries one of each kind
of data. Running states and a moving reference go on where a checkpoint left them."""

import re

import pytest
from stages import metrics, run_stage, toy_data, toy_model, weights
from test_resume import kill_at_row

from utils.losses.options import LOSSES
from utils.records import Answer, Record
from utils.records.files import read_records, write_jsonl

SAMPLE = ("simpo", "kto", "mse")  # pairs without a reference, votes, lists
MORE = {
    "exo_pair": ("--label_smoothing", "0.01"),
    "cdpo": ("--label_smoothing", "0.1"),
    "robust": ("--label_smoothing", "0.1"),
    "simpo": ("--beta", "2"),
    "mse": ("--beta", "1"),
    "mse_mean": ("--beta", "1"),
}
STAGE = "step3_dpo"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """model/, pairs/ and rated/: the same answers, those that say yes rated 2 and 1, those that say no 0."""
    folder = tmp_path_factory.mktemp("world")
    toy_model(folder / "model")
    toy_data(folder / "pairs")
    for split in ("train", "test"):
        rows = []
        for record in read_records(folder / "pairs" / f"{split}.jsonl"):
            good, bad = record.answers
            answers = (Answer(good.text, rating=1), Answer(bad.text, rating=0), Answer(f"yes {good.text}", rating=2))
            rows.append(Record(record.prompt, answers, record.verdicts))
        write_jsonl(folder / "rated" / f"{split}.jsonl", rows)
    return folder


def data_of(loss, world):
    return world / ("pairs" if LOSSES[loss].data in ("comparisons", "unpaired") else "rated")


@pytest.mark.parametrize(
    "loss", [name if name in SAMPLE else pytest.param(name, marks=pytest.mark.full) for name in sorted(LOSSES)]
)
def test_a_loss_lowers_itself(world, tmp_path, loss):
    said = run_stage(
        STAGE, world / "model", data_of(loss, world), tmp_path / "out", "--loss", loss, *MORE.get(loss, ()),
        "--learning_rate", "3e-3",
    )  # fmt: skip
    rows = metrics(tmp_path / "out")
    assert rows[-1]["eval/loss"] < rows[0]["eval/loss"] - 0.01 * abs(rows[0]["eval/loss"])
    assert LOSSES[loss].reference == bool(re.search("reference log-probs: .* to compute", said)) or LOSSES[loss].tokens
    assert (tmp_path / "cache" / "reference").exists() == (LOSSES[loss].reference and not LOSSES[loss].tokens)


@pytest.mark.full
def test_a_mixture_and_a_term_train(world, tmp_path):
    flags = ("--loss", "sigmoid:0.8,bco_pair:0.2", "--sft_weight", "0.01", "--learning_rate", "3e-3")
    run_stage(STAGE, world / "model", world / "pairs", tmp_path / "out", *flags)
    rows = metrics(tmp_path / "out")
    assert rows[-1]["eval/loss"] < rows[0]["eval/loss"] and rows[-1]["eval/accuracy"] > 0.8


@pytest.mark.full
@pytest.mark.parametrize("loss", ["kto", "aot", "bco_pair"])
def test_a_look_at_the_whole_batch_with_sharded_weights(world, tmp_path, loss):
    flags = ("--loss", loss, "--learning_rate", "3e-3", "--max_steps", "4")
    run_stage(STAGE, world / "model", world / "pairs", tmp_path / "one", *flags)
    run_stage(STAGE, world / "model", world / "pairs", tmp_path / "two", *flags, "--zero_stage", "3", ranks=2)
    one, two = ([row["loss"] for row in metrics(tmp_path / out) if "loss" in row] for out in ("one", "two"))
    assert two == pytest.approx(one, abs=1e-4)


@pytest.mark.full
def test_ratings_make_pairs_when_asked(world, tmp_path):
    flags = ("--loss", "margin", "--pairs_from_ratings", "--learning_rate", "3e-3")
    said = run_stage(STAGE, world / "model", world / "rated", tmp_path / "out", *flags)
    assert "48 of 48 records" in said


FLAGS = {
    "running mean": ("--loss", "bco_pair"),
    "moving reference": ("--ref_update_every", "2", "--ref_mixup", "0.5", "--zero_stage", "1", "--bf16"),
    "mismatched answers": ("--loss", "kto", "--tokens_per_micro_batch", "30"),
}


@pytest.mark.parametrize(
    "kind", ["running mean", *(pytest.param(k, marks=pytest.mark.full) for k in list(FLAGS) if k != "running mean")]
)
def test_a_killed_run_ends_with_the_same_bits(world, tmp_path, kind):
    flags = (*FLAGS[kind], "--checkpoint_every", "3", "--learning_rate", "3e-3")
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    run_stage(STAGE, world / "model", world / "pairs", whole, *flags)
    kill_at_row(STAGE, world / "model", world / "pairs", killed, flags, 1, 6)
    assert "continuing after step" in run_stage(STAGE, world / "model", world / "pairs", killed, *flags)
    assert metrics(killed) == metrics(whole)
    mine, theirs = weights(killed), weights(whole)
    assert all(mine[name].equal(theirs[name]) for name in theirs)


def losses(out):
    return [row["loss"] for row in metrics(out) if "loss" in row]


def test_a_reference_that_moves(world, tmp_path):
    """With α = 1 after every step the reference is the policy: the loss of each step is log 2 again. One that has not
    moved yet is the fixed one."""
    steps = ("--max_steps", "3", "--eval_every", "never")
    flags = (*steps, "--ref_update_every", "1", "--ref_mixup", "1")
    run_stage(STAGE, world / "model", world / "pairs", tmp_path / "moving", *flags, "--lora_dim", "4")
    assert losses(tmp_path / "moving") == pytest.approx([0.6931472] * 3, abs=1e-5)
    run_stage(STAGE, world / "model", world / "pairs", tmp_path / "still", *steps, "--ref_update_every", "9")
    run_stage(STAGE, world / "model", world / "pairs", tmp_path / "fixed", *steps)
    assert losses(tmp_path / "still") == pytest.approx(losses(tmp_path / "fixed"), abs=1e-5)
    assert losses(tmp_path / "fixed")[2] < 0.68
    said = run_stage(STAGE, world / "model", world / "pairs", tmp_path / "no", *flags, "--zero_stage", "3", code=2)
    assert "--ref_update_every needs --zero_stage 0, 1 or 2" in said
