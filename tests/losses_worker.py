"""A program for test_loss_steps.py: one optimizer step for each of some losses, cut in several ways, as any number of
ranks; rank 0 writes what the weights moved by (under SGD with rate 1: the gradient), the loss, and the states."""

import dataclasses
from pathlib import Path

import numpy as np
import torch
from toys import tiny_lm

from utils.arguments.options import TrainingArguments
from utils.engine import deepspeed_engine as engines
from utils.engine import ranks
from utils.losses.inputs import INPUTS
from utils.losses.options import DPOArguments
from utils.model.scoring import Policy
from utils.tokens.group import Feedback, group
from utils.training.evaluation import evaluate
from utils.training.mismatched import Mismatched
from utils.training.reference import Reference
from utils.training.run import Run
from utils.training.setup import make_plan
from utils.training.sides import Side
from utils.training.stage import Stage
from utils.training.steps import OfflineSteps

LOSSES = ("kto", "bco_pair", "aot", "aot_unpaired", "mse", "plackett_luce", "ld_dpo")


def toy_groups(count):
    draw = np.random.default_rng(0)
    ids = lambda n: draw.integers(5, 200, n)  # noqa: E731
    rows = []
    for _ in range(count):
        k = int(draw.integers(2, 5))
        known = Feedback(
            rating=np.float32(draw.normal(0, 0.1, k)), rank=np.int32(draw.integers(1, 4, k)),
            good=np.int32(draw.integers(0, 2, k)), bad=np.int32(draw.integers(1, 3, k)),
        )  # fmt: skip
        answers = [ids(draw.integers(2, 30)) for _ in range(k)]
        rows.append(group(ids(draw.integers(3, 40)), answers, [(0, 1), (k - 1, 0), (0, 1)], feedback=known))
    return rows


class Live(Reference):
    """Another model's log-probs of whatever it is asked."""

    def __init__(self):
        super().__init__([])
        self.model = Policy(tiny_lm(seed=1)).eval()

    def of(self, batch):
        return batch.sum_per_answer(self.tokens_of(batch))

    def tokens_of(self, batch):
        with torch.no_grad():
            return self.model(batch)


def step_of(loss, folder, per_device, accumulation=1, budget=0):
    """(gradient, loss before the step, states, losses of the evaluation) of 8 groups."""
    args = TrainingArguments(
        output_dir=str(folder), per_device_train_batch_size=per_device, gradient_accumulation_steps=accumulation,
        per_device_eval_batch_size=per_device, tokens_per_micro_batch=budget, gradient_clipping=0.0, max_steps=1,
        lr_scheduler_type="constant", report_to=["none"],
    )  # fmt: skip
    objective, groups, reference = DPOArguments(loss=loss).objective(), toy_groups(8), Live()
    engine = engines.Engine(Policy(tiny_lm()), args, 1)
    side = Side(reference, (Mismatched(groups, 42, packed=True), reference) if objective.mismatched else None)

    def read(model, batch, reference):
        logprobs_N = model(batch)
        logprobs_A = batch.sum_per_answer(logprobs_N)
        inputs = INPUTS[objective.unit].of(batch, logprobs_A, logprobs_A - reference.of(batch))
        return inputs.with_tokens(batch, logprobs_N - reference.tokens_of(batch)) if objective.tokens else inputs

    def learn(model, batch):
        inputs = read(model, batch, reference)
        return objective(inputs), inputs.metrics(0.1)

    look, plan = side.look(objective, read), make_plan(groups, args, unit=objective.unit)
    measured = evaluate(engine, groups, learn, dataclasses.replace(args), unit=objective.unit, look=look)
    before = engine.full_state_dict()
    row = OfflineSteps(Stage(Run(args, [args]), engine, None), plan, learn, lambda: None, look=look).update(1)
    after = engine.full_state_dict()
    if ranks.rank():
        return None
    moved = torch.cat([(before[name] - after[name]).flatten() for name in sorted(before)])
    states = {name: vars(state) for name, state in objective.states.items()}
    return moved, row["loss"], states, float(measured["loss"].mean())


def main(out, cuts, losses=LOSSES, step_of=step_of):
    torch.set_num_threads(1)
    engines.start(TrainingArguments(output_dir=f"{out}.run", report_to=["none"]))
    torch.optim.AdamW = lambda groups, **_: torch.optim.SGD(groups, lr=1.0)
    config_of = engines.config_of
    engines.config_of = lambda *a: config_of(*a) | {"zero_allow_untested_optimizer": True}
    found = {(loss, cut): step_of(loss, Path(f"{out}.run"), **dict(cut)) for loss in losses for cut in cuts}
    if ranks.rank() == 0:
        torch.save(found, out)
