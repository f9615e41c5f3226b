"""The same optimizer steps by TRL's trainers and by this project, timed: for tests/benchmarks and tests/gpu.

Both sides are given the same model, the same groups of ids and AdamW with a constant rate. Ours goes through the
DeepSpeed engine at ZeRO-1; its reference pass is timed beside the steps.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import torch
from peer import trl_reward_trainer, trl_sft_trainer, trl_trainer
from transformers import TrainerCallback

from utils.arguments.options import TrainingArguments
from utils.engine import deepspeed_engine as engines
from utils.engine import ranks
from utils.losses import preference
from utils.losses.inputs import PairInputs
from utils.losses.reward import bradley_terry
from utils.losses.reward_inputs import ScoredPairs
from utils.model.batch import collate
from utils.model.reward_model import RewardModel
from utils.model.scoring import Policy
from utils.training.reference import reference_logprobs
from utils.training.run import Run
from utils.training.setup import make_plan
from utils.training.stage import Stage
from utils.training.steps import OfflineSteps

THEIRS = {"sft": trl_sft_trainer, "reward": trl_reward_trainer, "dpo": trl_trainer}


def now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


class Clock(TrainerCallback):
    def __init__(self):
        self.seconds = []

    def on_step_begin(self, *_, **__):
        self.start = now()

    def on_step_end(self, *_, **__):
        self.seconds.append(now() - self.start)


def trl_steps(kind, model, groups, steps, folder, *, per_step, rate=1e-5, **options):
    """(seconds per step, losses). The step includes fetching its batch's padding but not tokenising."""
    clock = Clock()
    more = {"beta": 0.1} if kind == "dpo" else {}
    trainer = THEIRS[kind](
        model, groups, model.config.vocab_size, folder, clock, per_device_train_batch_size=per_step, max_steps=steps,
        learning_rate=rate, **more, **options,
    )  # fmt: skip
    trainer.train()
    return clock.seconds, [row["loss"] for row in trainer.state.log_history if "loss" in row]


def our_steps(kind, model, groups, steps, folder, *, per_step, bf16=True, rate=1e-5):
    """(seconds per step, losses, seconds of the reference pass per step)."""
    args = TrainingArguments(
        output_dir=str(folder), per_device_train_batch_size=per_step, per_device_eval_batch_size=4 * per_step,
        max_steps=steps, learning_rate=rate, lr_scheduler_type="constant", adam_beta2=0.999, bf16=bf16, zero_stage=1,
        report_to=["none"],
    )  # fmt: skip
    scorer = (RewardModel if kind == "reward" else Policy)(model)
    engines.start(args)
    plan = make_plan(groups, args, unit="token" if kind == "sft" else "pair")
    engine = engines.Engine(scorer, args, plan.total_steps)
    with torch.no_grad():
        engine(collate(groups[:per_step]).to(ranks.device()))  # warm up
    reference, reference_seconds = None, 0.0
    if kind == "dpo":
        start = now()
        with tempfile.TemporaryDirectory() as cache:
            limits = {"count": 4 * per_step, "budget": 0}
            reference = reference_logprobs(engine, groups, Path(cache) / "toy.sqlite", packed=scorer.packed, **limits)
        reference_seconds = (now() - start) * per_step / len(groups)
    trainer = OfflineSteps(Stage(Run(args, [args]), engine, None), plan, _learn(kind, reference), lambda: None)
    seconds, losses = [], []
    for number in range(1, steps + 1):
        start = now()
        losses.append(trainer.update(number)["loss"])
        seconds.append(now() - start)
    return seconds, losses, reference_seconds


def _learn(kind, reference):
    """What a batch teaches, as the stage's main.py has it."""

    def sft(model, batch):
        return -model(batch), {}

    def reward(model, batch):
        scores = model(batch)
        return bradley_terry(ScoredPairs.of(batch, scores)), {}

    def dpo(model, batch):
        ratio = batch.sum_per_answer(model(batch)) - reference.of(batch)
        pairs = PairInputs.of(batch, ratio, ratio)
        return preference.sigmoid(pairs, beta=0.1), {"margin": pairs.delta}

    return {"sft": sft, "reward": reward, "dpo": dpo}[kind]
