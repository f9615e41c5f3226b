"""What a person gives wrongly: one line that begins with "error: ", exit code 2, no traceback, nothing lost or
half-written. Programs run in this process where a process of their own makes no difference."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys

import in_process
import pytest
import toy_folders
from in_process import DPO, REWARD, SFT, STAGES
from processes import environment
from safetensors.torch import load_file, save_file
from stages import demonstrations, toy_data, toy_model
from toys import ROOT

EVERY_STAGE = pytest.mark.parametrize("stage", STAGES)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """model/, pairs/, demos/: what is right. cache/ is shared, so that a wrong option meets no tokenising."""
    folder = tmp_path_factory.mktemp("world")
    toy_model(folder / "model")
    toy_data(folder / "pairs")
    demonstrations(folder / "demos")
    return folder


@pytest.fixture
def start(world, tmp_path, capsys):
    """start(stage, *flags, **what to give instead of the right model, data or output) -> (exit code, stderr)."""

    def run(stage, *flags, model=None, data=None, out=None):
        right = world / ("demos" if stage == SFT else "pairs")
        places = (model or world / "model", data or right, out or tmp_path / "out", world / "cache")
        flags = flags if "--max_steps" in flags else (*flags, "--max_steps", "2")
        return in_process.run_stage(stage, *places, *flags), capsys.readouterr().err

    return run


@pytest.fixture
def refuse(start, tmp_path):
    """The same, asserted to be refused as it must be; returns the line."""

    def run(*args, out=tmp_path / "refused", **instead):
        line = one_line(*start(*args, out=out, **instead))
        made = {path.name for path in out.rglob("*")} if out.is_dir() else set()
        assert made <= {"args.json", "tensorboard"}, made
        return line

    return run


@pytest.fixture
def refuse_program(capsys):
    return lambda *words: one_line(in_process.run(*words), capsys.readouterr().err)


def one_line(code, stderr):
    assert code == 2, stderr
    errors = [line for line in stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and "Traceback" not in stderr, stderr
    return errors[0]


def file(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_what_these_tests_change_is_right_before(start, tmp_path):
    for stage in STAGES:
        assert start(stage, out=tmp_path / stage)[0] == 0


# ------------------------------------------------------------------------------------------------------------- data

PAIR = '{"prompt": "say", "chosen": "yes", "rejected": "no"}\n'


@pytest.mark.parametrize(
    "stage, content, words",
    [
        (SFT, "", "rows.jsonl: the file is empty; expected one JSON object a line"),
        (SFT, "\n\n", "no rows left for train: .*rows.jsonl: 0 rows read"),
        (REWARD, PAIR * 2 + '{"prompt":\n', r"rows.jsonl:3: not JSON .*--on_bad_row skip"),
        (REWARD, '{"ask": "a", "good": "b", "bad": "c"}\n', "rows.jsonl:1: found the columns ask, good, .*--columns"),
        (REWARD, PAIR + '{"prompt": "say", "chosen": "b"}\n', r"rows.jsonl:2: no column 'rejected'.*--on_bad_row skip"),
        (DPO, PAIR + '{"prompt": "say", "chosen": 3, "rejected": "c"}\n', "rows.jsonl:2: column 'chosen' is '3'"),
        (SFT, b"\xff\xfe\x00", "rows.jsonl: cannot be read as text"),
        (SFT, '{"prompt": "say", "answer": " "}\n', "none of 1 records can be used as demonstrations: 1 empty answers"),
        (DPO, PAIR.replace("yes", ""), "none of 1 records can be used as comparisons: 1 empty answers.*docs/data.md"),
        (DPO, '{"prompt": "say", "answer": "yes"}\n', "none of 1 records .*no decided pair"),
    ],
)  # fmt: skip
def test_rows(refuse, tmp_path, stage, content, words):
    assert re.search(words, refuse(stage, "--eval_holdout", "0.5", data=file(tmp_path / "rows.jsonl", content)))


def test_names_of_data(refuse, world, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "none.jsonl: no such file or folder" in refuse(SFT, data=tmp_path / "none.jsonl")
    assert "expected train and test files" in refuse(SFT, data=tmp_path / "empty")
    assert "eval.jsonl: no such file" in refuse(SFT, "--eval_data_path", str(tmp_path / "eval.jsonl"))
    assert "unknown data-set class 'hh_rlfh'; did you mean hh_rlhf?" in refuse(
        REWARD, data=f"hh_rlfh:{world / 'pairs'}"
    )
    assert "found the weight 0; expected above 0" in refuse(REWARD, data=f"{world / 'pairs'}=0")
    assert "--columns prompts=x: no class reads 'prompts'; did you mean prompt?" in refuse(
        SFT, "--columns", "prompts=x"
    )


@pytest.mark.parametrize(
    "stage, split, whose",
    [(SFT, "0,5,5", "SFT"), (REWARD, "5,0,5", "the reward model"), (DPO, "5,5,0", "step 3")],
)
def test_a_share_of_zero(refuse, stage, split, whose):
    assert f"--data_split {split} gives {whose} no data; give it a share above 0" in refuse(
        stage, "--data_split", split
    )


@pytest.mark.parametrize("split", ["2,4", "2,4,4,4", "a,b,c", "1,2,-3", "nan,1,1", "", "2;4;4"])
def test_data_split(refuse, split):
    assert f"--data_split is {split!r}; expected three shares, as 2,4,4" in refuse(SFT, f"--data_split={split}")


@pytest.mark.parametrize("truncation", ["keep_end", "keep_start", "drop_turns", "drop"])
def test_a_prompt_that_cannot_fit(start, refuse, truncation):
    flags = ("--truncation", truncation, "--max_prompt_seq_len")
    line = refuse(REWARD, *flags, "2")
    if truncation == "drop":
        assert "none of 48 records can be used as comparisons: 48 records dropped: prompt too long" in line
    else:
        assert re.search(r"train.jsonl:\d+: a prompt of \d+ tokens has to fit in 2, .*raise --max_prompt_seq_len", line)
    assert start(REWARD, *flags, "7")[0] == 0  # a prompt that is merely too long is cut or dropped, and counted


@EVERY_STAGE
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_more_tokens_than_positions(refuse, world, tmp_path, stage, family):
    sizes = {"max_position_embeddings": 12, **({"n_positions": 12} if family == "gpt2" else {})}
    short = toy_model(tmp_path / "short", family, **sizes)
    words = r"a prompt and answer of \d+ tokens, more than the model's 12 positions; lower --max_prompt_seq_len"
    assert re.search(words, refuse(stage, model=short))


def test_positions_are_counted_for_each_answer_and_in_the_held_out_data(start, refuse, world, tmp_path):
    long = " ".join(["yes"] * 20)
    rows = file(tmp_path / "long.jsonl", json.dumps({"prompt": "say", "chosen": long, "rejected": long + " no"}) + "\n")
    tight = toy_model(tmp_path / "tight", max_position_embeddings=27)  # <s> <|user|> say </s> <|assistant|> 21 </s>
    assert start(DPO, "--eval_data_path", str(rows), model=tight, data=rows)[0] == 0
    tight = toy_model(tmp_path / "tighter", max_position_embeddings=26)
    assert "of 27 tokens" in refuse(DPO, "--eval_data_path", str(rows), model=tight)


# ----------------------------------------------------------------------------------------------------------- models


def broken(folder, what):
    model = toy_model(folder)
    weights = model / "model.safetensors"
    if what == "no weights":
        weights.unlink()
    elif what == "half a file":
        weights.write_bytes(weights.read_bytes()[:1000])
    elif what == "a weight is missing":
        tensors = load_file(weights)
        del tensors["model.layers.0.mlp.down_proj.weight"]
        save_file(tensors, weights, {"format": "pt"})
    elif what == "no config":
        (model / "config.json").unlink()
    elif what == "config is no JSON":
        (model / "config.json").write_text("{")
    elif what == "no tokenizer":
        [path.unlink() for path in model.glob("tokenizer*")]
    elif what == "tokenizer is no JSON":
        (model / "tokenizer.json").write_text("{")
    elif what == "no chat template":
        (model / "chat_template.jinja").unlink()
    return model


@EVERY_STAGE
@pytest.mark.parametrize(
    "what, words",
    [
        ("no weights", "no weights in this folder (*.safetensors); --from_scratch"),
        ("half a file", "cannot be loaded: Error while deserializing header"),
        ("a weight is missing", "lack 1 of the model's weights, the first model.layers.0.mlp.down_proj.weight"),
        ("no config", "no config.json in this folder; it is not a model"),
        ("config is no JSON", "not a valid JSON file"),
        ("no tokenizer", "no tokenizer in this folder; name one with --tokenizer_name_or_path"),
        ("tokenizer is no JSON", "cannot be loaded: Expecting property name"),
        ("no chat template", "it has no chat template; give --template, one of human_assistant, alpaca"),
    ],
)
def test_a_model_folder_that_is_not_whole(refuse, tmp_path, stage, what, words):
    line = refuse(stage, model=broken(tmp_path / "model", what))
    assert words in line and str(tmp_path / "model") in line


def test_names_of_models(refuse, tmp_path):
    assert "/none/x: no such folder" in refuse(SFT, model="/none/x")
    a_file = file(tmp_path / "model.bin", "weights")
    assert f"{a_file}: found a file; expected the folder of a model" in refuse(SFT, model=a_file)
    assert "/none/x: no such folder" in refuse(DPO, "--reference_model_name_or_path", "/none/x")
    assert "--template lama2: no such template; did you mean llama2?" in refuse(SFT, "--template", "lama2")
    assert "--lora_target_modules nope: no module ends so" in refuse(
        SFT, "--lora_dim", "2", "--lora_target_modules", "nope"
    )


def test_one_kind_of_model_where_the_other_is_wanted(start, refuse, refuse_program, world, tmp_path):
    reward = tmp_path / "reward"
    assert start(REWARD, out=reward)[0] == 0
    for stage in (SFT, DPO):
        assert f"{reward} is a reward model; a language model is wanted here" in refuse(stage, model=reward)
    assert start(REWARD, model=reward)[0] == 0  # goes on from it
    shutil.rmtree(tmp_path / "out")
    chatbot, rows = ROOT / "inference" / "chatbot.py", str(world / "pairs" / "test.jsonl")
    for mode, model, words in [
        ("generate", reward, "is a reward model; a language model is wanted here"),
        ("ppl", reward, "is a reward model; a language model is wanted here"),
        ("rm", world / "model", "is a language model; a reward model is wanted here"),
    ]:
        flags = ["--model_name_or_path", model, "--data_path", rows, "--output_path", tmp_path / "answers.jsonl"]
        assert f"{model} {words}" in refuse_program(chatbot, "--mode", mode, *flags)
        assert not (tmp_path / "answers.jsonl").exists()


def test_a_family_that_cannot_be_a_reward_model(refuse, tmp_path):
    line = refuse(REWARD, model=toy_model(tmp_path / "mamba", "mamba"))
    assert "mamba has no sequence classification model in transformers; it cannot be a reward model" in line


def test_an_encoder_decoder_cannot_be_a_reward_model(refuse, refuse_program, tmp_path):
    """As a start and as a finished model; said before its weights are read (there are none)."""
    folder = toy_model(tmp_path / "t5")
    (folder / "model.safetensors").unlink()
    words = f"{folder}: t5 is an encoder-decoder, which is not supported as a reward model"
    for names in (["T5ForConditionalGeneration"], ["T5ForSequenceClassification"]):
        (folder / "config.json").write_text(json.dumps({"model_type": "t5", "architectures": names}))
        if names[0].endswith("Generation"):
            assert words in refuse(REWARD, model=folder)
    evaluation = ROOT / "training" / "step2_reward" / "rw_eval.py"
    assert words in refuse_program(evaluation, "--model_name_or_path", str(folder))


def test_a_reward_model_of_another_tokenizer(refuse, tmp_path):
    other = toy_folders.rm_folder(tmp_path / "other")
    line = refuse(DPO, "--reward_model_name_or_path", other, "--sample_during_eval", "2")
    assert f"{other}: its tokenizer is not the policy's" in line and "chatbot.py --mode rm" in line


# ---------------------------------------------------------------------------------------------------------- options


@pytest.mark.parametrize(
    "flags, words",
    [
        ("--global_batch_size 9", "--global_batch_size 9 is not a multiple of --per_device_train_batch_size 8"),
        ("--learning_rate -1", "--learning_rate is -1.0; expected 0 or more"),
        ("--learning_rate nan", "--learning_rate is nan"),
        ("--num_train_epochs nan", "--num_train_epochs is nan; expected above 0"),
        ("--max_steps 0", "--max_steps is 0; expected 1 or more, or -1"),
        ("--gradient_accumulation_steps 0", "--gradient_accumulation_steps is 0; expected 1 or more"),
        ("--warmup_ratio 2", "--warmup_ratio is 2.0; expected 0 to 1"),
        ("--ema_decay 1.5", "--ema_decay is 1.5; expected 0 or more and below 1"),
        ("--seed -5", "--seed is -5; expected 0 or more"),
        ("--lora_dim -1", "--lora_dim is -1; expected 0 or more"),
        ("--model_max_length 0", "--model_max_length is 0; expected 1 or more"),
        ("--max_train_samples 0", "--max_train_samples is 0; expected 1 or more"),
        ("--lr_scheduler_type warmup_stable_decay", ": invalid choice: 'warmup_stable_decay' (choose from 'linear'"),
        ("--lr_scheduler_type constant --warmup_steps 5", "constant has no warm-up; give constant_with_warmup"),
        ("--bf16", "--bf16 needs --zero_stage 1, 2 or 3"),
        ("--offload", "--offload needs --zero_stage 1, 2 or 3"),
        ("--report_to mlflow", "--report_to mlflow: expected tensorboard, wandb or none"),
        ("--save_every 0", "--save_every is '0'; expected epoch, epoch_K"),
    ],
)  # fmt: skip
def test_values(refuse, flags, words):
    assert words in refuse(SFT, *flags.split())


@pytest.mark.parametrize(
    "flags, words",
    [
        ("--dropout 0.1", "--dropout and --lora_dropout must be 0 here"),
        ("--loss hinges", "--loss hinges is unknown; known: "),
        ("--loss sigmoid --label_smoothing 0.1", "--loss sigmoid does not use --label_smoothing; aot, aot_unpaired, "),
        ("--beta 0", "--beta is 0.0"),
        ("--reward_model_name_or_path x", "say how many with --sample_during_eval N"),
        ("--sample_during_eval 2 --eval_every never", "--sample_during_eval 2 samples at evaluations"),
    ],
)
def test_values_of_dpo(refuse, flags, words):
    assert words in refuse(DPO, *flags.split())


def test_dropout_in_a_reward_model(refuse):
    assert "--dropout and --lora_dropout must be 0 here" in refuse(REWARD, "--dropout", "0.1")


@pytest.mark.parametrize(
    "config, words",
    [
        (None, "no such file"),
        ("{\n{", ":2: not JSON: Expecting property name"),
        ("[]", "expected a JSON object with zero_optimization.stage"),
        ('{"zero_optimization": 3}', "expected a JSON object with zero_optimization.stage"),
        ('{"zero_optimization": {"stage": 7}}', "zero_optimization.stage is 7"),
        ('{"zero_optimization": {"stage": 2, "foo": 1}}', "zero_optimization.foo is 1"),
        ('{"fp16": {"enabled": true}}', "fp16 is not supported; use --bf16"),
        ('{"fp16": true}', 'fp16 is True; expected an object, as {"enabled": false}'),
        ('{"zero_optimization": {"stage": 2}, "bf16": {"enabled": true}}', "its bf16 block is on; give --bf16"),
        ('{"gradient_clipping": 5.0}', "gradient_clipping is 5.0; give --gradient_clipping"),
        ('{"optimizer": {"type": "Adam"}}', "remove the 'optimizer' block; --learning_rate"),
    ],
)
def test_deepspeed_json(refuse, tmp_path, config, words):
    path = tmp_path / "ds.json"
    if config is not None:
        path.write_text(config)
    line = refuse(SFT, "--deepspeed", str(path))
    assert words in line and str(path) in line


# ----------------------------------------------------------------------------------------- folders that hold something


def test_a_finished_run_is_not_overwritten_by_another(start, world, tmp_path):
    out = tmp_path / "out"
    assert start(SFT)[0] == 0
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    line = one_line(*start(SFT, "--learning_rate", "0.5"))
    assert f"{out} holds a finished run with other options (--learning_rate 0.01, now 0.5)" in line
    assert "another --output_dir" in line
    one_line(*start(REWARD))
    assert before == {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert start(SFT)[0] == 0


def test_an_output_that_cannot_be_a_folder(start, tmp_path):
    place = file(tmp_path / "out", "mine")
    assert f"{place} is a file; expected a folder" in one_line(*start(SFT))
    assert f"{place / 'run'}: cannot be written: Not a directory" in one_line(*start(SFT, out=place / "run"))
    assert place.read_text() == "mine"


def test_a_second_checkout_is_refused(world, tmp_path):
    second = tmp_path / "second"
    for name in ("utils", "inference", "training"):
        shutil.copytree(ROOT / name, second / name, ignore=shutil.ignore_patterns("__pycache__"))
    words = ["--mode", "ppl", "--model_name_or_path", world / "model", "--data_path", world / "pairs" / "test.jsonl"]
    program = [sys.executable, second / "inference" / "chatbot.py", *words, "--output_path", tmp_path / "ppl.jsonl"]
    done = subprocess.run(program, env=environment(), capture_output=True, text=True, cwd=second)
    assert one_line(done.returncode, done.stderr) == done.stderr.strip()
    assert f"the utils of another checkout, {ROOT / 'utils'}; set PYTHONPATH={second}" in done.stderr
    done = subprocess.run(program, env=environment(PYTHONPATH=str(second)), capture_output=True, text=True, cwd="/")
    assert done.returncode == 0 and (tmp_path / "ppl.jsonl").exists(), done.stderr
