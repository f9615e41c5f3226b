"""Step 3, direct preference optimisation: teach the policy from feedback, with no reward model in between.

    cd training/step3_dpo && bash run_tiny.sh

Reads comparisons, or what else its loss reads (docs/losses.md); writes a folder that plain transformers loads. Rafailov
et al. 2023, arXiv:2305.18290.
"""

from __future__ import annotations

from argparse import ArgumentParser

try:
    import utils.errors  # noqa: F401
except ImportError:
    ArgumentParser().exit(2, "error: no environment is active; at the project's root: source training/environment.sh\n")

from utils.arguments import parse
from utils.arguments.options import (
    DataArguments,
    ModelArguments,
    SamplingArguments,
    TrainingArguments,
    refuse_dropout,
    refuse_samples_without_evaluation,
)
from utils.engine.deepspeed_engine import Engine
from utils.losses.inputs import INPUTS
from utils.losses.options import DPOArguments
from utils.model import loading
from utils.model.scoring import Policy, self_test
from utils.reporting import run_program
from utils.training.evaluation import evaluate
from utils.training.extras import begin_extras
from utils.training.reference import check_first_step
from utils.training.run import Run
from utils.training.setup import begin, load_tokens, make_plan
from utils.training.sides import begin_sides
from utils.training.stage import Stage
from utils.training.steps import OfflineSteps
from utils.training.trainer import Trainer


def main(argv: list[str] | None = None) -> None:
    groups = parse([ModelArguments, DataArguments, TrainingArguments, SamplingArguments, DPOArguments], argv, __doc__)
    model_args, data_args, args, sampling_args, dpo_args = groups
    refuse_dropout(model_args)
    refuse_samples_without_evaluation(sampling_args, args)
    run = Run(args, groups, "step3_dpo/main.py")
    if run.finished:
        return

    # 1. Answers with the feedback that the loss reads (docs/losses.md), as tokens.
    objective = dpo_args.objective()
    renderer, train, held_out = load_tokens(
        model_args, data_args, args, stage=3, kind=objective.data, pairs_from_ratings=dpo_args.pairs_from_ratings
    )

    # 2. A policy that learns, and what a reference thinks of every answer, log ρ: computed once, unless it moves.
    model_hash = begin(run, model_args, args, train)
    policy = Policy(loading.load_causal_lm(model_args, renderer.tokenizer, args.bf16))
    loading.check_length(policy.model, max(train.longest, held_out.longest))
    plan = make_plan(train, args, unit=objective.unit)
    engine = Engine(policy, args, plan.total_steps)
    self_test(engine, policy, train, args.dtype_name)
    stage = Stage(run, engine, renderer, held_out)
    extras = begin_extras(stage)
    sides = begin_sides(stage, objective, train, model_hash)

    # 3. What one batch teaches: prefer the better answer to the worse one more than the reference does.
    def read(model, batch, reference):
        logprobs_N = model(batch)
        logprobs_A = batch.sum_per_answer(logprobs_N)
        log_ratio_A = logprobs_A - reference.of(batch)
        inputs = INPUTS[objective.unit].of(batch, logprobs_A, log_ratio_A)
        if objective.tokens:
            inputs = inputs.with_tokens(batch, logprobs_N - reference.tokens_of(batch))
        return inputs

    def learn(model, batch, side=sides.train):
        inputs = read(model, batch, side.reference)
        return objective(inputs), inputs.metrics(dpo_args.beta)

    def learn_held_out(model, batch):
        return learn(model, batch, sides.held_out)

    def evaluation(step, epoch):
        look = sides.held_out.look(objective, read)
        measured = evaluate(engine, held_out, learn_held_out, args, unit=objective.unit, look=look)
        return {name: values.mean() for name, values in measured.items() if values.size}

    # 4. Train, save.
    def after_update():
        extras.after_update()
        sides.after_update()

    check_first = check_first_step(objective.at_start(), args, dpo_args.reference_model_name_or_path)
    steps = OfflineSteps(stage, plan, learn, after_update, check_first, look=sides.train.look(objective, read))
    Trainer(stage, steps, evaluation, extras, objective.states | sides.states()).fit()


if __name__ == "__main__":
    run_program(main)
