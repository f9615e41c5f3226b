"""DPO and reward models against TRL's trainers: the same model, pairs and AdamW give the same losses, step after step,
in float32."""

import pytest
import torch
from peer import hh_like_pairs, small_llama, small_reward_model, trl_reward_trainer, trl_trainer

from utils.arguments.options import TrainingArguments
from utils.engine import deepspeed_engine as engines
from utils.losses.inputs import PairInputs
from utils.losses.preference import LOSSES
from utils.losses.reward import bradley_terry
from utils.losses.reward_inputs import ScoredPairs
from utils.model.reward_model import RewardModel
from utils.model.scoring import Policy
from utils.training.reference import reference_logprobs
from utils.training.run import Run
from utils.training.setup import make_plan
from utils.training.stage import Stage
from utils.training.steps import OfflineSteps

pytest.importorskip("trl", reason="TRL is not installed: pip install -e '.[test]'")
VOCABULARY, STEPS, RATE = 300, 4, 2e-4


def our_losses(name, groups, folder):
    args = TrainingArguments(
        output_dir=str(folder / "run"), per_device_train_batch_size=len(groups), max_steps=STEPS, learning_rate=RATE,
        lr_scheduler_type="constant", adam_beta2=0.999, gradient_clipping=0.0, report_to=["none"],
    )  # fmt: skip
    policy = Policy(small_llama(VOCABULARY, hidden=64, layers=2))
    engines.start(args)
    plan = make_plan(groups, args, unit="pair")
    engine = engines.Engine(policy, args, plan.total_steps)
    reference = reference_logprobs(engine, groups, folder / "toy.sqlite", packed=True, count=4, budget=0)

    def learn(model, batch):
        ratio = batch.sum_per_answer(model(batch)) - reference.of(batch)
        pairs = PairInputs.of(batch, ratio, ratio)
        return LOSSES[name](pairs, beta=0.1), {"margin": 0.1 * pairs.delta}

    steps = OfflineSteps(Stage(Run(args, [args]), engine, None), plan, learn, lambda: None)
    return [steps.update(n)["loss"] for n in range(1, STEPS + 1)]


@pytest.mark.parametrize("ours, theirs", [("sigmoid", "sigmoid"), ("ipo_mean", "ipo")])
def test_losses_equal_those_of_trl(ours, theirs, tmp_path):
    groups = hh_like_pairs(6, VOCABULARY, longest=120)
    trainer = trl_trainer(
        small_llama(VOCABULARY, hidden=64, layers=2), groups, VOCABULARY, tmp_path / "trl",
        loss_type=[theirs], beta=0.1,
        per_device_train_batch_size=len(groups), max_steps=STEPS, learning_rate=RATE, max_grad_norm=0.0, bf16=False,
        gradient_checkpointing=False,
    )  # fmt: skip
    trainer.train()
    trl = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    found = our_losses(ours, groups, tmp_path / "ours")
    assert found == pytest.approx(trl, rel=2e-4)
    assert abs(found[0] - found[-1]) > 1e-3 and torch.tensor(found).isfinite().all()


def our_reward_losses(groups, folder):
    args = TrainingArguments(
        output_dir=str(folder), per_device_train_batch_size=len(groups), max_steps=STEPS, learning_rate=RATE,
        lr_scheduler_type="constant", adam_beta2=0.999, gradient_clipping=0.0, report_to=["none"],
    )  # fmt: skip
    reward = RewardModel(small_reward_model(VOCABULARY))
    engines.start(args)
    plan = make_plan(groups, args, unit="pair")
    engine = engines.Engine(reward, args, plan.total_steps)

    def learn(model, batch):
        scores = model(batch)
        return bradley_terry(ScoredPairs.of(batch, scores)), {}

    steps = OfflineSteps(Stage(Run(args, [args]), engine, None), plan, learn, lambda: None)
    return [steps.update(n)["loss"] for n in range(1, STEPS + 1)]


def test_reward_losses_equal_those_of_trl(tmp_path):
    groups = hh_like_pairs(6, VOCABULARY, longest=120)
    trainer = trl_reward_trainer(
        small_reward_model(VOCABULARY), groups, VOCABULARY, tmp_path / "trl", per_device_train_batch_size=len(groups),
        max_steps=STEPS, learning_rate=RATE, max_grad_norm=0.0, bf16=False, gradient_checkpointing=False,
    )  # fmt: skip
    trainer.train()
    trl = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    found = our_reward_losses(groups, tmp_path / "ours")
    assert found == pytest.approx(trl, rel=2e-4)
    assert abs(found[0] - found[-1]) > 1e-3
