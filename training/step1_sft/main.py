"""Step 1, supervised fine-tuning: teach a model to answer by imitating demonstrations.

    cd training/step1_sft && bash run_tiny.sh

Reads demonstrations (docs/data.md), writes a folder that plain transformers, and the next stages, load.
"""

from __future__ import annotations

from argparse import ArgumentParser

try:
    import utils.errors  # noqa: F401
except ImportError:
    ArgumentParser().exit(2, "error: no environment is active; at the project's root: source training/environment.sh\n")

import numpy as np

from utils.arguments import parse
from utils.arguments.options import (
    DataArguments,
    ModelArguments,
    SamplingArguments,
    TrainingArguments,
    refuse_samples_without_evaluation,
)
from utils.engine.deepspeed_engine import Engine
from utils.model import loading
from utils.model.scoring import Policy, self_test
from utils.reporting import run_program
from utils.training.evaluation import evaluate
from utils.training.extras import begin_extras
from utils.training.run import Run
from utils.training.setup import begin, load_tokens, make_plan
from utils.training.stage import Stage
from utils.training.steps import OfflineSteps
from utils.training.trainer import Trainer


def main(argv: list[str] | None = None) -> None:
    groups = parse([ModelArguments, DataArguments, TrainingArguments, SamplingArguments], argv, __doc__)
    model_args, data_args, args, sampling_args = groups
    refuse_samples_without_evaluation(sampling_args, args)
    run = Run(args, groups, "step1_sft/main.py")
    if run.finished:
        return

    # 1. Demonstrations, as tokens.
    renderer, train, held_out = load_tokens(model_args, data_args, args, stage=1, kind="demonstrations")

    # 2. A model that can score every token of an answer.
    begin(run, model_args, args, train)
    policy = Policy(loading.load_causal_lm(model_args, renderer.tokenizer, args.bf16))
    loading.check_length(policy.model, max(train.longest, held_out.longest))
    plan = make_plan(train, args, unit="token")
    engine = Engine(policy, args, plan.total_steps)
    self_test(engine, policy, train, args.dtype_name)

    # 3. What one batch teaches: the answer's tokens and its stop token, never the prompt's. The mean of −log P over all
    # trained tokens of the global batch, which is the cross-entropy.
    def learn(model, batch):
        logprobs_N = model(batch)
        return -logprobs_N, {}

    def evaluation(step, epoch):
        nll = evaluate(engine, held_out, learn, args)["loss"].mean()
        return {"loss": nll, "perplexity": np.exp(nll)}

    # 4. Train, save.
    stage = Stage(run, engine, renderer, held_out)
    extras = begin_extras(stage)
    Trainer(stage, OfflineSteps(stage, plan, learn, extras.after_update), evaluation, extras).fit()


if __name__ == "__main__":
    run_program(main)
