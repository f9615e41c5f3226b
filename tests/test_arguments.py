"""Options: honoured or refused, in one line."""

import importlib.util
import re
import sys
from dataclasses import dataclass, fields
from typing import ClassVar

import pytest
from toys import ROOT

from utils.arguments import parse
from utils.arguments.inference import MODES, ChatArguments, GenerateArguments, PplArguments
from utils.arguments.options import Interval, ModelArguments, TrainingArguments, option
from utils.arguments.ppo import PPOArguments
from utils.errors import UserError


@dataclass
class Toy:
    REFUSED: ClassVar[dict[str, str]] = {"speed": "was removed: give --learning_rate"}

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
        (["--speed", "3"], "--speed was removed: give --learning_rate"),
        (["--bf16", "--", "--speed=3"], "--speed was removed: give --learning_rate"),
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
    path.write_text("speed: 3\n")
    with pytest.raises(UserError, match="run.yaml: --speed was removed: give --learning_rate"):
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


# ---- flags that are gone, and flags of one kind


@pytest.mark.parametrize("flag", sorted(PPOArguments.REFUSED))
def test_a_flag_that_ppo_does_not_take_says_what_to_do_instead(flag):
    with pytest.raises(UserError, match=f"^--{flag} (was removed|has no effect here): .*(leave it out|give --)"):
        parse([TrainingArguments, PPOArguments], ["--output_dir", "o", "--reward_fn", "m:f", f"--{flag}", "1"])


def test_every_removed_flag_is_in_the_changelog():
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    removed = {name for name, why in PPOArguments.REFUSED.items() if why.startswith("was removed")}
    assert removed and {name for name in removed if f"--{name}`" not in changes} == set()
    assert removed.isdisjoint(f.name for group in (ModelArguments, PPOArguments) for f in fields(group))


@pytest.mark.parametrize("choice", [("--advantage", "rloo"), ("--advantage", "group"), ("--preset", "grpo")])
def test_a_flag_of_the_critic_is_refused_where_there_is_none(choice):
    of_critic = [f for f in fields(PPOArguments) if "advantage" in f.metadata["help"].only]
    assert {"critic_learning_rate", "value_clip", "gae_lambda"} <= {f.name for f in of_critic}
    given = ["--reward_fn", "m:f", *choice]
    for option_ in of_critic:
        with pytest.raises(UserError, match=f"--{option_.name} is for --advantage gae; leave it out with --advantage"):
            parse([PPOArguments], [*given, f"--{option_.name}", "0.5" if option_.name != "value_warmup" else "2"])
        (taken,) = parse([PPOArguments], [*given, "--advantage", "gae"] if choice[0] == "--preset" else given[:2])
        assert taken.advantage == "gae"


def test_a_default_of_another_choice_is_no_mistake():
    (args,) = parse([PPOArguments], ["--reward_fn", "m:f", "--unfinished", "mask", "--advantage", "rloo"])
    assert args.unfinished_penalty == 1.0 and args.gamma == 1.0
    with pytest.raises(UserError, match="--unfinished_penalty is for --unfinished penalty; leave it out"):
        parse([PPOArguments], ["--reward_fn", "m:f", "--unfinished", "mask", "--unfinished_penalty", "2"])


# ---- --help of every program

PROGRAMS = [
    p
    for top in ("training", "inference", "data_collect")
    for p in sorted((ROOT / top).rglob("*.py"))
    if "\nfrom utils.arguments" in p.read_text(encoding="utf-8")
]
PAGES = [(p, []) for p in PROGRAMS] + [(ROOT / "inference/chatbot.py", ["--mode", mode]) for mode in MODES]
PAGES += [(ROOT / f"data_collect/{p}.py", [m]) for p, m in (("ledger", "list"), ("tutor", "pairs"))]
ROW = re.compile(r"^  (--\w+(?:, --\w+)*)")
DEFAULT = re.compile(r"\((default: |required)")


@pytest.fixture(params=PAGES, ids=lambda page: " ".join([page[0].parent.name, page[0].stem, *page[1]]))
def page_of(request, capsys, monkeypatch):
    """Print --help of a program at a width: its text."""
    program, mode = request.param
    spec = importlib.util.spec_from_file_location(f"helped_{program.parent.name}_{program.stem}", program)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)  # dataclasses look their module up
    spec.loader.exec_module(module)

    def page(width, *words):
        monkeypatch.setenv("COLUMNS", str(width))
        monkeypatch.setattr(sys, "argv", [str(program)])
        with pytest.raises(SystemExit) as stopped:
            module.main([*mode, "--help", *words])
        assert stopped.value.code == 0
        return capsys.readouterr().out

    return page


def options_by_title(text):
    """{(title, flag): lines of the option}"""
    found, title, at = {}, None, None
    for line in text.split("\n\n", 1)[1].splitlines():
        if row := ROW.match(line):
            at = (title, row[1].split(",")[0])
            assert title and at not in found, f"{at} is shown twice"
            found[at] = [line]
        elif at and line.startswith("   "):
            found[at].append(line.strip())
        elif line and not line.startswith(" "):
            title, at = line, None
    return {key: " ".join(lines) for key, lines in found.items()}


@pytest.mark.parametrize("width", [80, 120])
def test_the_short_page_fits_and_shows_what_must_be_given(page_of, width):
    text, whole = page_of(width), options_by_title(page_of(width, "all"))
    lines = text.splitlines()
    assert len(lines) <= 60 and max(map(len, lines)) <= 120
    assert re.fullmatch(r"usage: python \w+\.py .*\[options\]", lines[0])
    assert "every one in full: --help all" in lines[-1]
    shown = options_by_title(text)
    assert all(len(line) <= width for line in lines if ROW.match(line))
    assert shown.keys() <= whole.keys() and len(shown) >= min(len(whole), 20)
    assert all(re.search(r"\(.+\)$", line) for line in shown.values()), "an option without its default"
    assert {key for key, line in whole.items() if "(required)" in line} <= shown.keys()


def test_the_whole_page_has_every_option_once_under_a_title(page_of):
    found = options_by_title(page_of(120, "all"))
    assert all(DEFAULT.search(line) for line in found.values())
    titles = {}
    for title, flag in found:
        titles.setdefault(flag, []).append(title)
    twice = {flag: where for flag, where in titles.items() if len(where) > 1}
    # of a program with modes, an option that two modes declare otherwise is shown with each
    assert all(re.search(r" \(.+\)$", title) for where in twice.values() for title in where), twice
    assert list(found)[-1] == ("General", "--local_rank")


def test_the_whole_page_has_what_the_parser_has(capsys):
    groups = [ModelArguments, TrainingArguments, PPOArguments]
    with pytest.raises(SystemExit):
        parse(groups, ["--help", "all"], "PPO.")
    shown = {flag[2:] for _, flag in options_by_title(capsys.readouterr().out)}
    declared = {f.name for group in groups for f in fields(group)} | {"config", "local_rank"}
    assert shown == declared - PPOArguments.REFUSED.keys()


def test_options_of_one_choice_have_a_title_of_their_own(capsys):
    with pytest.raises(SystemExit):
        parse([TrainingArguments, PPOArguments], ["-h", "all"], "PPO.")
    found = {flag: title for title, flag in options_by_title(capsys.readouterr().out)}
    assert found["--gae_lambda"] == found["--critic_learning_rate"] == "Only with --advantage gae"
    assert found["--policy_clip"] == "Algorithm" and found["--unfinished_penalty"] == "Only with --unfinished penalty"
    assert list(found.values()).index("Algorithm") < list(found.values()).index("Batches"), "its own come first"
