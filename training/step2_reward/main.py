"""Step 2, reward model: learn to score an answer from comparisons.

    cd training/step2_reward && bash run_tiny.sh

Reads comparisons (docs/data.md), writes a one-label sequence classification folder: plain transformers scores a padded
batch with it exactly as this project does.
"""

from __future__ import annotations

from argparse import ArgumentParser

try:
    import utils.errors  # noqa: F401
except ImportError:
    ArgumentParser().exit(2, "error: no environment is active; at the project's root: source training/environment.sh\n")

import numpy as np

from utils.arguments import parse
from utils.arguments.options import DataArguments, ModelArguments, TrainingArguments, refuse_dropout
from utils.engine.deepspeed_engine import Engine
from utils.losses import accuracy
from utils.losses.reward import bradley_terry
from utils.model import loading
from utils.model.reward_model import RewardModel, load_reward_model
from utils.model.scoring import self_test
from utils.reporting import run_program
from utils.statistics import calibration, calibration_bins
from utils.training.evaluation import evaluate
from utils.training.extras import begin_extras
from utils.training.run import Run
from utils.training.setup import begin, load_tokens, make_plan
from utils.training.stage import Stage
from utils.training.steps import OfflineSteps
from utils.training.trainer import Trainer


def main(argv: list[str] | None = None) -> None:
    groups = parse([ModelArguments, DataArguments, TrainingArguments], argv, __doc__)
    model_args, data_args, args = groups
    refuse_dropout(model_args)
    run = Run(args, groups, "step2_reward/main.py")
    if run.finished:
        return

    # 1. Comparisons, as tokens.
    renderer, train, held_out = load_tokens(model_args, data_args, args, stage=2, kind="comparisons")

    # 2. A backbone with one output, read at an answer's last token.
    begin(run, model_args, args, train)
    reward = RewardModel(load_reward_model(model_args, renderer.tokenizer, args.bf16))
    loading.check_length(reward.model, max(train.longest, held_out.longest))
    plan = make_plan(train, args, unit="pair")
    engine = Engine(reward, args, plan.total_steps)
    self_test(engine, reward, train, args.dtype_name)

    # 3. What one batch teaches: the chosen answer scores above the rejected one.
    def learn(model, batch):
        scores_A = model(batch)
        chosen_M, rejected_M = scores_A[batch.chosen], scores_A[batch.rejected]
        margin_M = chosen_M - rejected_M
        metrics = {
            "accuracy": accuracy(margin_M),
            "margin": margin_M,
            "chosen_score": chosen_M,
            "rejected_score": rejected_M,
        }
        return bradley_terry(chosen_M, rejected_M), metrics

    def evaluation(step, epoch):
        measured = evaluate(engine, held_out, learn, args)
        means = {name: values.mean() for name, values in measured.items()}
        # How sure the model is of its verdict, and whether it is right.
        confidence_M, right_M = 1 / (1 + np.exp(-np.abs(measured["margin"]))), measured["accuracy"]
        run.report.write_json("calibration.json", {"step": step, "bins": calibration_bins(confidence_M, right_M)})
        return means | calibration(confidence_M, right_M)._asdict()

    # 4. Train, save.
    stage = Stage(run, engine, renderer, held_out)
    extras = begin_extras(stage)
    Trainer(stage, OfflineSteps(stage, plan, learn, extras.after_update), evaluation, extras).fit()


if __name__ == "__main__":
    run_program(main)
