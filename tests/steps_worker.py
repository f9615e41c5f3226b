"""A program for the tests: a few optimizer steps of a toy model through the real engine, as any number of ranks.

    torchrun --nproc_per_node 2 steps_worker.py OUT.pt --per_device 4 --accumulation 1 --zero_stage 2 …

Writes rank 0's losses and the weights before and after. With --sgd the optimizer is SGD with rate 1, so the weights
move by exactly the gradient.
"""

import argparse
import sys

import numpy as np
import torch
from toys import tiny_lm, tiny_rm

from utils.arguments.options import TrainingArguments
from utils.engine import deepspeed_engine as engines
from utils.engine import ranks
from utils.losses import preference
from utils.losses.inputs import PairInputs
from utils.losses.reward import bradley_terry
from utils.losses.reward_inputs import ScoredPairs
from utils.model.reward_model import RewardModel
from utils.model.scoring import Policy
from utils.tokens.group import group
from utils.training.run import Run
from utils.training.setup import make_plan
from utils.training.stage import Stage
from utils.training.steps import OfflineSteps


def toy_groups(count):
    draw = np.random.default_rng(0)
    ids = lambda n: draw.integers(5, 200, n)  # noqa: E731
    rows = []
    for _ in range(count):
        answers = [ids(draw.integers(2, 30)) for _ in range(draw.integers(2, 4))]
        rows.append(group(ids(draw.integers(3, 40)), answers, [(0, 1), (len(answers) - 1, 0)]))
    return rows


def learner(stage):
    def sft(model, batch):
        return -model(batch), {}

    def reward(model, batch):
        scores = model(batch)
        return bradley_terry(ScoredPairs.of(batch, scores)), {}

    def dpo(model, batch):
        ratio = batch.sum_per_answer(model(batch))
        pairs = PairInputs.of(batch, ratio, ratio)
        return preference.sigmoid(pairs, beta=0.1), {"margin": pairs.delta}

    return {"sft": sft, "reward": reward, "dpo": dpo}[stage]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("out")
    parser.add_argument("--stage", default="dpo")
    parser.add_argument("--per_device", type=int, default=8)
    parser.add_argument("--accumulation", type=int, default=1)
    parser.add_argument("--token_budget", type=int, default=0)
    parser.add_argument("--zero_stage", type=int, default=0)
    parser.add_argument("--offload", action="store_true")
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--clipping", type=float, default=0.0)
    parser.add_argument("--steps", type=int, default=1)
    parser.add_argument("--groups", type=int, default=8)
    parser.add_argument("--sgd", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    args = TrainingArguments(
        output_dir=options.out + ".run", per_device_train_batch_size=options.per_device,
        gradient_accumulation_steps=options.accumulation, tokens_per_micro_batch=options.token_budget,
        zero_stage=options.zero_stage, offload=options.offload, bf16=options.bf16, gradient_clipping=options.clipping,
        max_steps=options.steps, learning_rate=1e-3, lr_scheduler_type="constant", report_to=["none"],
    )  # fmt: skip
    scorer = RewardModel(tiny_rm()) if options.stage == "reward" else Policy(tiny_lm())
    engines.start(args)
    if options.sgd:
        torch.optim.AdamW = lambda groups, **_: torch.optim.SGD(groups, lr=1.0)
        config_of = engines.config_of
        engines.config_of = lambda *a: config_of(*a) | {"zero_allow_untested_optimizer": True}
    groups = toy_groups(options.groups)
    plan = make_plan(groups, args, unit="token" if options.stage == "sft" else "pair")
    engine = engines.Engine(scorer, args, plan.total_steps)
    before = engine.full_state_dict()
    trainer = OfflineSteps(Stage(Run(args, [args]), engine, None), plan, learner(options.stage), lambda: None)
    engine.module.train()
    rows = [trainer.update(n) for n in range(1, plan.total_steps + 1)]
    after = engine.full_state_dict()
    if ranks.rank() == 0:
        torch.save({"rows": rows, "before": before, "after": after}, options.out)


if __name__ == "__main__":
    sys.exit(main())
