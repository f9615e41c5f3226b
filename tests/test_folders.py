"""What a stage saves is what plain transformers loads: the same log-probs or scores, recomputed here with nothing of
this project, as the stage itself measured at its last step. And what is saved is where the next stage starts."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import in_process
import peft
import pytest
import torch
from in_process import DPO, PPO, REWARD, SFT
from processes import environment
from stages import command, demonstrations, metrics, run_stage, toy_data, toy_model, weights
from toys import ROOT
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    GenerationConfig,
)

from utils.engine.ranks import free_port

FAMILIES = {"llama": {}, "gpt2": {"n_embd": 32, "n_layer": 2}, "qwen3": {}}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A model folder for each family, pad-is-end/ (llama), and data: pairs/ and demos/."""
    folder = tmp_path_factory.mktemp("world")
    for family, sizes in FAMILIES.items():
        toy_model(folder / family, family, **sizes)
    shutil.copytree(folder / "llama", folder / "pad-is-end")
    tokenizer = AutoTokenizer.from_pretrained(folder / "pad-is-end")
    tokenizer.pad_token = tokenizer.eos_token
    tokenizer.save_pretrained(folder / "pad-is-end")
    toy_data(folder / "pairs")
    demonstrations(folder / "demos")
    return folder


@pytest.fixture(scope="module")
def trained(world):
    """trained(stage, start, *flags, ranks) -> its output folder; each is trained once."""
    made = {}

    def train(stage, start="llama", *flags, ranks=1):
        key = (stage, start, flags, ranks)
        if key not in made:
            made[key] = world / f"run-{len(made)}"
            places = (world / start, world / ("demos" if stage == SFT else "pairs"), made[key])
            if ranks > 1:
                run_stage(stage, *places, *flags, ranks=ranks)
            else:
                assert in_process.run_stage(stage, *places, world / "cache", *flags) == 0
        return made[key]

    return train


def rows(world, tokenizer, data="pairs"):
    """(prompt ids, [answer ids, …]) of the held-out rows, rendered by transformers alone."""
    ids = lambda text: tokenizer(text, add_special_tokens=False).input_ids  # noqa: E731
    for line in (world / data / "test.jsonl").read_text().splitlines():
        row = json.loads(line)
        prompt = tokenizer.apply_chat_template(row["prompt"], tokenize=False, add_generation_prompt=True)
        answers = []
        for answer in row["answers"]:
            turns = [*row["prompt"], {"role": "assistant", "content": answer["text"]}]
            whole = tokenizer.apply_chat_template(turns, tokenize=False)
            assert whole.startswith(prompt)
            answers.append(ids(whole[len(prompt) :]))
        yield ids(prompt), answers


def sums(model, tokenizer, world, data="pairs"):
    """log P of every answer of the held-out rows, and how many tokens each has: [rows, answers]."""
    found, lengths = [], []
    for prompt, answers in rows(world, tokenizer, data):
        for answer in answers:
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
            found.append(logits.float().log_softmax(-1)[range(len(answer)), answer].sum())
            lengths.append(len(answer))
    shape = (-1, 1 if data == "demos" else 2)
    return torch.stack(found).view(shape), torch.tensor(lengths).view(shape)


def load_lm(folder, dtype=torch.float32):
    model, info = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, output_loading_info=True)
    assert not any(info[problem] for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    return model.eval(), AutoTokenizer.from_pretrained(folder)


def check_language_model(folder, world, stage, tolerance=2e-5, row=None):
    """The folder says of the held-out rows what the stage measured."""
    measured = row or metrics(folder)[-1]
    model, tokenizer = load_lm(folder)
    if stage == SFT:
        found, lengths = sums(model, tokenizer, world, "demos")
        assert -found.sum() / lengths.sum() == pytest.approx(measured["eval/loss"], rel=tolerance)
    else:
        chosen, rejected = sums(model, tokenizer, world)[0].mean(0).tolist()
        assert chosen == pytest.approx(measured["eval/chosen_logprob"], rel=tolerance)
        assert rejected == pytest.approx(measured["eval/rejected_logprob"], rel=tolerance)
    return model, tokenizer


def check_reward_model(folder, world, tolerance=2e-5, sides=("right", "left")):
    """All held-out answers in one padded batch score as the stage measured, whatever the side of the padding."""
    model, info = AutoModelForSequenceClassification.from_pretrained(
        folder, dtype=torch.float32, output_loading_info=True
    )
    assert not any(info[problem] for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert model.config.num_labels == 1 and model.config.pad_token_id == tokenizer.pad_token_id
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    wholes = [{"input_ids": prompt + answer} for prompt, answers in rows(world, tokenizer) for answer in answers]
    assert len({len(whole["input_ids"]) for whole in wholes}) > 3
    measured = metrics(folder)[-1]
    for side in sides:
        batch = tokenizer.pad(wholes, padding_side=side, return_tensors="pt")
        with torch.no_grad():
            chosen, rejected = model.eval()(**batch).logits.view(-1, 2).mean(0).tolist()
        assert chosen == pytest.approx(measured["eval/chosen_score"], rel=tolerance, abs=tolerance)
        assert rejected == pytest.approx(measured["eval/rejected_score"], rel=tolerance, abs=tolerance)


LORA = ("--lora_dim", "4")
BF16 = ("--bf16", "--zero_stage", "2")  # the stage measures in bfloat16: two to three digits


@pytest.mark.parametrize("start", [*FAMILIES, "pad-is-end"])
@pytest.mark.parametrize("stage", [SFT, DPO])
def test_a_language_model(trained, world, stage, start):
    model, tokenizer = check_language_model(trained(stage, start), world, stage)
    generation = GenerationConfig.from_pretrained(trained(stage, start))
    assert tokenizer.eos_token_id in generation.eos_token_id and generation.pad_token_id == tokenizer.pad_token_id
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "please say"}], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    answer = model.generate(**prompt, max_new_tokens=20, do_sample=False)[0, prompt["input_ids"].shape[1] :].tolist()
    assert tokenizer.eos_token_id not in answer[:-1] and (len(answer) == 20 or answer[-1] == tokenizer.eos_token_id)


@pytest.mark.parametrize("stage, flags, tolerance", [(SFT, LORA, 2e-5), (DPO, LORA, 2e-5), (DPO, BF16, 1e-2)])
def test_a_language_model_of_lora_or_bf16(trained, world, stage, flags, tolerance):
    check_language_model(trained(stage, "llama", *flags), world, stage, tolerance)


@pytest.mark.parametrize("start", [*FAMILIES, "pad-is-end"])
def test_a_reward_model(trained, world, start):
    # transformers counts the positions of a left-padded row from its padding on, so absolute ones need the right side
    sides = ("right",) if start == "gpt2" else ("right", "left")
    check_reward_model(trained(REWARD, start), world, sides=sides)


@pytest.mark.parametrize(
    "start, flags, tolerance", [("llama", LORA, 2e-5), ("pad-is-end", LORA, 2e-5), ("llama", BF16, 3e-2)]
)
def test_a_reward_model_of_lora_or_bf16(trained, world, start, flags, tolerance):
    check_reward_model(trained(REWARD, start, *flags), world, tolerance)


@pytest.mark.slow
@pytest.mark.parametrize(
    "stage, flags", [(SFT, ("--bf16",)), (REWARD, ()), (DPO, LORA)], ids=["sft, bf16", "reward", "dpo, lora"]
)
def test_zero_3_on_two_ranks(trained, world, stage, flags):
    folder = trained(stage, "llama", "--zero_stage", "3", *flags, ranks=2)
    tolerance = 1e-2 if "--bf16" in flags else 2e-5
    check_reward_model(folder, world, tolerance) if stage == REWARD else check_language_model(
        folder, world, stage, tolerance
    )


def test_the_adapter_is_the_merged_model(trained, world):
    """adapter/ put on the base by peft, against the folder's own weights."""
    for stage, kind in ((DPO, AutoModelForCausalLM), (REWARD, AutoModelForSequenceClassification)):
        folder = trained(stage, "llama", *LORA)
        options = {"num_labels": 1, "pad_token_id": 0} if stage == REWARD else {}
        base = kind.from_pretrained(world / "llama", dtype=torch.float32, **options).eval()
        merged = kind.from_pretrained(folder, dtype=torch.float32).eval()
        tokenizer = AutoTokenizer.from_pretrained(folder)
        ids = torch.tensor([next(rows(world, tokenizer))[0]])
        with torch.no_grad():
            bare = base(ids).logits.clone()
            adapted = peft.PeftModel.from_pretrained(base, folder / "adapter").eval()
            torch.testing.assert_close(adapted(ids).logits, merged(ids).logits, atol=1e-4, rtol=0)
        assert (bare - merged(ids).logits).abs().max() > 1e-2


def test_folders_for_choosing_and_the_average(trained, world):
    folder = trained(SFT, "llama", "--save_every", "epoch", "--ema_decay", "0.9")
    saved = [json.loads((folder / f"epoch-{n}" / "metrics.json").read_text()) for n in (1, 2)]
    assert [row["step"] for row in saved] == [6, 12]
    for n, row in enumerate(saved, start=1):
        check_language_model(folder / f"epoch-{n}", world, SFT, row=row)
    assert saved[1]["eval/loss"] < saved[0]["eval/loss"]
    last, second = weights(folder), weights(folder / "epoch-2")
    assert all(torch.equal(last[name], second[name]) for name in last)
    load_lm(folder / "ema")
    assert any(not torch.equal(last[name], tensor) for name, tensor in weights(folder / "ema").items())


def test_each_stage_starts_from_what_another_saved(trained, world, tmp_path):
    """SFT, reward model and DPO in a row, with a named template that goes along, and a reward model that scores."""
    cache, template = world / "cache", ("--template", "human_assistant")
    chain = [
        (SFT, world / "llama", "demos", template),
        (REWARD, tmp_path / SFT, "pairs", ()),
        (DPO, tmp_path / SFT, "pairs", ("--reward_model_name_or_path", tmp_path / REWARD, "--sample_during_eval", "3")),
    ]
    for stage, model, data, flags in chain:
        assert in_process.run_stage(stage, model, world / data, tmp_path / stage, cache, *map(str, flags)) == 0
    check_language_model(tmp_path / SFT, world, SFT)
    check_reward_model(tmp_path / REWARD, world)
    check_language_model(tmp_path / DPO, world, DPO)
    first = metrics(tmp_path / DPO)[0]  # before the first step policy is reference
    assert first["eval/chosen_reward"] == 0.0 and first["eval/accuracy"] == 0.5
    scored = json.loads((tmp_path / DPO / "before_dpo.json").read_text())
    assert len(scored) == 3 and set(scored[0]) == {"prompt", "response", "score"}


# ----------------------------------------------------------------------------------------------- ways to start a stage

SCRIPTS = sorted((ROOT / "training").glob("step*/run_*llama*.sh"))


@pytest.fixture(scope="module")
def long_llama(tmp_path_factory):
    return toy_model(tmp_path_factory.mktemp("long") / "llama", max_position_embeddings=1024)


CELLS = [
    pytest.param(script, gpus, id=f"{script.parent.name}/{script.stem}-{gpus}",
                 marks=[pytest.mark.full] if gpus == 2 else [])
    for script in SCRIPTS
    for gpus in (1, 2)
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("script, gpus", CELLS)
def test_a_script_as_it_stands(world, long_llama, trained, tmp_path, script, gpus):
    """Every run_*llama*.sh, on a small Llama and a CPU; two ranks are started by the deepspeed launcher."""
    settings = {
        "MODEL": str(long_llama),
        "DATA": str(world / "pairs"),
        "OUTPUT": str(tmp_path / "out"),
        "GPUS": str(gpus),
        "REWARD": str(trained(REWARD, "llama")),
    }
    steps = 6 if script.parent.name == PPO else 2  # its critic warms up for five
    flags = ["--max_steps", str(steps), "--report_to", "none", "--cache_dir", str(tmp_path / "cache")]
    if script.parent.name == PPO:
        flags += ["--prompts_per_rollout", "4", "--minibatches", "2", "--max_answer_seq_len", "8"]
    path = f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", str(script), *flags], cwd=script.parent, capture_output=True, text=True,
        env=environment(**settings, PATH=path, MASTER_PORT=str(free_port()), DS_ACCELERATOR="cpu"),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    out = tmp_path / "out"
    assert json.loads((out / "finished.json").read_text())["world_size"] == gpus
    assert len(metrics(out)) == steps + 1 and (out / script.name).read_text() == script.read_text()
    assert (out / "adapter").is_dir() == script.stem.endswith("lora")
    if script.parent.name == REWARD:
        check_reward_model(out, world, tolerance=3e-2)
    else:
        load_lm(out)


@pytest.mark.full
def test_launchers_agree(world, tmp_path):
    """Two ranks under torchrun or accelerate (deepspeed: above) are the same run, and agree with plain python's one."""
    ends = {}
    for name, words in {
        "torchrun": ["torch.distributed.run", "--nproc_per_node=2", "--master_port", str(free_port())],
        "accelerate": [
            "accelerate.commands.launch",
            "--use_deepspeed",
            "--num_processes=2",
            "--main_process_port",
            str(free_port()),
        ],
    }.items():
        python, *program = command(SFT, world / "llama", world / "demos", tmp_path / name, "--max_steps", "2")
        program[program.index("--per_device_train_batch_size") + 1] = "4"
        done = subprocess.run(
            [python, "-m", *words, *program], cwd=ROOT / "training" / SFT, capture_output=True, text=True,
            env=environment(DS_ACCELERATOR="cpu"),
        )  # fmt: skip
        assert done.returncode == 0, f"{name}: {done.stdout[-2000:]}{done.stderr[-3000:]}"
        assert json.loads((tmp_path / name / "finished.json").read_text())["world_size"] == 2
        ends[name] = metrics(tmp_path / name)[-1]["eval/loss"]
    places = (world / "llama", world / "demos", tmp_path / "python", world / "cache")
    assert in_process.run_stage(SFT, *places, "--max_steps", "2") == 0
    alone = metrics(tmp_path / "python")[-1]["eval/loss"]
    assert ends["torchrun"] == ends["accelerate"] == pytest.approx(alone, rel=1e-5)
