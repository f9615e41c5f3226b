"""Generation: equal to the model's own arithmetic, independent of its batch, honest about where an answer ends."""

import copy

import numpy as np
import pytest
import torch
from toy_folders import peaked, toy_tokenizer
from toys import tiny_lm

from utils.engine.internals import attention_of
from utils.errors import UserError
from utils.generation.generate import generate
from utils.generation.request import GenerationRequest
from utils.generation.sampling import RepetitionPenalty, Sampling
from utils.model.batch import collate
from utils.model.packed_attention import PACKED
from utils.model.scoring import Policy
from utils.records import Message
from utils.tokens.group import group
from utils.tokens.templates import Renderer

TEXTS = ["hello", "what is two plus three? be kind, be kind", "five is it", "kind"]


@pytest.fixture(scope="module", params=["</s>", "<pad>"], ids=["pad is end", "pad is its own"])
def renderer(request):
    return Renderer(toy_tokenizer(request.param), "human_assistant")


@pytest.fixture(scope="module")
def model(renderer):
    return peaked(tiny_lm(vocab_size=len(renderer.tokenizer))).eval()


@pytest.fixture(scope="module")
def prompts(renderer):
    return [renderer.prompt_ids([Message("user", text)]) for text in TEXTS]


@torch.no_grad()
def logits_after(model, ids):
    return model(torch.tensor([ids])).logits[0, -1]


def answered(model, renderer, prompts, sampling, batch_size, numbers=None):
    return generate(model, GenerationRequest(renderer, prompts, sampling, numbers), batch_size)


def tokens(completions):
    return [[c.tokens for c in several] for several in completions]


def test_greedy_is_the_argmax_of_each_prompt_alone(model, renderer, prompts):
    """No cache, no batch, no padding: one forward a token. Log-probs are those of the model, and of the scorer."""
    found = answered(model, renderer, prompts, Sampling(9, temperature=0), batch_size=4)
    for prompt, (completion,) in zip(prompts, found, strict=True):
        ids = list(prompt)
        for token, logprob in zip(completion.tokens, completion.logprobs, strict=True):
            logits = logits_after(model, ids)
            assert token == int(logits.argmax())
            assert logprob == pytest.approx(float(logits.log_softmax(-1)[token]), abs=1e-4)
            ids.append(token)
        policy = Policy(copy.deepcopy(model))
        scored = policy(collate([group(prompt, [completion.tokens])], packed=policy.packed))
        assert np.allclose(scored.detach(), completion.logprobs, atol=1e-4)


@pytest.mark.parametrize("family", ["gpt2", "opt", "gemma2", "mistral"])
def test_left_padding_is_not_seen(family, renderer, prompts):
    model = peaked(tiny_lm(family, vocab_size=len(renderer.tokenizer))).eval()
    how = Sampling(6, temperature=0)
    together, alone = (answered(model, renderer, prompts, how, batch_size) for batch_size in (4, 1))
    assert tokens(together) == tokens(alone)
    for (a,), (b,) in zip(together, alone, strict=True):
        assert np.allclose(a.logprobs, b.logprobs, atol=1e-4)


@pytest.mark.parametrize(
    "more", [{}, {"repetition_penalty": 1.5, "no_repeat_ngram_size": 2}, {"top_k": 5, "top_p": 0.8}]
)
def test_what_is_drawn_depends_on_the_row_alone(model, renderer, prompts, more):
    how = Sampling(8, num_samples=3, seed=5, temperature=0.8, **more)
    together = tokens(answered(model, renderer, prompts, how, 4))
    assert together == tokens(answered(model, renderer, prompts, how, 1))
    assert together[2:] == tokens(answered(model, renderer, prompts[2:], how, 2, numbers=[2, 3]))
    assert together != tokens(
        answered(model, renderer, prompts, Sampling(8, num_samples=3, seed=6, temperature=0.8, **more), 4)
    )
    assert len({tuple(t) for t in together[0]}) > 1
    same = tokens(answered(model, renderer, [prompts[0], prompts[0]], how, 2))
    assert same[0] == together[0] != same[1]


def test_logprobs_are_of_the_raw_distribution(model, renderer, prompts):
    """Whatever was held back or sharpened when the tokens were drawn."""
    how = Sampling(8, temperature=0.5, top_k=5, top_p=0.9, repetition_penalty=1.3, num_samples=2)
    for prompt, several in zip(prompts, answered(model, renderer, prompts, how, 4), strict=True):
        for completion in several:
            with torch.no_grad():
                logits = model(torch.tensor([[*prompt, *completion.tokens]])).logits[0, len(prompt) - 1 : -1]
            expected = logits.log_softmax(-1).gather(-1, torch.tensor(completion.tokens)[:, None])[:, 0]
            assert np.allclose(completion.logprobs, expected, atol=1e-4)


def test_samples_follow_the_distribution(model, renderer, prompts):
    """4,000 first tokens at temperature 0.7, top_k 3: shares within four standard errors of softmax(logits / 0.7)."""
    n = 4000
    how = Sampling(1, num_samples=n, temperature=0.7, top_k=3, seed=1)
    ((*drawn,),) = tokens(answered(model, renderer, prompts[:1], how, 1))
    top = (logits_after(model, prompts[0]) / 0.7).topk(3)
    share = top.values.softmax(-1)
    for token, p in zip(top.indices.tolist(), share.tolist(), strict=True):
        assert drawn.count([token]) / n == pytest.approx(p, abs=4 * (p * (1 - p) / n) ** 0.5)
    assert {t for (t,) in drawn} <= set(top.indices.tolist())


def test_the_stop_token_belongs_to_the_answer(model, renderer, prompts):
    """The third greedy token, made a stop token, ends the answer there, whatever the padding is called."""
    free = answered(model, renderer, prompts, Sampling(8, temperature=0), 4)
    for n, (completion,) in enumerate(free):
        stop = completion.tokens[2]
        first = completion.tokens.index(stop)
        ((cut,),) = answered(model, renderer, [prompts[n]], Sampling(8, temperature=0, stop_token_ids=(stop,)), 1)
        assert cut.tokens == completion.tokens[: first + 1] and cut.finished and len(cut.logprobs) == first + 1
        assert not completion.finished and len(completion.tokens) == 8


def test_an_end_token_counts_once_beside_longer_answers(renderer, prompts):
    """A model that likes to stop: at the first end token, though pad may be the same token."""
    model = peaked(tiny_lm(vocab_size=len(renderer.tokenizer))).eval()
    head, eos = model.lm_head.weight.data, renderer.tokenizer.eos_token_id
    head[eos] = head[int(logits_after(model, prompts[0]).argmax())]
    found = [c for several in answered(model, renderer, prompts, Sampling(30, num_samples=4), 4) for c in several]
    assert any(c.finished for c in found) and len({len(c.tokens) for c in found}) > 1
    for c in found:
        assert c.tokens.count(eos) == int(c.finished) and (c.tokens[-1] == eos) == c.finished
        assert renderer.tokenizer.eos_token not in c.text and (c.finished or len(c.tokens) == 30)


def test_min_new_tokens_holds_stop_tokens_back(model, renderer, prompts):
    ((free,),) = answered(model, renderer, prompts[:1], Sampling(8, temperature=0), 1)
    stop = free.tokens[0]
    how = Sampling(8, temperature=0, stop_token_ids=(stop,))
    ((at_once,),) = answered(model, renderer, prompts[:1], how, 1)
    assert at_once.tokens == [stop]
    ((later,),) = answered(
        model, renderer, prompts[:1], Sampling(8, min_new_tokens=4, temperature=0, stop_token_ids=(stop,)), 1
    )
    assert len(later.tokens) >= 4 and stop not in later.tokens[:4]


def test_a_stop_string_cuts_the_text(model, renderer, prompts):
    """It may begin anywhere in a token and span several."""
    ((free,),) = answered(model, renderer, prompts[:1], Sampling(10, temperature=0), 1)
    stop = free.text[3:6]
    for others in ([], prompts[1:]):
        found = answered(model, renderer, [prompts[0], *others], Sampling(10, temperature=0, stop_strings=(stop,)), 4)[
            0
        ][0]
        assert found.text == free.text[: free.text.index(stop)] and found.finished
        assert found.tokens == free.tokens[: len(found.tokens)] and len(found.tokens) < 10


def test_repetition_penalty_ignores_padding(model, renderer, prompts):
    how = Sampling(8, temperature=0, repetition_penalty=3.0)
    assert tokens(answered(model, renderer, prompts, how, 4)) == tokens(answered(model, renderer, prompts, how, 1))
    assert tokens(answered(model, renderer, prompts, how, 4)) != tokens(
        answered(model, renderer, prompts, Sampling(8, temperature=0), 4)
    )


def test_repetition_penalty_by_hand():
    """Penalty 2 halves positive scores and doubles negative ones of tokens seen; token 0 is seen in the second row,
    where it is no padding."""
    mask = torch.tensor([[0, 0, 1], [1, 1, 1]])
    ids = torch.tensor([[0, 0, 2, 3], [0, 1, 1, 3]])
    scores = RepetitionPenalty(2.0, mask)(ids, torch.tensor([[1.0, 1.0, 1.0, -1.0]] * 2))
    assert scores.tolist() == [[1.0, 1.0, 0.5, -2.0], [0.5, 0.5, 1.0, -2.0]]


def test_beams_find_a_likelier_answer(model, renderer, prompts):
    greedy = answered(model, renderer, prompts, Sampling(6, temperature=0), 4)
    beams = answered(model, renderer, prompts, Sampling(6, temperature=0, num_beams=4, num_samples=2), 4)
    for (one,), (best, second) in zip(greedy, beams, strict=True):
        assert sum(best.logprobs) >= sum(one.logprobs) - 1e-4 and sum(best.logprobs) >= sum(second.logprobs)
    state = torch.get_rng_state()
    drawn = [tokens(answered(model, renderer, prompts, Sampling(6, num_beams=3, seed=s), 4)) for s in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2] and torch.equal(state, torch.get_rng_state())


def test_a_model_in_training_is_left_as_it_was(renderer, prompts):
    model = peaked(tiny_lm(vocab_size=len(renderer.tokenizer)))
    model.train()
    model.model.layers[1].eval()  # a frozen part
    model.set_attn_implementation(PACKED)
    model.config.use_cache = False
    model.generation_config.temperature, model.generation_config.repetition_penalty = 0.1, 5.0
    model.gradient_checkpointing_enable({"use_reentrant": False})
    state = torch.get_rng_state()
    found = answered(model, renderer, prompts, Sampling(6, num_samples=2), 2)
    assert model.training and not model.model.layers[1].training and model.model.layers[0].training
    assert attention_of(model) == PACKED and model.config.use_cache is False
    assert model.generation_config.repetition_penalty == 5.0 and torch.equal(state, torch.get_rng_state())
    plain = peaked(tiny_lm(vocab_size=len(renderer.tokenizer))).eval()
    assert tokens(found) == tokens(answered(plain, renderer, prompts, Sampling(6, num_samples=2), 2))


def test_settings_that_make_no_sense_are_one_line(model, renderer, prompts):
    for wrong, part in [
        ({"temperature": -1}, "temperature is -1"),
        ({"top_p": 0.0}, "top_p is 0.0"),
        ({"min_new_tokens": 9}, "min_new_tokens is 9"),
        ({"temperature": 0, "num_samples": 2}, "same answer 2 times"),
        ({"num_beams": 2, "num_samples": 3}, "2 beams give at most"),
    ]:
        with pytest.raises(UserError, match=part):
            Sampling(8, **wrong)
    with pytest.raises(UserError, match="exceed the model's 256 positions; lower --max_prompt_seq_len"):
        answered(model, renderer, prompts, Sampling(250), 4)
