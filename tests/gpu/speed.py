"""Peak memory and tokens per second of every stage's main.py, and of 64 answers to one prompt, at several sizes.

Random weights, random tokens, all prompts of one length and all answers of another, bfloat16, one process. Tokens are
those of the packed row (a prompt counts once for all its answers); PPO counts answer tokens, and its seconds hold the
rollout and the updates.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import statistics
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from gpu.common import (
    Part,
    Size,
    model_folder,
    on_gpu,
    peak_gib,
    random_model,
    reset_peak,
    run_quietly,
    seconds_of,
    sizes,
    summary,
)
from peer import word_tokenizer
from processes import environment
from toys import ROOT

from utils.generation.generate import generate
from utils.generation.request import GenerationRequest
from utils.generation.sampling import Sampling
from utils.records import Answer, Message, Record, comparison
from utils.records.files import write_jsonl
from utils.tokens.templates import Renderer

WARM_UP = 2  # steps: the first ones allocate memory and choose kernels
ANSWERS, REPEATS = 64, 3
REWARD = "def length(record):\n    return [float(len(answer.text)) for answer in record.answers]\n"
STAGE = {"sft": "step1_sft", "reward": "step2_reward", "dpo": "step3_dpo", "ppo": "step3_ppo"}


def data_folder(kind: str, size: Size, folder: Path) -> Path:
    """train.jsonl with as many rows as the run reads, each of `size.prompt` and `size.answer` tokens (the end token
    included)."""
    draw = np.random.default_rng(0)
    words = lambda n: " ".join(f"t{i}" for i in draw.integers(3, size.vocabulary, n))  # noqa: E731

    def row() -> Record:
        prompt = [Message("user", words(size.prompt) + " ")]  # the template `plain` puts nothing between
        chosen, rejected = words(size.answer - 1), words(size.answer - 1)
        return Record(tuple(prompt), (Answer(chosen),)) if kind == "sft" else comparison(prompt, chosen, rejected)

    write_jsonl(folder / "train.jsonl", (row() for _ in range(size.groups * size.steps)))
    (folder / "reward.py").write_text(REWARD, encoding="utf-8")
    return folder


def flags_of(kind: str, size: Size, model: Path, data: Path, out: Path) -> list[str]:
    """main.py's flags; a stage's own numbers are those of its run_llama.sh where this work has them."""
    words = [
        "--model_name_or_path", model, "--template", "plain", "--data_path", data, "--output_dir", out / "run",
        "--cache_dir", out / "cache", "--per_device_train_batch_size", size.groups, "--max_steps", size.steps,
        "--max_prompt_seq_len", size.prompt, "--max_answer_seq_len", size.answer, "--bf16", "--zero_stage", 1,
        "--eval_every", "never", "--eval_holdout", 0, "--checkpoint_every", 0, "--report_to", "none",
        "--logging_steps", 1, "--learning_rate", 1e-6,
    ]  # fmt: skip
    words += ["--lora_dim", size.lora] if size.lora else []
    if kind == "ppo":
        words += [
            "--reward_fn", f"{data / 'reward.py'}:length", "--prompts_per_rollout", size.groups,
            "--samples_per_prompt", 4, "--minibatches", 2, "--ppo_epochs", 1, "--generation_batch_size", size.groups,
        ]  # fmt: skip
    return [str(word) for word in words]


def train(kind: str, size: Size, folder: Path, timeout: float) -> dict[str, float]:
    """A whole run of main.py in a process of its own; rates are over the steps after the warm-up."""
    out = folder / f"{kind}-{size.name}"
    shutil.rmtree(out, ignore_errors=True)
    if kind == "ppo":  # answers are of half the length: a rollout draws them token by token
        size = dataclasses.replace(size, answer=max(8, size.answer // 2), steps=WARM_UP + 2)
    out.mkdir(parents=True)
    model = model_folder(size, folder / f"model-{size.name}")
    data = data_folder(kind, size, out / "data")
    program = str(ROOT / "training" / STAGE[kind] / "main.py")
    words = [sys.executable, "-m", "gpu.measured", str(out / "facts.json"), program]
    paths = {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "OMP_NUM_THREADS": str(torch.get_num_threads())}
    run_quietly([*words, *flags_of(kind, size, model, data, out)], out.with_suffix(".log"), timeout,
                env=environment(**paths))  # fmt: skip
    facts = json.loads((out / "facts.json").read_text(encoding="utf-8"))
    lines = (out / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines[WARM_UP:]]
    assert len(rows) == size.steps - WARM_UP, f"{len(rows)} steps measured"
    tokens = statistics.median(row["tokens"] for row in rows)
    if kind != "ppo":  # a drawn answer may end early
        expected = size.groups * (size.prompt + size.answer * (1 if kind == "sft" else 2))
        assert all(row["tokens"] == expected for row in rows), f"{tokens} tokens a step, expected {expected}"
    shutil.rmtree(out / "cache", ignore_errors=True)
    work = {"prompts": size.groups, "prompt": size.prompt, "answer": size.answer, "lora": size.lora}
    found = {**facts, **work, "tokens": tokens, "step_seconds": statistics.median(row["seconds"] for row in rows)}
    if kind == "ppo":
        for name in ("generation_seconds", "scoring_seconds", "training_seconds"):
            found[name] = statistics.median(row[name] for row in rows)
    rates = [row["tokens"] / row["seconds"] for row in rows]
    return found | summary([1 / rate for rate in rates], 1, "tokens_per_second")


def answers(size: Size) -> dict[str, float]:
    """64 answers to one prompt with the shared back end. With random weights hardly one ends early; what is drawn is
    counted."""
    new = min(size.answer, 256)
    renderer = Renderer(word_tokenizer(size.vocabulary), "plain")
    model = random_model(size).eval()
    prompts = [np.random.default_rng(0).integers(5, size.vocabulary, size.prompt).tolist()]
    how = Sampling(new, num_samples=ANSWERS, seed=1)

    def work() -> int:
        ((*found,),) = generate(model, GenerationRequest(renderer, prompts, how), 1)
        return sum(len(completion.tokens) for completion in found)

    drawn = work()  # warm up, and the probe
    assert drawn > ANSWERS * new / 2, f"{drawn} tokens drawn: most answers ended early"
    reset_peak()
    seconds = [seconds_of(work) for _ in range(REPEATS)]
    found = {"prompts": 1, "answers": ANSWERS, "prompt": size.prompt, "answer": new, "peak_gib": peak_gib()}
    return found | summary(seconds, drawn, "tokens_per_second")


def cases(kind: str, part: Part) -> Iterator[tuple[str, Callable]]:
    for size in sizes(part.size):
        if kind == "generation":
            yield size.name, lambda size=size: answers(size)
        else:
            yield size.name, lambda size=size: train(kind, size, part.folder / "speed", max(part.left, 1.0))


def main(part: Part) -> None:
    """The part's name says what is measured: speed_sft, speed_generation, …"""
    part.run(cases(part.name.removeprefix("speed_"), part))
    if not on_gpu():
        shutil.rmtree(part.folder / "speed", ignore_errors=True)
