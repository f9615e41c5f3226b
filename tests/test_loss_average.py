"""The two averages of PPO's loss: over a minibatch's tokens, and over answers of their tokens' means (Shao et al. 2024,
eq. 3), however the minibatch is divided into forward passes and ranks."""

import numpy as np
import pytest
import torch
from stages import metrics, run_stage, toy_data, toy_model
from test_ppo_resume import REWARD
from toys import tiny_lm

from utils.arguments.options import TrainingArguments
from utils.arguments.ppo import PPOArguments
from utils.engine import deepspeed_engine as engines
from utils.model.batch import collate
from utils.model.scoring import Policy
from utils.ppo.experience import Rollout, Targets, experience_of, weights_of
from utils.ppo.learning import Learner
from utils.ppo.steps import RolloutSteps
from utils.tokens.group import group
from utils.training.run import Run
from utils.training.stage import Stage

# two prompts, two answers to each: a number of every token
NUMBERS = [[[6.0], [1.0, 2.0, 3.0]], [[4.0, 4.0], [0.0, 2.0]]]
BY_HAND = {
    ("token", "keep"): (6 + 6 + 8 + 2) / 8,
    ("answer", "keep"): (6 + 2 + 4 + 1) / 4,
    ("token", "mask"): (6 + 8 + 2) / 5,  # the answer of three tokens has no end
    ("answer", "mask"): (6 + 4 + 1) / 3,
}


def rollout(number, answers):
    draw = np.random.default_rng(number)
    ids = [draw.integers(3, 60, len(a)) for a in answers]
    old = np.concatenate([np.float32(a) for a in answers])
    return Rollout(number, number, group(draw.integers(3, 60, 4), ids), ["", ""], [len(a) < 3 for a in answers], old)


def rollout_steps(run, options, learner):
    """RolloutSteps whose update() is tried: they answer no prompts."""
    prompts = range(4 * options.prompts_per_rollout)
    return RolloutSteps(
        Stage(run, learner.engine, None),
        options,
        maker=None,
        train=prompts,
        held_out=(),
        targets_of=None,
        learners=[learner],
        after_update=lambda: None,
    )


def one_update(folder, average, unfinished, learn, per_device):
    """(the row of metrics of one update, the experience, the policy as it was before)."""
    args = TrainingArguments(output_dir=str(folder), per_device_train_batch_size=per_device, max_steps=4,
                             zero_stage=1, gradient_clipping=0.0, report_to=["none"])  # fmt: skip
    options = PPOArguments(reward_fn="a:b", loss_average=average, unfinished=unfinished, ppo_epochs=1, minibatches=1)
    experience = experience_of([rollout(n, answers) for n, answers in enumerate(NUMBERS)])
    targets = Targets(weights_of(experience, options), advantages=experience.old_logprobs)
    engines.start(args)
    engine = engines.Engine(Policy(tiny_lm(vocab_size=64)), args, 4)
    steps = rollout_steps(Run(args, [args]), options, Learner(engine, learn))
    return steps.update(1, experience, targets), experience, Policy(tiny_lm(vocab_size=64))


@pytest.mark.parametrize("per_device", [1, 2])
@pytest.mark.parametrize("average, unfinished", BY_HAND)
def test_the_loss_worked_by_hand(tmp_path, average, unfinished, per_device):
    def learn(model, batch, experience, targets):
        numbers_N = experience.in_batch(batch, experience.old_logprobs)
        return model(batch) * 0 + numbers_N, {"number": numbers_N}

    row, _, _ = one_update(tmp_path, average, unfinished, learn, per_device)
    assert row["loss"] == pytest.approx(BY_HAND[average, unfinished], rel=1e-6)
    assert row["number"] == pytest.approx(BY_HAND["token", unfinished], rel=1e-6)  # metrics are means over tokens


@pytest.mark.parametrize("per_device", [1, 2])
@pytest.mark.parametrize("average, unfinished", BY_HAND)
def test_the_gradient_is_that_of_the_average(tmp_path, average, unfinished, per_device):
    row, experience, policy = one_update(
        tmp_path, average, unfinished, lambda model, batch, experience, targets: (-model(batch), {}), per_device
    )
    losses_N = -policy(collate([r.group for r in experience.rollouts], packed=policy.packed))
    answers = [a for a in losses_N.split(experience.lengths) if unfinished == "keep" or len(a) < 3]
    loss = torch.stack([a.mean() for a in answers]).mean() if average == "answer" else torch.cat(answers).mean()
    loss.backward()
    norm = torch.stack([p.grad.norm() for p in policy.parameters() if p.grad is not None]).norm()
    assert row["loss"] == pytest.approx(float(loss.detach()), rel=1e-5)
    assert row["gradient_norm"] == pytest.approx(float(norm), rel=1e-4)


def test_presets_say_which_average():
    presets = {
        name: PPOArguments(reward_fn="a:b", preset=name) for name in ("plumbline", "dschat", "grpo", "grpo_token")
    }
    assert {n: o.loss_average for n, o in presets.items() if o.loss_average == "answer"} == {"grpo": "answer"}
    grpo, token = (vars(presets[name]) for name in ("grpo", "grpo_token"))
    assert {name for name in grpo if grpo[name] != token[name]} == {"preset", "loss_average"}


def test_the_kl_in_the_loss_is_not_estimated_by_k1():
    """Its expected gradient is zero: E_π[∇(log π − log ρ)] = ∇ Σ π = 0."""
    estimates = {
        flags: PPOArguments(reward_fn="a:b", **dict(flags)).kl_estimate
        for flags in [(), (("kl_in", "loss"),), (("preset", "grpo"),), (("kl_in", "loss"), ("kl_estimate", "k2"))]
    }
    assert list(estimates.values()) == ["k1", "k3", "k3", "k2"]


@pytest.mark.parametrize("preset", ["grpo", pytest.param("grpo_token", marks=pytest.mark.full)])
def test_ranks_and_forward_passes_do_not_change_it(tmp_path, preset):
    """8 x 1, 2 x 4 and two ranks: one gradient; and the two presets differ."""
    toy_model(tmp_path / "model")
    toy_data(tmp_path / "pairs", rows=24)
    (tmp_path / "rewards.py").write_text(REWARD)

    def first_row(name, per_device, preset=preset, ranks=1):
        flags = (
            "--preset", preset, "--max_answer_seq_len", "8", "--prompts_per_rollout", "16", "--samples_per_prompt", "4",
            "--max_steps", "1", "--zero_stage", "1", "--eval_every", "never", "--gradient_clipping", "0",
            "--per_device_train_batch_size", per_device, "--reward_fn", f"{tmp_path / 'rewards.py'}:yes",
        )  # fmt: skip
        run_stage("step3_ppo", tmp_path / "model", tmp_path / "pairs", tmp_path / name, *flags, ranks=ranks)
        return metrics(tmp_path / name)[0]

    whole = first_row("whole", "8")
    for other in (first_row("passes", "2"), first_row("ranks", "4", ranks=2)):
        assert {n: other[n] for n in ("loss", "gradient_norm", "policy_loss", "ratio")} == pytest.approx(
            {n: whole[n] for n in ("loss", "gradient_norm", "policy_loss", "ratio")}, abs=1e-7, rel=1e-5
        )
    if preset == "grpo":
        other = first_row("other", "8", preset="grpo_token")
        assert other["score"] == whole["score"]
        assert other["gradient_norm"] != pytest.approx(whole["gradient_norm"], 0.01)
