"""A program for test_reward_losses.py: one optimizer step for each of some losses, cut in several ways, as any number
of ranks; rank 0 writes what the weights moved by (under SGD with rate 1: the gradient) and the losses."""

import losses_worker
import numpy as np
import torch
from toys import tiny_rm

from utils.arguments.options import TrainingArguments
from utils.engine import deepspeed_engine as engines
from utils.engine import ranks
from utils.losses.reward_inputs import SCORED
from utils.losses.reward_options import RewardLossArguments
from utils.model.reward_model import RewardModel
from utils.tokens.group import Feedback, group
from utils.training.evaluation import evaluate
from utils.training.run import Run
from utils.training.setup import make_plan
from utils.training.stage import Stage
from utils.training.steps import OfflineSteps


def toy_groups(count):
    draw, rows = np.random.default_rng(0), []
    for _ in range(count):
        k = int(draw.integers(2, 5))
        known = Feedback(
            rating=np.float32(draw.integers(1, 8, k)), rank=np.int32(draw.integers(1, 4, k)),
            good=np.int32(draw.integers(0, 2, k)), bad=np.int32(draw.integers(1, 3, k)),
            confidence=np.float32([1, 0.5, 0.75]), tie=np.array([False, True, False]),
        )  # fmt: skip
        answers = [draw.integers(5, 200, draw.integers(2, 30)) for _ in range(k)]
        prompt = draw.integers(5, 200, draw.integers(3, 40))
        rows.append(group(prompt, answers, [(0, 1), (k - 1, 0), (1, 0)], feedback=known))
    return rows


def step_of(loss, folder, per_device, accumulation=1, budget=0):
    """(gradient, loss before the step, mean loss of the evaluation) of 8 groups."""
    args = TrainingArguments(
        output_dir=str(folder), per_device_train_batch_size=per_device, gradient_accumulation_steps=accumulation,
        per_device_eval_batch_size=per_device, tokens_per_micro_batch=budget, gradient_clipping=0.0, max_steps=1,
        lr_scheduler_type="constant", report_to=["none"],
    )  # fmt: skip
    objective, groups = RewardLossArguments(loss=loss).objective(), toy_groups(8)
    engine = engines.Engine(RewardModel(tiny_rm()), args, 1)

    def learn(model, batch):
        scored = SCORED[objective.unit].of(batch, model(batch, tokens=objective.tokens), objective.tokens)
        return objective(scored), scored.metrics()

    measured = evaluate(engine, groups, learn, args, unit=objective.unit)
    before = engine.full_state_dict()
    plan = make_plan(groups, args, unit=objective.unit)
    row = OfflineSteps(Stage(Run(args, [args]), engine, None), plan, learn, lambda: None).update(1)
    after = engine.full_state_dict()
    if ranks.rank():
        return None
    moved = torch.cat([(before[name] - after[name]).flatten() for name in sorted(before)])
    return moved, row["loss"], float(measured["loss"].mean())


def main(out, cuts, losses):
    losses_worker.main(out, cuts, losses, step_of)
