"""Every stage's main.py at ZeRO 0 to 3, float32 and bfloat16, on a toy model, on all GPUs of the machine.

Each run must exit with 0 and log finite numbers only, and the first step's loss must be that of the other ZeRO stages:
sharding changes no arithmetic. (Not PPO's: it is a loss over answers drawn, and rounding decides which are drawn.)
"""

from __future__ import annotations

import functools
import itertools
import json
import math
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from gpu.common import Part, on_gpu, run_quietly
from processes import environment
from stages import command, demonstrations, toy_data, toy_model
from toys import ROOT, tiny_rm
from transformers import AutoTokenizer

STAGES = ("step1_sft", "step2_reward", "step3_dpo", "step3_ppo")
FIRST = {"fp32": 1e-4, "bf16": 0.02}  # of the first loss between ZeRO stages: as self_test and check_first_step allow
AT_ONCE = 4 if on_gpu() else 1  # runs: most of a toy run is importing libraries, on a core of its own
STEPS = 4
PPO = (
    "--max_answer_seq_len", "8", "--prompts_per_rollout", "16", "--samples_per_prompt", "4", "--minibatches", "2",
    "--unfinished", "keep",
)  # fmt: skip


def ranks() -> int:
    return max(1, torch.cuda.device_count())


def toys(folder: Path) -> Path:
    """Models and data of all stages; made unless they are there."""
    if not (folder / "made").is_file():
        shutil.rmtree(folder, ignore_errors=True)
        toy_model(folder / "model")
        reward = tiny_rm(vocab_size=64, num_hidden_layers=2, hidden_size=32, intermediate_size=48)
        reward.save_pretrained(folder / "reward")
        AutoTokenizer.from_pretrained(folder / "model").save_pretrained(folder / "reward")
        toy_data(folder / "pairs")
        demonstrations(folder / "demonstrations")
        (folder / "made").touch()
    return folder


def command_of(stage: str, made: Path, out: Path, *flags: str) -> list[str]:
    data = made / ("demonstrations" if stage == "step1_sft" else "pairs")
    if stage == "step3_ppo":
        flags = ("--reward_model_name_or_path", str(made / "reward"), *PPO, *flags)
    return command(stage, made / "model", data, out, "--learning_rate", "1e-3", *flags, ranks=ranks())


def run(stage: str, made: Path, out: Path, *flags: str, timeout: float = 240) -> None:
    """One run of main.py into `out`; raises RuntimeError with the end of its output when it fails."""
    words = command_of(stage, made, out, *flags)
    run_quietly(words, out.with_suffix(".log"), timeout, cwd=ROOT / "training" / stage, env=environment())


def flags_of(dtype: str, zero: int) -> tuple[str, ...]:
    return ("--zero_stage", str(zero), *(["--bf16"] if dtype == "bf16" else []))


def check(stage: str, dtype: str, zero: int, made: Path, folder: Path) -> dict[str, float]:
    """Facts of one run."""
    out = folder / f"{stage}-{dtype}-zero{zero}"
    shutil.rmtree(out, ignore_errors=True)
    more = ("--max_steps", str(STEPS), "--checkpoint_every", "0")
    run(stage, made, out, *more, *flags_of(dtype, zero))
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    strange = [f"step {row['step']}: {k} is {v}" for row in rows for k, v in row.items() if not math.isfinite(v)]
    assert not strange, strange[0]
    assert rows[-1]["step"] == STEPS and (out / "finished.json").is_file() and (out / "model.safetensors").is_file()
    first = next(row for row in rows if row["step"] == 1)
    name = "policy_loss" if stage == "step3_ppo" else "loss"
    return {"first_loss": first[name], "last_loss": rows[-1][name], "steps": STEPS, "ranks": ranks()}


def combinations() -> list[tuple[str, str, int]]:
    """bfloat16 needs master weights, which ZeRO 0 has not."""
    every = itertools.product(STAGES, ("fp32", "bf16"), range(4))
    return [(stage, dtype, zero) for stage, dtype, zero in every if not (dtype == "bf16" and zero == 0)]


def cases(made: Path, folder: Path, chosen: list[tuple[str, str, int]]) -> Iterator[tuple[str, Callable]]:
    """A run is started while the one before it is looked at, AT_ONCE of them together."""
    losses: dict[tuple[str, str], float] = {}

    def compared(future, stage: str, dtype: str) -> dict[str, float]:
        found = future.result()
        if stage == "step3_ppo":
            return found
        first = losses.setdefault((stage, dtype), found["first_loss"])
        gap = abs(found["first_loss"] - first)
        assert gap <= FIRST[dtype], f"the first loss is {found['first_loss']:.6g}, at another ZeRO stage {first:.6g}"
        return found

    with ThreadPoolExecutor(AT_ONCE) as pool:
        started = [(c, pool.submit(check, *c, made, folder)) for c in chosen]
        try:
            for (stage, dtype, zero), future in started:
                yield f"{stage}, {dtype}, ZeRO {zero}", functools.partial(compared, future, stage, dtype)
        finally:
            pool.shutdown(cancel_futures=True)


def main(part: Part, chosen: list[tuple[str, str, int]] | None = None) -> None:
    folder = part.folder / "stages"
    made = toys(folder / "toys")
    part.run(cases(made, folder, combinations() if chosen is None else chosen))
