"""The shared back end: what `model.generate` gives, whatever leaves the batch when, and log-probs that a packed forward
gives again."""

import copy
import dataclasses
import importlib.util

import numpy as np
import pytest
import torch
from toy_folders import peaked, toy_tokenizer
from toys import tiny_lm

from utils.engine.internals import attention_of
from utils.errors import UserError
from utils.generation import backends, hf, shared
from utils.generation.generate import complete, generate, generating
from utils.generation.request import GenerationRequest
from utils.generation.sampling import Sampling
from utils.generation.shared_attention import SHARED_PREFIX
from utils.model.batch import collate
from utils.model.scoring import Policy
from utils.tokens.group import group
from utils.tokens.templates import Renderer

FAMILIES = ["llama", "qwen3", "mistral", "gemma2", "gpt2", "opt"]
LENGTHS = (40, 7, 38, 25, 9, 31)  # mistral's and gemma2's window is 24
STOPS = tuple(range(3, 30))  # so many that answers end at many places


@pytest.fixture(scope="module")
def renderer():
    return Renderer(toy_tokenizer(), "plain")


@pytest.fixture(scope="module")
def prompts():
    draw = np.random.default_rng(0)
    return [draw.integers(5, 280, n).tolist() for n in LENGTHS]


def model_of(renderer, family="llama", **changes):
    model = tiny_lm(family, vocab_size=len(renderer.tokenizer), **changes).eval()
    return peaked(model, 1.0 if model.config.tie_word_embeddings else 12.0)  # tied ones would repeat themselves


def both(model, request):
    with generating(model):
        return [[c for several in backend.complete(model, request) for c in several] for backend in (shared, hf)]


@pytest.mark.parametrize("family", FAMILIES)
def test_tokens_and_logprobs_are_those_of_hf(family, renderer, prompts):
    """Greedy and drawn: rows draw by the same numbers whatever the back end."""
    model = model_of(renderer, family)
    for how in (Sampling(30, temperature=0), Sampling(30, num_samples=4, seed=5, stop_token_ids=STOPS)):
        mine, theirs = both(model, GenerationRequest(renderer, prompts, how, range(len(prompts))))
        assert [c.tokens for c in mine] == [c.tokens for c in theirs]
        gaps = [np.abs(np.subtract(a.logprobs, b.logprobs)).max() for a, b in zip(mine, theirs, strict=True)]
        assert max(gaps) <= 1e-5
        assert how.num_samples == 1 or len({len(c.tokens) for c in mine}) > 3  # they left at different times


@pytest.mark.parametrize("family", FAMILIES)
def test_logprobs_are_those_of_a_packed_forward(family, renderer, prompts):
    model = model_of(renderer, family)
    policy = Policy(copy.deepcopy(model))
    assert policy.packed
    with generating(model):
        how = Sampling(24, num_samples=3, seed=1, stop_token_ids=STOPS)
        found = shared.complete(model, GenerationRequest(renderer, prompts, how, range(len(prompts))))
    groups = [group(np.array(p), [c.tokens for c in several]) for p, several in zip(prompts, found, strict=True)]
    scored = policy(collate(groups, packed=True)).detach().numpy()
    assert np.abs(scored - np.concatenate([c.logprobs for several in found for c in several])).max() <= 1e-5


@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": 0.7, "top_k": 20, "top_p": 0.8},
        {"repetition_penalty": 1.5, "temperature": 0.0, "num_samples": 1},
        {"no_repeat_ngram_size": 2, "temperature": 0.8},
        {"min_new_tokens": 12},
        {"stop_strings": ("e", "be kind"), "stop_token_ids": (41, 42)},
    ],
    ids=lambda s: next(iter(s)),
)
def test_every_setting_is_honoured_as_hf_honours_it(settings, renderer, prompts):
    how = dataclasses.replace(Sampling(20, num_samples=3, seed=2), **settings)
    mine, theirs = both(model_of(renderer), GenerationRequest(renderer, prompts, how, range(len(prompts))))
    assert [c.tokens for c in mine] == [c.tokens for c in theirs]
    assert [c.text for c in mine] == [c.text for c in theirs]


def test_answers_do_not_depend_on_their_batch(renderer, prompts):
    model, how = model_of(renderer), Sampling(20, num_samples=3, seed=3, stop_token_ids=STOPS)
    together, alone = (generate(model, GenerationRequest(renderer, prompts, how), size) for size in (len(prompts), 1))
    assert [[c.tokens for c in s] for s in together] == [[c.tokens for c in s] for s in alone]


def test_prompts_of_any_length_share_no_padding_but_their_bucket(renderer, prompts):
    """A window that ends inside a prompt, prompts in several buckets, rows that leave one by one."""
    model = model_of(renderer, "mistral", sliding_window=8)
    how = Sampling(30, num_samples=5, seed=9, stop_token_ids=STOPS)
    mine, theirs = both(model, GenerationRequest(renderer, prompts, how, range(len(prompts))))
    assert [c.tokens for c in mine] == [c.tokens for c in theirs]


def test_a_model_that_cannot_be_read_is_answered_by_hf_with_the_reason(renderer, prompts, capsys):
    model = tiny_lm("falcon", vocab_size=len(renderer.tokenizer)).eval()
    generate(model, GenerationRequest(renderer, prompts[:2], Sampling(4, temperature=0)), 2)
    assert "hf instead of shared" in capsys.readouterr().out


def test_a_back_end_that_disagrees_is_refused(renderer, prompts, capsys, monkeypatch):
    """Keys of the wrong prompt: plausible numbers, wrong ones."""
    model = model_of(renderer)
    right = shared.SharedCache.fill

    def wrong(self):
        right(self)
        for bucket in self.buckets:
            bucket.keys = [k.flip(2) for k in bucket.keys]

    monkeypatch.setattr(shared.SharedCache, "fill", wrong)
    with generating(model):
        request = GenerationRequest(renderer, prompts, Sampling(6, temperature=0), range(len(prompts)))
        assert backends.choose(model, request, "shared") is hf.complete
    assert "log-probs differ" in capsys.readouterr().out


def test_vllm_is_imported_only_when_asked_for(renderer, prompts):
    if importlib.util.find_spec("vllm"):
        pytest.skip("vllm is installed here")
    with pytest.raises(UserError, match=r"needs the vllm package .* and a GPU"):
        generate(
            model_of(renderer), GenerationRequest(renderer, prompts[:1], Sampling(3, temperature=0)), 1, backend="vllm"
        )
    with pytest.raises(UserError, match="the back end 'vlm' is unknown; known: shared, hf, vllm"):
        generate(
            model_of(renderer), GenerationRequest(renderer, prompts[:1], Sampling(3, temperature=0)), 1, backend="vlm"
        )


def test_the_model_is_left_as_it_was(renderer, prompts):
    model = model_of(renderer)
    before = attention_of(model)
    tokens = []
    with generating(model):
        complete(model, GenerationRequest(renderer, prompts[:1], Sampling(5, temperature=0), [0], stream=tokens.append))
    assert attention_of(model) == before != SHARED_PREFIX
    assert [len(t) for t in tokens] == list(range(1, len(tokens) + 1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_lora_generates_unmerged(dtype, renderer, prompts):
    import peft

    model = model_of(renderer).to(dtype)
    adapted = peft.get_peft_model(model, peft.LoraConfig(r=4, target_modules=["q_proj", "up_proj"]))
    for name, p in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(p, std=0.2)
    how = Sampling(12, num_samples=2, seed=4)
    weights = {n: p.clone() for n, p in adapted.named_parameters()}
    with_adapter = generate(adapted, GenerationRequest(renderer, prompts, how), 6)
    assert all(torch.equal(p, weights[n]) for n, p in adapted.named_parameters())
    with adapted.disable_adapter():
        without = generate(adapted, GenerationRequest(renderer, prompts, how), 6)
    assert [[c.tokens for c in s] for s in with_adapter] != [[c.tokens for c in s] for s in without]
