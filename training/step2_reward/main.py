"""Step 2, reward model: learn to score an answer from comparisons, ratings, rankings or thumbs.

    cd training/step2_reward && bash run_tiny.sh

Reads the feedback that the loss needs (docs/reward_losses.md), writes a one-label sequence classification folder: plain
transformers scores a padded batch with it exactly as this project does.
"""

from __future__ import annotations

import itertools
from argparse import ArgumentParser

try:
    import utils.errors  # noqa: F401
except ImportError:
    ArgumentParser().exit(2, "error: no environment is active; at the project's root: source training/environment.sh\n")

import numpy as np

from utils.arguments import parse
from utils.arguments.options import DataArguments, ModelArguments, TrainingArguments, refuse_dropout
from utils.engine.deepspeed_engine import Engine
from utils.engine.freezing import freeze_below
from utils.errors import UserError
from utils.losses.reward_inputs import SCORED
from utils.losses.reward_options import RewardLossArguments
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
    groups = parse([ModelArguments, DataArguments, TrainingArguments, RewardLossArguments], argv, __doc__)
    model_args, data_args, args, reward_args = groups
    refuse_dropout(model_args)
    if model_args.lora_dim and reward_args.num_layers_unfrozen is not None:
        raise UserError("--num_layers_unfrozen freezes blocks of the model, and --lora_dim all of it; give one of them")
    run = Run(args, groups, "step2_reward/main.py")
    if run.finished:
        return

    # 1. Answers with the feedback that the loss reads (docs/reward_losses.md), as tokens.
    objective = reward_args.objective()
    renderer, train, held_out = load_tokens(
        model_args, data_args, args, stage=2, kind=objective.data, pairs_from_ratings=reward_args.pairs_from_ratings
    )
    reward_args.check_ratings(itertools.chain(train, held_out))

    # 2. A backbone with one output, read at an answer's last token.
    begin(run, model_args, args, train)
    reward = RewardModel(load_reward_model(model_args, renderer.tokenizer, args.bf16))
    if reward.encoder and objective.tokens:
        raise UserError(f"--loss {reward_args.loss} reads a score at each token; an encoder has one for an answer")
    if reward_args.num_layers_unfrozen is not None:
        freeze_below(reward.model, reward_args.num_layers_unfrozen)
    loading.check_length(reward.model, max(train.longest, held_out.longest))
    plan = make_plan(train, args, unit=objective.unit)
    engine = Engine(reward, args, plan.total_steps)
    self_test(engine, reward, train, args.dtype_name)

    # 3. What one batch teaches: scores in the order of the feedback.
    def learn(model, batch):
        scored = SCORED[objective.unit].of(batch, model(batch, tokens=objective.tokens), objective.tokens)
        return objective(scored), scored.metrics()

    def evaluation(step, epoch):
        measured = evaluate(engine, held_out, learn, args, unit=objective.unit)
        means = {name: values.mean() for name, values in measured.items() if values.size}
        # How sure the model is of its verdict, and whether it is right.
        confidence_M, right_M = 1 / (1 + np.exp(-np.abs(measured["margin"]))), measured["accuracy"]
        run.report.write_json("calibration.json", {"step": step, "bins": calibration_bins(confidence_M, right_M)})
        return means | calibration(confidence_M, right_M)._asdict() if right_M.size else means

    # 4. Train, save.
    stage = Stage(run, engine, renderer, held_out)
    extras = begin_extras(stage)
    Trainer(stage, OfflineSteps(stage, plan, learn, extras.after_update), evaluation, extras).fit()


if __name__ == "__main__":
    run_program(main)
