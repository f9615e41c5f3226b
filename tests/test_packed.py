"""A prompt computed once for its k answers gives what padded rows give: log-probs, scores, gradients."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from processes import environment
from toys import ROOT, tiny_lm, tiny_rm

from utils.errors import UserError
from utils.model.batch import collate
from utils.model.head import logprobs_of_logits
from utils.model.packed_attention import why_not_packed
from utils.model.reward_model import RewardModel
from utils.model.scoring import Policy, self_test
from utils.tokens.group import group

EXACT = ["llama", "qwen3", "mistral", "gemma2", "gpt2", "gpt_neox", "opt"]
PADDED = ["falcon", "mamba"]


def random_groups(seed=0, trained_prompt=False):
    draw = np.random.default_rng(seed)
    ids = lambda n: draw.integers(5, 200, n)  # noqa: E731
    shapes = [(40, [17, 9]), (7, [30, 22, 5]), (25, [3, 50]), (12, [31])]
    groups = []
    for prompt, answers in shapes:
        trained = np.arange(prompt) % 3 == 1 if trained_prompt else None
        groups.append(
            group(ids(prompt), [ids(n) for n in answers], [(0, len(answers) - 1)][: len(answers) - 1], trained)
        )
    return groups


def values_and_gradients(scorer, batch):
    values = scorer(batch)
    scorer.zero_grad()
    (values * torch.linspace(-1, 1, len(values))).sum().backward()
    return values.detach(), torch.cat([p.grad.flatten() for p in scorer.parameters() if p.grad is not None])


@pytest.mark.parametrize("family", EXACT)
@pytest.mark.parametrize("trained_prompt", [False, True])
def test_packed_equals_padded(family, trained_prompt):
    policy = Policy(tiny_lm(family).train())
    assert policy.packed
    groups = random_groups(trained_prompt=trained_prompt)
    padded_batch, packed_batch = (collate(groups, packed=packed) for packed in (False, True))
    padded, padded_gradient = values_and_gradients(policy, padded_batch)
    packed, packed_gradient = values_and_gradients(policy, packed_batch)
    assert (packed - padded).abs().max() <= 1e-5
    sums = [batch.sum_per_answer(values) for batch, values in ((padded_batch, padded), (packed_batch, packed))]
    assert (sums[0] - sums[1]).abs().max() <= 1e-4 and sums[0].abs().max() <= 300
    assert (packed_gradient - padded_gradient).norm() / padded_gradient.norm() <= 2e-6


@pytest.mark.parametrize("family", EXACT)
def test_reward_scores_packed_equal_padded(family):
    scorer = RewardModel(tiny_rm(family).train())
    groups = random_groups()
    padded, padded_gradient = values_and_gradients(scorer, collate(groups, packed=False))
    packed, packed_gradient = values_and_gradients(scorer, collate(groups, packed=True))
    assert packed.shape == (8,)
    assert (packed - padded).abs().max() <= 1e-5
    assert (packed_gradient - padded_gradient).norm() / padded_gradient.norm() <= 2e-6


def test_log_probs_by_plain_transformers():
    """The definition, with nothing of the project's in it: a forward of prompt + answer, log-softmax, gather, sum."""
    model, groups = tiny_lm(), random_groups()
    batch = collate(groups)
    ours = batch.sum_per_answer(Policy(model)(batch))
    model.set_attn_implementation("eager")
    plain = []
    for g in groups:
        for answer in g.answers:
            ids = torch.tensor(np.concatenate((g.prompt, answer))[None].astype(np.int64))
            logprobs = model(input_ids=ids).logits[0].log_softmax(-1)
            at = range(len(g.prompt), ids.shape[1])
            plain.append(sum(logprobs[t - 1, ids[0, t]] for t in at))
    assert torch.allclose(ours, torch.stack(plain), atol=1e-4)


def test_gradient_checkpointing_changes_nothing():
    policy, batch = Policy(tiny_lm().train()), collate(random_groups())
    values, gradient = values_and_gradients(policy, batch)
    policy.model.gradient_checkpointing_enable({"use_reentrant": False})
    again, gradient_again = values_and_gradients(policy, batch)
    assert torch.equal(values, again) and torch.allclose(gradient, gradient_again, atol=1e-7)


@pytest.mark.parametrize("family", PADDED)
def test_families_that_cannot_read_packed_rows_fall_back_and_say_why(family, capsys):
    model = tiny_lm(family)
    assert why_not_packed(model)
    policy = Policy(model)
    assert not policy.packed and "padded rows" in capsys.readouterr().out
    self_test(policy, policy, random_groups(), "fp32")


def test_the_self_test_catches_a_family_that_the_gate_lets_through(capsys):
    """A layout that hides the prompt from the second answer is what a stock backend would do."""
    model = tiny_lm()
    policy = Policy(model)
    attention = model.model.layers[0].self_attn
    plain_forward = attention.forward

    def forgets_the_prompt(*args, layout=None, **kwargs):
        if layout is not None:
            layout = type(layout)(tuple((0, (n,)) for n in layout.lengths))
        return plain_forward(*args, layout=layout, **kwargs)

    attention.forward = forgets_the_prompt
    self_test(policy, policy, random_groups(), "fp32")
    assert not policy.packed and "differs from padded" in capsys.readouterr().out


def test_the_self_test_reads_without_dropout_and_leaves_the_modes_alone(capsys):
    """--from_scratch --dropout 0.5: a model that is made from a config is in train mode."""
    policy = Policy(tiny_lm())
    for layer in policy.model.model.layers:
        layer.mlp = torch.nn.Sequential(layer.mlp, torch.nn.Dropout(0.5))
    policy.train()
    policy.model.model.norm.eval()
    modes = [module.training for module in policy.modules()]
    self_test(policy, policy, random_groups(), "fp32")
    assert policy.packed and not capsys.readouterr().out
    assert [module.training for module in policy.modules()] == modes and len(set(modes)) == 2


@pytest.mark.parametrize("packed_only", [True, False])
def test_too_little_memory_is_no_verdict_on_packed_rows(packed_only):
    policy = Policy(tiny_lm())
    plain_forward = policy.model.model.forward

    def needs_a_petabyte(*args, layout=None, **kwargs):
        if layout is not None or not packed_only:
            torch.empty(1 << 50, dtype=torch.uint8)
        return plain_forward(*args, layout=layout, **kwargs)

    policy.model.model.forward = needs_a_petabyte
    with pytest.raises(UserError, match="ran out of memory on 2 prompts.*lower --max_prompt_seq_len") as found:
        self_test(policy, policy, random_groups(), "fp32")
    assert found.value.on_this_rank and policy.packed


def test_all_ranks_fall_back_when_one_does(tmp_path):
    """The verdict of rank 1 alone, which cannot read packed rows."""
    worker = [ROOT / "tests" / "packing_worker.py", tmp_path]
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", *map(str, worker)]
    done = subprocess.run(words, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert [(tmp_path / f"{rank}").read_text() for rank in range(2)] == ["False", "False"]
    assert "llama: it cannot read packed rows: only rank 1 says so" in done.stdout


def test_token_logprobs_by_hand_and_gradient():
    logits = torch.tensor([[0.0, 1.0, 2.0], [1.0, 1.0, 1.0]], dtype=torch.float64, requires_grad=True)
    rows, targets = torch.tensor([0, 0, 1]), torch.tensor([2, 0, 1])
    out, _ = logprobs_of_logits(logits, rows, targets)
    # log-sum-exp of (0, 1, 2) is 2.4076060; of three ones 1 + log 3
    assert out.tolist() == pytest.approx([-0.4076060, -2.4076060, -1.0986123], abs=1e-6)
    weights = torch.tensor([1.0, 2.0, -0.5])
    (out * weights).sum().backward()
    other = logits.detach().clone().requires_grad_()
    (other.log_softmax(-1)[rows, targets] * weights).sum().backward()
    assert torch.allclose(logits.grad, other.grad, atol=1e-6)
