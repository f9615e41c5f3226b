"""A DPO step against TRL 1.16's DPOTrainer, on this machine, interleaved: pairs per second and their ratio.

    PYTHONPATH=.:tests python tests/benchmarks/dpo_vs_trl.py [--steps 10] [--rounds 3] [--threads 2]

Both sides: the same 7.2-million-weight Llama, the same ids (HH-like lengths, 8 pairs a step), bf16. TRL at its defaults
(autocast, gradient checkpointing, online reference, padded rows) and, with --best, at its best legal settings. Ours:
the DeepSpeed engine at ZeRO-1 with bf16 weights and float32 master weights, prompts shared, packed; our reference pass
is counted as if it served one epoch only. Losses are asserted equal first, in float32 and in bf16.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time

import torch
from peer import hh_like_pairs, small_llama, trl_trainer
from transformers import TrainerCallback

from utils import engine as engines
from utils.arguments.options import TrainingArguments
from utils.batches import collate
from utils.loop import Trainer, make_plan
from utils.losses.preference import LOSSES, Pairs
from utils.reference import reference_logprobs
from utils.reporting import say
from utils.run import Run
from utils.scoring import Policy

VOCABULARY, PAIRS = 8192, 8


class Clock(TrainerCallback):
    def __init__(self):
        self.seconds = []

    def on_step_begin(self, *_, **__):
        self.start = time.perf_counter()

    def on_step_end(self, *_, **__):
        self.seconds.append(time.perf_counter() - self.start)


def trl_steps(groups, steps, folder, rate=1e-5, **options):
    """(seconds per step, losses). The step includes fetching its batch's padding but not tokenising."""
    clock = Clock()
    trainer = trl_trainer(
        small_llama(VOCABULARY), groups, VOCABULARY, folder, clock, per_device_train_batch_size=PAIRS, max_steps=steps,
        learning_rate=rate, beta=0.1, **options,
    )  # fmt: skip
    trainer.train()
    return clock.seconds, [row["loss"] for row in trainer.state.log_history if "loss" in row]


def our_steps(groups, steps, folder, bf16=True, rate=1e-5):
    """(seconds per step, losses, seconds of the reference pass per step)."""
    args = TrainingArguments(
        output_dir=folder, per_device_train_batch_size=PAIRS, per_device_eval_batch_size=4 * PAIRS, max_steps=steps,
        learning_rate=rate, lr_scheduler_type="constant", adam_beta2=0.999, bf16=bf16, zero_stage=1, report_to=["none"],
    )  # fmt: skip
    policy = Policy(small_llama(VOCABULARY))
    engines.start(args)
    plan = make_plan([g.tokens for g in groups], [1] * len(groups), args)
    engine = engines.Engine(policy, args, plan.total_steps)
    with torch.no_grad():
        engine(collate(groups[:PAIRS]))  # warm up
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as cache:
        from pathlib import Path

        reference = reference_logprobs(engine, True, groups, Path(cache), "benchmark", 4 * PAIRS)
    per_step = (time.perf_counter() - start) * PAIRS / len(groups)

    def learn(model, batch):
        ratio = batch.sum_per_answer(model(batch)) - reference.of(batch)
        pairs = Pairs(ratio[batch.winners], ratio[batch.losers], None, None, beta=0.1)
        return LOSSES["sigmoid"].losses(pairs), {"margin": pairs.delta}

    trainer = Trainer(Run(args, [args]), engine, plan, groups, learn, None, None)
    trainer.ema, seconds, losses = None, [], []
    for number in range(1, steps + 1):
        start = time.perf_counter()
        losses.append(trainer._step(number)["loss"])
        seconds.append(time.perf_counter() - start)
    return seconds, losses, per_step


def assert_equal_losses(folder):
    """Three steps on one batch of all pairs, so that the order of the data does not matter."""
    groups = hh_like_pairs(PAIRS, VOCABULARY, seed=7)
    plain = dict(gradient_checkpointing=False, max_grad_norm=1.0, rate=1e-4)
    for bf16, tolerance in ((False, 1e-4), (True, 2e-2)):
        _, theirs = trl_steps(groups, 3, folder, bf16=bf16, **plain)
        _, ours, _ = our_steps(groups, 3, folder, bf16=bf16, rate=1e-4)
        gap = max(abs(a - b) for a, b in zip(ours, theirs, strict=True))
        say(f"losses, {'bf16' if bf16 else 'fp32'}: ours {ours}, TRL {theirs}")
        assert gap <= tolerance, gap


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=10, help="steps a round, after two of warm-up")
    parser.add_argument("--rounds", type=int, default=3, help="rounds, TRL and ours in turn")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--best", action="store_true", help="TRL without checkpointing and with a cached reference")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    best = dict(gradient_checkpointing=False, precompute_ref_log_probs=True) if options.best else {}
    with tempfile.TemporaryDirectory() as folder:
        assert_equal_losses(folder)
        groups = hh_like_pairs(PAIRS * (options.steps + 2), VOCABULARY)
        theirs, ours = [], []
        for _ in range(options.rounds):
            theirs += trl_steps(groups, options.steps + 2, folder, bf16=True, **best)[0][2:]
            seconds, _, reference = our_steps(groups, options.steps + 2, folder)
            ours += [s + reference for s in seconds[2:]]
    a, b = statistics.median(theirs), statistics.median(ours)
    say(
        f"TRL {PAIRS / a:.2f} pairs/s, ours {PAIRS / b:.2f} pairs/s (reference pass included), "
        f"ratio {a / b:.2f}, {options.threads} threads"
    )


if __name__ == "__main__":
    main()
