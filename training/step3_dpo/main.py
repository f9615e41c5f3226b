"""Step 3, direct preference optimisation: teach the policy from comparisons, with no reward model in between.

    cd training/step3_dpo && bash run_tiny.sh

Reads comparisons (docs/data.md), writes a folder that plain transformers loads. Rafailov et al. 2023, arXiv:2305.18290.
"""

from __future__ import annotations

from argparse import ArgumentParser
from dataclasses import dataclass
from typing import ClassVar

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
    option,
    refuse_dropout,
    refuse_samples_without_evaluation,
)
from utils.engine.deepspeed_engine import Engine
from utils.errors import UserError
from utils.losses import accuracy
from utils.losses.preference import LOSSES, LogRatios
from utils.model import loading
from utils.model.scoring import Policy, self_test
from utils.reporting import run_program
from utils.training.evaluation import evaluate
from utils.training.extras import begin_extras
from utils.training.reference import check_first_step, references
from utils.training.run import Run
from utils.training.setup import begin, load_tokens, make_plan
from utils.training.stage import Stage
from utils.training.steps import OfflineSteps
from utils.training.trainer import Trainer


@dataclass
class DPOArguments:
    AT_THE_TOP: ClassVar[bool] = True

    loss: str = option(
        "sigmoid",
        help=f"preference loss; one of {', '.join(sorted(LOSSES))} (utils/losses/preference.py)",
        title="Loss",
        first=True,
    )
    beta: float = option(0.1, help="how strongly the policy is held to the reference", first=True)
    label_smoothing: float = option(0.0, help="assumed share of wrong labels; for the losses that use it (cdpo)")
    reference_model_name_or_path: str | None = option(
        help="reference model; None: the model that training starts from", first=True
    )

    def __post_init__(self) -> None:
        if self.loss not in LOSSES:
            raise UserError(f"--loss {self.loss} is unknown; known: {', '.join(sorted(LOSSES))}")
        if self.label_smoothing and not LOSSES[self.loss].smooths:
            raise UserError(f"--loss {self.loss} does not use --label_smoothing; cdpo does")
        if self.beta <= 0 or not 0 <= self.label_smoothing < 0.5:
            raise UserError(
                f"--beta is {self.beta}, --label_smoothing {self.label_smoothing}; expected above 0, and 0 to 0.5"
            )


def main(argv: list[str] | None = None) -> None:
    groups = parse([ModelArguments, DataArguments, TrainingArguments, SamplingArguments, DPOArguments], argv, __doc__)
    model_args, data_args, args, sampling_args, dpo_args = groups
    refuse_dropout(model_args)
    refuse_samples_without_evaluation(sampling_args, args)
    run = Run(args, groups, "step3_dpo/main.py")
    if run.finished:
        return

    # 1. Comparisons, as tokens.
    renderer, train, held_out = load_tokens(model_args, data_args, args, stage=3, kind="comparisons")

    # 2. A policy that learns, and what a frozen reference thinks of every answer: log ρ, computed once.
    model_hash = begin(run, model_args, args, train)
    policy = Policy(loading.load_causal_lm(model_args, renderer.tokenizer, args.bf16))
    loading.check_length(policy.model, max(train.longest, held_out.longest))
    plan = make_plan(train, args, unit="pair")
    engine = Engine(policy, args, plan.total_steps)
    self_test(engine, policy, train, args.dtype_name)
    stage = Stage(run, engine, renderer, held_out)
    extras = begin_extras(stage)
    other = dpo_args.reference_model_name_or_path
    of_train, of_held_out = references(engine, [train, held_out], model_args, args, model_hash=model_hash, other=other)

    # 3. What one batch teaches: prefer the chosen answer to the rejected one more than the reference does.
    def learn(model, batch, reference=of_train):
        logprobs_A = batch.sum_per_answer(model(batch))
        log_ratio_A = logprobs_A - reference.of(batch)
        pairs = LogRatios(
            chosen=log_ratio_A[batch.chosen], rejected=log_ratio_A[batch.rejected],
            chosen_tokens=batch.answer_tokens[batch.chosen], rejected_tokens=batch.answer_tokens[batch.rejected],
            beta=dpo_args.beta, label_smoothing=dpo_args.label_smoothing,
        )  # fmt: skip
        return LOSSES[dpo_args.loss].losses(pairs), {
            "accuracy": accuracy(pairs.delta),
            "margin": dpo_args.beta * pairs.delta,
            "chosen_reward": dpo_args.beta * pairs.chosen,
            "rejected_reward": dpo_args.beta * pairs.rejected,
            "chosen_logprob": logprobs_A[batch.chosen],
            "rejected_logprob": logprobs_A[batch.rejected],
        }

    def learn_held_out(model, batch):
        return learn(model, batch, of_held_out)

    def evaluation(step, epoch):
        measured = evaluate(engine, held_out, learn_held_out, args)
        return {name: values.mean() for name, values in measured.items()}

    # 4. Train, save.
    at_start = LOSSES[dpo_args.loss].at_start(dpo_args.beta, dpo_args.label_smoothing)
    steps = OfflineSteps(stage, plan, learn, extras.after_update, check_first_step(at_start, args, other))
    Trainer(stage, steps, evaluation, extras).fit()


if __name__ == "__main__":
    run_program(main)
