"""Options: honoured or refused, in one line."""

from dataclasses import dataclass

import pytest

from utils.arguments import parse
from utils.arguments.inference import ChatArguments, GenerateArguments, PplArguments
from utils.arguments.options import Interval, ModelArguments, TrainingArguments, option
from utils.arguments.ppo import PPOArguments
from utils.errors import UserError


@dataclass
class Toy:
    learning_rate: float = option(0.1, help="rate")
    data_path: list[str] = option([], help="data")
    bf16: bool = option(False, help="half")


def toy(*argv):
    return parse([Toy], list(argv))[0]


def test_values_and_launchers_rank():
    assert toy("--learning_rate", "0.5", "--data_path", "a", "b", "--bf16", "True", "--local_rank=1") == Toy(
        0.5, ["a", "b"], True
    )
    assert toy("--learning-rate", "0.5", "--local-rank", "0").learning_rate == 0.5


@pytest.mark.parametrize(
    "argv, words",
    [
        (["--learing_rate", "1"], "unknown option --learing_rate; did you mean --learning_rate"),
        (["--learning", "1"], "did you mean --learning_rate"),
        (["--data_path", "a", "--data_path", "b"], "--data_path is given twice"),
        (["--data_path", "a", "--data-path=b"], "--data_path is given twice"),
        (["--learning_rate", "fast"], "invalid float value: 'fast'"),
        (["--config", "none.yaml"], "no such file"),
    ],
)
def test_refused(argv, words):
    with pytest.raises(UserError, match=words.replace("(", r"\(")) as caught:
        toy(*argv)
    assert "\n" not in str(caught.value)


def test_flags_after_a_lone_dash_dash_win():
    assert toy("--learning_rate", "1", "--data_path", "a", "b", "--", "--data_path", "c") == Toy(1.0, ["c"])
    with pytest.raises(UserError, match="twice"):
        toy("--bf16", "--", "--learning_rate", "1", "--learning_rate", "2")


def test_config_gives_values_and_flags_win(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("learning_rate: 0.3\ndata_path: [x, y]\nbf16: true\n")
    assert toy("--config", str(path), "--learning_rate", "0.7") == Toy(0.7, ["x", "y"], True)
    path.write_text("learing_rate: 0.3\n")
    with pytest.raises(UserError, match="did you mean --learning_rate"):
        toy("--config", str(path))
    path.write_text("- a list\n")
    with pytest.raises(UserError, match="expected `option: value`"):
        toy(f"--config={path}")


@pytest.mark.parametrize(
    "options, words",
    [
        (dict(bf16=True), "needs --zero_stage"),
        (dict(global_batch_size=8, gradient_accumulation_steps=2), "exclude each other"),
        (dict(warmup_steps=3, warmup_ratio=0.1), "exclude each other"),
        (dict(eval_every="epochs"), "expected epoch, epoch_K"),
        (dict(report_to=["mlflow"]), "expected tensorboard"),
        (dict(keep_last=0), "expected 1 or more"),
    ],
)
def test_combinations_that_cannot_be_honoured(options, words):
    with pytest.raises(UserError, match=words):
        TrainingArguments(output_dir="x", **options)


def test_lora_flags_need_lora():
    with pytest.raises(UserError, match="--lora_dim above 0"):
        ModelArguments("m", lora_alpha=4.0)


def test_intervals():
    assert Interval.of("epoch_2", "x") == Interval(epochs=2) and Interval.of("50", "x") == Interval(steps=50)
    assert [s for s in range(1, 7) if Interval(steps=3).due(s, None)] == [3, 6]
    assert Interval(epochs=2).due(40, 2) and not Interval(epochs=2).due(20, 1) and not Interval().due(1, 1)


@pytest.mark.parametrize("group", [PPOArguments, PplArguments, GenerateArguments, ChatArguments])
def test_the_back_end_that_is_gone_says_where_to_read_why(group):
    needed = ["--reward_fn", "m:f"] if group is PPOArguments else []
    said = {
        "hybrid": r"--generation_backend hybrid: .*docs/hybrid_engine\.md",
        "x": "x is unknown; expected shared or hf",
    }
    for name, words in said.items():
        with pytest.raises(UserError, match=words):
            parse([group], [*needed, "--generation_backend", name])
