"""Nothing to learn from, and numbers that are not finite: no update without a token, no number of a masked token in a
gradient, and every broken number named before a model is saved or answers."""

import json
import math

import in_process
import pytest
import torch
from in_process import PPO
from stages import demonstrations, toy_data, toy_model, weights
from test_loss_average import rollout, rollout_steps
from test_ppo import later_wins
from toy_folders import toy_tokenizer
from toys import tiny_lm

from utils.arguments.options import TrainingArguments
from utils.arguments.ppo import PPOArguments
from utils.engine import deepspeed_engine as engines
from utils.errors import UserError
from utils.generation.generate import generate
from utils.generation.request import GenerationRequest
from utils.generation.sampling import Sampling
from utils.losses.policy import clipped_policy_losses
from utils.model.batch import collate
from utils.model.scoring import Policy
from utils.model.writing import save
from utils.ppo.experience import Targets, experience_of, weights_of
from utils.ppo.learning import Learner
from utils.tokens.group import group
from utils.tokens.templates import Renderer
from utils.training.extras import Extras
from utils.training.nonfinite import refuse_nonfinite
from utils.training.run import Run
from utils.training.setup import make_plan
from utils.training.stage import Stage
from utils.training.steps import OfflineSteps, averages
from utils.training.trainer import Trainer

REWARD = "def yes(record):\n    return [float(a.text.split().count('yes')) for a in record.answers]\n"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    toy_model(folder / "model")
    toy_data(folder / "pairs", rows=64)
    demonstrations(folder / "demonstrations")
    (folder / "rewards.py").write_text(REWARD)
    return folder


def ppo(world, out, *flags):
    """The rows of metrics.jsonl; a number that JSON does not know is an error."""
    words = (
        "--max_answer_seq_len", "8", "--prompts_per_rollout", "8", "--samples_per_prompt", "2", "--max_steps", "3",
        "--eval_every", "never", "--checkpoint_every", "0", "--reward_fn", f"{world / 'rewards.py'}:yes", *flags,
    )  # fmt: skip
    assert in_process.run_stage(PPO, world / "model", world / "pairs", out, world / "cache", *later_wins(words)) == 0

    def refuse(constant):
        raise AssertionError(f"metrics.jsonl holds {constant}")

    return [json.loads(line, parse_constant=refuse) for line in (out / "metrics.jsonl").read_text().splitlines()]


NONE_FINISHED = ("--unfinished", "mask", "--truncate_at", "a text that no answer holds", "--weight_decay", "0.1")


def test_a_rollout_without_a_finished_answer_changes_nothing(world, tmp_path):
    rows = ppo(world, tmp_path / "out", *NONE_FINISHED, "--minibatches", "2")
    assert len(rows) == 3 and all(row["empty_updates"] == row["updates"] == 4 and row["finished"] == 0 for row in rows)
    assert not {"policy_loss", "loss", "value_loss", "gradient_norm"} & set(rows[0])
    before, after = weights(world / "model"), weights(tmp_path / "out")
    assert before.keys() == after.keys() and all(torch.equal(before[n], after[n]) for n in before)


def test_demonstrations_are_learned_all_the_same(world, tmp_path):
    ptx = ("--ptx_data_path", str(world / "demonstrations"), "--ptx_coef", "1")
    rows = ppo(world, tmp_path / "out", *NONE_FINISHED, *ptx)
    assert rows[-1]["ptx_loss"] < rows[0]["ptx_loss"] and rows[0]["learning_rate"] > 0
    assert "critic_learning_rate" not in rows[0] and "policy_loss" not in rows[0]


def test_a_rollout_of_one_token(world, tmp_path):
    one = ("--max_answer_seq_len", "1", "--prompts_per_rollout", "1", "--samples_per_prompt", "1", "--minibatches", "1")
    rows = ppo(world, tmp_path / "out", *one)
    assert rows[0]["tokens"] == 1 and rows[0]["advantage_std"] == 0


def test_demonstrations_do_not_depend_on_the_temperature_of_rollouts(world, tmp_path):
    ptx = ("--ptx_data_path", str(world / "demonstrations"), "--ptx_coef", "1")
    ptx = (*ptx, "--minibatches", "1", "--ppo_epochs", "1", "--max_steps", "1")
    plain, cold = (ppo(world, tmp_path / t, *ptx, "--temperature", t)[0]["ptx_loss"] for t in ("1", "0.5"))
    assert plain == pytest.approx(cold, rel=1e-6)


def test_an_infinite_ratio_in_an_unfinished_answer_teaches_nothing(world, tmp_path):
    """The rollout that a run had finished is read again with such log-probs: the weights end as they did."""
    flags = ("--unfinished", "mask", "--prompts_per_rollout", "32", "--max_steps", "2", "--checkpoint_every", "1")
    out = tmp_path / "out"
    ppo(world, out, *flags)
    whole = weights(out)
    (out / "finished.json").unlink()
    kept = out / "checkpoints" / "rollout-00000002.pt"
    rollouts = torch.load(kept, weights_only=False)
    changed = 0
    for r in rollouts["rollouts"]:
        of_answers = torch.from_numpy(r.old_logprobs).split([len(answer) for answer in r.group.answers])
        for finished, old in zip(r.finished, of_answers, strict=True):
            if not finished:
                old.fill_(-200.0)  # e^200 is infinite in float32
                changed += 1
    assert 0 < changed < 64
    torch.save(rollouts, kept)
    rows = ppo(world, out, *flags)
    assert rows[1]["entropy"] > 100
    after = weights(out)
    assert all(torch.equal(after[n], whole[n]) for n in whole)


# ------------------------------------------------------------------------------------------- masked numbers, one update


@pytest.fixture
def trainer(tmp_path):
    """make(learn, advantages) -> (steps of one learner, experience and targets: of four answers, the longest of each
    prompt is not learned from)."""

    def make(learn, advantages_N=None):
        args = TrainingArguments(output_dir=str(tmp_path), per_device_train_batch_size=2, max_steps=4,
                                 zero_stage=1, learning_rate=1e-2, report_to=["none"])  # fmt: skip
        options = PPOArguments(reward_fn="a:b", unfinished="mask", ppo_epochs=1, minibatches=1)
        experience = experience_of([rollout(n, [[0.0], [0.0, 0.0, 0.0]]) for n in range(2)])
        targets = Targets(weights_of(experience, options), torch.ones(8) if advantages_N is None else advantages_N)
        engines.start(args)
        engine = engines.Engine(Policy(tiny_lm(vocab_size=64)), args, 4)
        return rollout_steps(Run(args, [args]), options, Learner(engine, learn)), experience, targets

    return make


def is_finite(model):
    return all(bool(p.isfinite().all()) for p in model.parameters())


def learn_policy(model, batch, experience, targets):
    """The policy loss, as the program has it."""
    old_N = experience.in_batch(batch, experience.old_logprobs)
    logprobs_N = torch.where(experience.in_batch(batch, targets.learned), model(batch), old_N)
    losses_N = clipped_policy_losses(logprobs_N, old_N, experience.in_batch(batch, targets.advantages), 0.2)
    return losses_N, {"policy_loss": losses_N}


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_masked_number_reaches_neither_metrics_nor_gradient(trainer, bad):
    numbers_N = torch.tensor([1.0, bad, bad, bad, 1.0, bad, bad, bad])
    steps, experience, targets = trainer(learn_policy, numbers_N)
    # an infinite ratio: its gradient is NaN even where its loss counts nothing
    experience.old_logprobs[~targets.learned] = -bad
    experience.old_logprobs[targets.learned] = -4.0
    row = steps.update(1, experience, targets)
    assert all(map(math.isfinite, row.values())) and row["gradient_norm"] > 0 and row["skipped_update"] == 0
    assert is_finite(steps.learners[0].engine.module)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_number_that_is_learned_from_shows(trainer, bad, tmp_path):
    steps, experience, targets = trainer(learn_policy, torch.tensor([1.0, 0, 0, 0, bad, 0, 0, 0]))
    with pytest.raises(UserError, match=r"step 1: policy_loss is (nan|-inf|inf), not a finite number.*--learning_rate"):
        steps.update(1, experience, targets)
    kept = json.loads((tmp_path / "nonfinite.json").read_text())
    assert kept["step"] == 1 and len(kept["rollouts"]) == 2 and "inf" in kept["metrics"]["loss"] + "inf" * (bad != bad)


def broken_gradient(model, batch, *_):
    """A loss that is finite with a gradient that is not: the slope of a square root at 0."""
    losses_N = (model(batch) * 0).clamp(min=0).sqrt()
    return losses_N, {}


def test_skipped_updates_end_the_run_when_they_follow_each_other(trainer):
    steps, experience, targets = trainer(broken_gradient)
    for step in (1, 2):
        row = steps.update(step, experience, targets)
        assert row["skipped_update"] == 1 and "gradient_norm" not in row
    with pytest.raises(UserError, match="step 3: the gradients of 3 updates in a row were not finite"):
        steps.update(3, experience, targets)
    assert is_finite(steps.learners[0].engine.module)


def test_a_good_update_between_them_goes_on(trainer):
    steps, experience, targets = trainer(broken_gradient)
    for step, learn in enumerate([broken_gradient, broken_gradient, learn_policy] * 3, start=1):
        steps.learners[0].learn = learn
        assert steps.update(step, experience, targets)["skipped_update"] == (learn is broken_gradient)


def small_run(folder, zero_stage):
    args = TrainingArguments(output_dir=str(folder), per_device_train_batch_size=2, max_steps=4, zero_stage=zero_stage,
                             report_to=["none"])  # fmt: skip
    engines.start(args)
    groups = [group([5, 6, 7], [[8, 9, 2]]) for _ in range(8)]
    plan = make_plan(groups, args, "token")
    engine = engines.Engine(Policy(tiny_lm(vocab_size=64)), args, plan.total_steps)
    stage = Stage(Run(args, [args]), engine, None, held_out=groups)
    return OfflineSteps(stage, plan, broken_gradient, lambda: None)


def test_the_steps_of_the_other_stages_do_the_same(tmp_path):
    steps = small_run(tmp_path, zero_stage=1)
    rows = [steps.update(n) for n in (1, 2)]
    assert [row["skipped_update"] for row in rows] == [1, 1] and "gradient_norm" not in rows[0]
    with pytest.raises(UserError, match="step 3: the gradients of 3 updates in a row were not finite"):
        steps.update(3)
    steps.learn = lambda model, batch: (model(batch) * math.nan, {})
    with pytest.raises(UserError, match="step 4: loss is nan, not a finite number.*nonfinite.json; look at its rows"):
        steps.update(4)
    assert json.loads((tmp_path / "nonfinite.json").read_text())["rows"]


def test_a_broken_gradient_is_seen_where_deepspeed_skips_nothing(tmp_path):
    steps = small_run(tmp_path, zero_stage=0)
    with pytest.raises(UserError, match="step 1: gradient_norm is nan"):
        steps.update(1)
    norms = []
    for stage in (0, 1):
        steps = small_run(tmp_path / str(stage), zero_stage=stage)
        steps.learn = lambda model, batch: (-model(batch), {})
        norms.append(steps.update(1)["gradient_norm"])
    assert norms[0] == pytest.approx(norms[1], rel=1e-5) and norms[0] > 1.1  # before clipping, to 1.0


def test_an_evaluation_with_a_broken_number_is_refused(tmp_path):
    steps = small_run(tmp_path, zero_stage=1)
    trainer = Trainer(steps.stage, steps, lambda step, epoch: {"loss": math.nan}, Extras({}))
    with pytest.raises(UserError, match="eval/loss is nan, not a finite number.*look at the held-out data"):
        trainer.fit()
    assert json.loads((tmp_path / "nonfinite.json").read_text())["held_out_rows"] == 8


def test_a_step_that_was_taken_with_a_broken_norm_is_refused(tmp_path):
    args = TrainingArguments(output_dir=str(tmp_path), report_to=["none"])
    row = {"loss": 1.0, "skipped_update": 0.0, "gradient_norm": math.inf}
    with pytest.raises(UserError, match="step 7: gradient_norm is inf"):
        refuse_nonfinite(Run(args, [args]), 7, row, dict, "lower --learning_rate")


def test_a_metric_of_nothing_is_left_out():
    found = averages({"some": torch.tensor([6.0, 4.0]), "none": torch.tensor([0.0, 0.0])})
    assert found == {"some": 1.5}


# --------------------------------------------------------------------------------------------------- broken weights


@pytest.fixture
def broken():
    renderer = Renderer(toy_tokenizer("<pad>"), "plain")
    model = tiny_lm(vocab_size=len(renderer.tokenizer)).eval()
    return model, renderer


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("how", [{}, {"temperature": 0}, {"temperature": 0, "num_beams": 2}, {"top_p": 0.9}], ids=str)
@pytest.mark.parametrize("backend", ["shared", "hf"])
def test_a_broken_model_does_not_answer(broken, backend, how, value):
    model, renderer = broken
    answers = generate(model, GenerationRequest(renderer, [[5, 6], [7]], Sampling(4, **how)), 2, backend=backend)
    assert all(found[0].tokens for found in answers)
    with torch.no_grad():
        model.get_output_embeddings().weight[7] = value
    with pytest.raises(UserError, match="the model's logits are not finite; its weights are broken or diverged"):
        generate(model, GenerationRequest(renderer, [[5, 6], [7]], Sampling(4, **how)), 2, backend=backend)


def test_broken_weights_are_not_written_and_the_disk_is_not_blamed(broken, tmp_path):
    model, renderer = broken
    state = {n: t.clone() for n, t in model.named_parameters()}
    save(model, state, renderer, tmp_path / "good")
    name = "model.layers.1.mlp.gate_proj.weight"
    state[name][0, 0] = math.nan
    with pytest.raises(UserError) as error:
        save(model, state, renderer, tmp_path / "out")
    assert f"1 of its tensors hold NaN or infinite numbers, the first {name}" in str(error.value)
    assert "disk" not in str(error.value) and not (tmp_path / "out" / "config.json").exists()


def test_packed_rows_of_a_policy_take_another_temperature():
    policy = Policy(tiny_lm(vocab_size=64), temperature=0.5)
    batch = collate([group([5, 6], [[7, 8], [9]])], packed=policy.packed)
    plain = Policy(policy.model)
    assert torch.equal(policy(batch, temperature=1.0), plain(batch)) and not torch.equal(policy(batch), plain(batch))
