"""The head in chunks: the numbers and gradients of whole logits, for each kind of head, and what bfloat16 loses."""

import math

import pytest
import torch
from test_packed import random_groups
from toys import tiny_lm

from utils.model.batch import collate
from utils.model.head import Head, logprobs
from utils.model.lora import add_lora
from utils.model.scoring import Policy, self_test

FAMILIES = ["llama", "qwen3", "mistral", "gemma2", "gpt2", "gpt_neox", "opt", "cohere", "granite", "phi", "gptj"]
CHANGES = {
    "gemma2": {"final_logit_softcapping": 3.0},
    "cohere": {"logit_scale": 0.3},
    "granite": {"logits_scaling": 4.0},
    "phi": {"num_key_value_heads": 4},
    "gptj": dict(n_embd=64, n_layer=3, n_head=4, n_positions=256, rotary_dim=8),
}


@pytest.fixture(params=["kept", "computed again"])
def small_chunks(request, monkeypatch):
    """Blocks of 8 positions; one chunk, whose logits are kept for backward, or chunks of 8."""
    monkeypatch.setattr(logprobs, "FEWEST", 8)
    monkeypatch.setattr(logprobs, "MOST", 8)
    if request.param == "computed again":
        monkeypatch.setattr(logprobs, "CHUNK", 0)


def model_of(family):
    model = tiny_lm(family, **CHANGES.get(family, {}))
    if model.get_output_embeddings().bias is not None:
        torch.nn.init.normal_(model.get_output_embeddings().bias)
    return model


def teach(policy, batch, entropy=False, **options):
    """(log-probs, entropies, the gradient of every parameter) of a weighted sum of log-probs and squared entropies."""
    policy.zero_grad()
    logprobs_N, entropy_N = policy(batch, entropy=True, **options)
    weights_N = torch.linspace(-1, 1, len(logprobs_N))
    ((logprobs_N.float() * weights_N).sum() + entropy * entropy_N.square().sum()).backward()
    gradients = {n: p.grad.clone() for n, p in policy.named_parameters() if p.grad is not None}
    return logprobs_N.detach(), entropy_N.detach(), gradients


def assert_equal(found, expected, tolerance=1e-5, relative=1e-6):
    for mine, theirs in zip(found[:2], expected[:2], strict=True):
        torch.testing.assert_close(mine, theirs, atol=tolerance, rtol=tolerance)
    assert found[2].keys() == expected[2].keys()
    error = math.sqrt(sum(float((found[2][n] - g).square().sum()) for n, g in expected[2].items()))
    assert error <= relative * math.sqrt(sum(float(g.square().sum()) for g in expected[2].values()))


@pytest.mark.parametrize("packed", [True, False], ids=["packed", "padded"])
@pytest.mark.parametrize("family", FAMILIES)
def test_chunks_give_the_numbers_of_whole_logits(family, packed, small_chunks):
    """Whole logits are those of the family's own forward: soft caps, logit scales and biases are its own code."""
    policy = Policy(model_of(family), temperature=0.7)
    batch = collate(random_groups(), packed=packed and policy.packed)
    assert policy.head is not None and len(batch.logit_positions) > 32
    found = teach(policy, batch, entropy=True)
    policy.chunked = False
    assert_equal(found, teach(policy, batch, entropy=True))


@pytest.mark.parametrize("all_weights", [False, True], ids=["adapter alone", "all weights"])
@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_a_head_with_an_adapter(tied, all_weights, small_chunks, lora_args):
    model = tiny_lm("llama", tie_word_embeddings=tied)
    lora_args.only_optimize_lora = not all_weights
    model = add_lora(model, lora_args)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    policy, batch = Policy(model), collate(random_groups())
    assert policy.head.lora_a is not None
    found = teach(policy, batch, entropy=True)
    with model.disable_adapter():
        without = policy(batch)
    policy.chunked = False
    assert_equal(found, teach(policy, batch, entropy=True))
    with model.disable_adapter():
        torch.testing.assert_close(without, policy(batch), atol=1e-5, rtol=1e-5)


@pytest.fixture
def lora_args():
    from utils.arguments.options import ModelArguments

    return ModelArguments("toy", lora_dim=4, lora_target_modules=["lm_head", "q_proj"])


def test_distributions_are_those_of_the_model_and_temperature_can_be_given():
    policy, batch = Policy(tiny_lm("gemma2", final_logit_softcapping=3.0), temperature=0.5), collate(random_groups())
    found = policy(batch, distributions=True)
    assert torch.allclose(found.exp().sum(-1), torch.ones(len(found)), atol=1e-5)
    at_one = policy(batch, temperature=1.0)
    assert torch.allclose(found[torch.arange(len(found)), batch.targets], at_one, atol=1e-5)
    assert (policy(batch) - at_one).abs().max() > 0.1


def test_what_is_unknown_is_left_to_the_model(capsys):
    model = tiny_lm("llama")
    model.config.logits_soft_cap = 30.0
    assert Policy(model).head is None and "logits_soft_cap" in capsys.readouterr().out
    model = tiny_lm("llama")
    model.lm_head = torch.nn.Sequential(model.lm_head)
    assert Policy(model).head is None and "Sequential" in capsys.readouterr().out


def test_the_self_test_finds_a_family_that_does_more_to_its_logits(capsys):
    model = tiny_lm("llama")
    forward = model.forward

    def sharper(*args, **kwargs):
        output = forward(*args, **kwargs)
        output.logits = output.logits * 3
        return output

    model.forward = sharper
    policy, batch = Policy(model), collate(random_groups())
    self_test(policy, policy, random_groups(), "fp32")
    assert not policy.chunked and policy.packed and "log-probs differ" in capsys.readouterr().out
    torch.testing.assert_close(policy(batch), policy(collate(random_groups(), packed=False)), atol=1e-5, rtol=1e-5)


class _OneLayer:
    """What Head asks of a model, around a linear layer."""

    def __init__(self, words: int, width: int, dtype) -> None:
        self.layer = torch.nn.Linear(width, words, bias=False, dtype=dtype)
        self.config = tiny_lm("llama").config

    def get_output_embeddings(self):
        return self.layer


@pytest.mark.parametrize("probability", [0.97, 0.99, 0.998, 0.9995])
def test_bfloat16_keeps_the_gradient_of_confident_tokens(probability):
    """d log P / d logit of the target is 1 − P: rounded −P plus one has lost it all from P = 0.998."""
    words, width = 64, 64
    model = _OneLayer(words, width, torch.bfloat16)
    gap = math.log(probability / (1 - probability) * (words - 1))
    with torch.no_grad():
        model.layer.weight.zero_().fill_diagonal_(1.0)
    hidden = torch.zeros(1, width, dtype=torch.bfloat16)
    hidden[0, 7] = gap
    hidden.requires_grad_()
    logprob, _ = Head(model)(hidden, torch.tensor([0]), torch.tensor([7]))
    logprob.sum().backward()
    exact = 1 - float(hidden.detach().double().softmax(-1)[0, 7])
    assert float(hidden.grad[0, 7]) == pytest.approx(exact, rel=0.004)  # half a step of bfloat16


def test_gradients_of_chunks_are_summed_in_float32(monkeypatch):
    """Many chunks of like gradients: in bfloat16 the sum would stop growing."""
    monkeypatch.setattr(logprobs, "FEWEST", 1)
    monkeypatch.setattr(logprobs, "CHUNK", 0)
    model, positions = _OneLayer(8, 8, torch.bfloat16), 2048
    hidden = torch.ones(positions, 8, dtype=torch.bfloat16)
    found, _ = Head(model)(hidden, torch.arange(positions), torch.zeros(positions, dtype=torch.int64))
    found.sum().backward()
    weight = model.layer.weight.detach().float().requires_grad_()
    (hidden.float() @ weight.T).log_softmax(-1)[:, 0].sum().backward()
    assert torch.allclose(model.layer.weight.grad.float(), weight.grad, rtol=0.01)


def test_bfloat16_log_probs_are_closer_to_float32_than_rounded_logits():
    """At logits of magnitude 16 to 32 a step of bfloat16 is 0.125: the trained token's own logit is exact here."""
    torch.manual_seed(0)
    model, positions = _OneLayer(500, 256, torch.bfloat16), 400
    with torch.no_grad():
        model.layer.weight.normal_(std=0.6)
    hidden = torch.randn(positions, 256).bfloat16()
    rows, targets = torch.arange(positions), (hidden @ model.layer.weight.T).argmax(-1)
    exact = (hidden.double() @ model.layer.weight.double().T).log_softmax(-1)[rows, targets]
    rounded = (hidden @ model.layer.weight.T).float().log_softmax(-1)[rows, targets]
    found = Head(model)(hidden, rows, targets)[0]
    assert float(found.detach().max()) <= 0
    assert (found - exact).abs().mean() < 0.6 * (rounded - exact).abs().mean()
