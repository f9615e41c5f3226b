"""Decoding in fixed shapes, as CUDA graphs need it: in padded slots and buffers that stay, answers are those of
`model.generate`, and few shapes occur. Here steps are recorded by remembering them: what repeats a step reads the
tensors that were there when it was recorded, as a graph does, so a buffer that moved unnoticed gives wrong answers."""

import numpy as np
import peft
import pytest
import torch
from toy_folders import peaked, toy_tokenizer
from toys import tiny_lm

from utils.generation import graphs, hf, shared
from utils.generation.generate import generate, generating
from utils.generation.graphs import CannotRecord
from utils.generation.request import GenerationRequest
from utils.generation.sampling import Sampling
from utils.generation.shared_cache import rounded
from utils.generation.slots import Buffers, Slots, reach_of, why_not_slots
from utils.tokens.templates import Renderer

LENGTHS = (40, 7, 38, 25, 9, 31)  # mistral's and gemma2's window is 24
STOPS = tuple(range(3, 30))  # so many that answers end at many places


class Remembers:
    """A Recorder. `recorded` counts over all that were made."""

    recorded = 0

    def __init__(self, device):
        self.device = device

    def __call__(self, run):
        Remembers.recorded += 1
        return run


@pytest.fixture(autouse=True)
def _count():
    Remembers.recorded = 0


@pytest.fixture(scope="module")
def renderer():
    return Renderer(toy_tokenizer(), "plain")


@pytest.fixture(scope="module")
def prompts():
    draw = np.random.default_rng(0)
    return [draw.integers(5, 280, n).tolist() for n in LENGTHS]


def model_of(renderer, family="llama", **changes):
    model = tiny_lm(family, vocab_size=len(renderer.tokenizer), **changes).eval()
    return peaked(model, 1.0 if model.config.tie_word_embeddings else 12.0)


def equal_to_hf(model, request, make=Remembers):
    """The shared back end's completions, in slots, after comparing them with those of hf."""
    with generating(model):
        mine, theirs = (
            [c for several in found for c in several]
            for found in (shared.complete(model, request, make), hf.complete(model, request))
        )
    assert [c.tokens for c in mine] == [c.tokens for c in theirs]
    assert max(np.abs(np.subtract(a.logprobs, b.logprobs)).max() for a, b in zip(mine, theirs, strict=True)) <= 1e-5
    return mine


def sizes(function, most):
    """How many values a function of 1 to `most` takes."""
    return len({function(n) for n in range(1, most + 1)})


def bound(prompts, copies, room):
    """Of the docstring of StepShape."""
    return sizes(rounded, prompts) + sizes(rounded, copies) + sizes(lambda n: reach_of(n - 1, room), room) - 2


# ---------------------------------------------------------------------------------------------------------- shapes


def test_sizes_are_few_and_waste_little():
    found = sorted({rounded(n) for n in range(1, 1025)})
    assert found == [1, 2, 4, 8, 16, 32, 64, 96, 128, 192, 256, 384, 512, 768, 1024]
    assert all(n <= rounded(n) < (2 * n if n < 64 else 1.5 * n + 1) or n == 1 for n in range(1, 1025))
    assert rounded(3, 64) == 64
    assert [reach_of(place, 300) for place in (0, 63, 64, 127, 128, 255, 256)] == [64, 64, 128, 128, 256, 256, 300]
    assert reach_of(3, 20) == 20


@pytest.mark.parametrize("seed", range(8))
def test_slots_keep_what_an_answer_wrote_through_every_shape(seed):
    """Rows leave at random while places are written: each answer finds its own keys and its prompt's, and the shapes
    are no more than the bound."""
    draw = np.random.default_rng(seed)
    number, copies, room = int(draw.integers(1, 20)), int(draw.integers(1, 12)), 200
    lengths = draw.integers(1, 150, number).tolist()
    slots = Slots(lengths, copies, room, torch.device("cpu"), Buffers(torch.device("cpu")))
    prompts = [torch.randn(2, n, 3) for n in lengths]
    slots.read = {0: [(torch.cat(prompts, 1), -torch.cat(prompts, 1))]}
    slots.fill()
    written, met = torch.zeros(number * copies, 2, room, 3), set()
    for place in range(room):
        if draw.random() < 0.1 and len(slots.order) > 1:
            alive = max(1, int(draw.uniform(0.4, 0.9) * len(slots.order)))
            slots.keep(torch.from_numpy(np.sort(draw.permutation(len(slots.order))[:alive])))
        slots.at(place)
        met.add(slots.shape)
        new = torch.randn(len(slots.order), 2, 3)
        written[slots.order, :, place] = new
        step = torch.randn(1, 2, slots.shape.slots, 3)  # empty slots write too
        step[0][:, slots.slot_of_R] = new.transpose(0, 1)
        slots.append(0, step, -step)
        (bucket,) = slots.buckets
        for cache, sign in ((slots.keys, 1), (slots.values, -1)):
            found = sign * cache[0][:, slots.slot_of_R, : place + 1]
            assert torch.equal(found.transpose(0, 1), written[slots.order, :, : place + 1])
        for answer, slot in zip(slots.order.tolist(), slots.slot_of_R.tolist(), strict=True):
            length = lengths[answer // copies]
            assert int(slots.length_R[slot]) == length
            kept = bucket.keys[0][:, slot // slots.shape.copies]
            assert torch.equal(kept[:, :length], prompts[answer // copies]) and not kept[:, length:].any()
    assert len(met) <= bound(number, copies, room)
    assert len({shape.places for shape in met}) == 1


def test_a_buffer_stays_where_it_is_until_it_is_too_small():
    buffers = Buffers(torch.device("cpu"))
    large = buffers.view("x", (4, 6))
    small = buffers.view("x", (3, 2))
    assert small.data_ptr() == large.data_ptr() and buffers.moved == 1 and buffers.bytes == 24 * 8
    assert buffers.view("x", (5, 6)).data_ptr() != large.data_ptr() and buffers.moved == 2


# --------------------------------------------------------------------------------------------------------- answers


@pytest.mark.parametrize("family", ["llama", "qwen3", "mistral", "gemma2", "gpt2", "opt"])
def test_answers_in_slots_are_those_of_hf(family, renderer, prompts):
    """Several shapes, then other prompts in the buffers of the first: what was recorded is used again."""
    model = model_of(renderer, family)
    for how in (Sampling(100, num_samples=5, seed=5, stop_token_ids=STOPS), Sampling(30, temperature=0)):
        equal_to_hf(model, GenerationRequest(renderer, prompts, how, range(len(prompts))))
    first = Remembers.recorded
    assert first > 3
    how = Sampling(100, num_samples=5, seed=8, stop_token_ids=STOPS)
    equal_to_hf(model, GenerationRequest(renderer, prompts[::-1], how, range(len(prompts))))
    assert Remembers.recorded - first <= bound(len(prompts), 5, 100)


def test_few_steps_are_recorded(renderer, prompts):
    model, how = model_of(renderer), Sampling(90, num_samples=6, seed=3, stop_token_ids=STOPS)
    request = GenerationRequest(renderer, prompts, how, range(len(prompts)))
    assert len({len(c.tokens) for c in equal_to_hf(model, request)}) > 3
    assert 1 < Remembers.recorded <= bound(len(prompts), 6, 90)
    before = Remembers.recorded
    equal_to_hf(model, request)
    assert Remembers.recorded == before


def test_larger_prompts_after_smaller_ones(renderer, prompts):
    """The buffers grow: what was recorded in the old ones is dropped."""
    model, how = model_of(renderer), Sampling(20, num_samples=3, seed=4, stop_token_ids=STOPS)
    longer = [p * 4 for p in prompts]
    for some in (prompts[1:2], prompts, longer, prompts[1:2], prompts):
        equal_to_hf(model, GenerationRequest(renderer, some, how, range(len(some))))


def test_numbers_left_in_the_buffers_reach_no_answer(renderer, prompts):
    """Hidden places are multiplied by weights of 0, which does not help against NaN: they are cleared first."""
    model, how = model_of(renderer), Sampling(70, num_samples=3, seed=4, stop_token_ids=STOPS)
    request = GenerationRequest(renderer, prompts[:5], how, range(5))
    equal_to_hf(model, request)
    for flat in graphs._kept[model].buffers.flat.values():
        if flat.is_floating_point():
            flat.fill_(float("nan"))
    equal_to_hf(model, request)


def test_other_weights_are_read_anew(renderer, prompts):
    """Changed in place they stay recorded; moved to other memory, as ZeRO-3 does, they do not."""
    model, how = model_of(renderer), Sampling(8, temperature=0)
    request = GenerationRequest(renderer, prompts[:2], how, range(2))
    equal_to_hf(model, request)
    before = Remembers.recorded
    with torch.no_grad():
        model.lm_head.weight.mul_(-1)
    equal_to_hf(model, request)
    assert Remembers.recorded == before
    model.lm_head.weight.data = model.lm_head.weight.data.clone()
    equal_to_hf(model, request)
    assert Remembers.recorded > before


def test_an_adapter_switched_off_is_another_computation(renderer, prompts):
    adapted = peft.get_peft_model(model_of(renderer), peft.LoraConfig(r=4, target_modules=["q_proj"]))
    before = graphs.what_is_read(adapted.get_base_model())
    assert graphs.what_is_read(adapted.get_base_model()) == before
    with adapted.disable_adapter():
        assert graphs.what_is_read(adapted.get_base_model()) != before


def test_what_cannot_be_recorded_is_computed_with_the_reason(renderer, prompts, capsys, monkeypatch):
    model, how = model_of(renderer), Sampling(70, num_samples=6, seed=3, stop_token_ids=STOPS)
    request = GenerationRequest(renderer, prompts, how, range(len(prompts)))

    class Refuses(Remembers):
        def __call__(self, run):
            raise CannotRecord("called a synchronizing CUDA operation")

    equal_to_hf(model, request, Refuses)
    assert capsys.readouterr().out.count("without CUDA graphs (slower, the same answers): a step waits") == 1
    monkeypatch.setattr(graphs, "MOST_GRAPHS", 2)
    equal_to_hf(model, request)
    assert Remembers.recorded == 2 and "more than 2 shapes" in capsys.readouterr().out


def test_one_long_prompt_among_short_ones_is_not_padded(renderer, prompts, capsys):
    assert why_not_slots(LENGTHS) is None
    model, how = model_of(renderer, max_position_embeddings=1024), Sampling(4, temperature=0)
    some = [prompts[0] * 20, *(prompts[1:2] * 12)]
    assert equal_to_hf(model, GenerationRequest(renderer, some, how, range(len(some)))) and Remembers.recorded == 0
    assert "prompts of 7 to 800 tokens would take 10.4 times their places" in " ".join(capsys.readouterr().out.split())


def test_large_buffers_are_let_go_after_a_call(renderer, prompts, monkeypatch):
    model, request = model_of(renderer), GenerationRequest(renderer, prompts[:1], Sampling(3, temperature=0), [0])
    equal_to_hf(model, request)
    assert model in graphs._kept
    monkeypatch.setattr(graphs, "KEPT_BYTES", 100)
    equal_to_hf(model, request)
    assert model not in graphs._kept


@pytest.mark.skipif(not torch.cuda.is_available(), reason="captures CUDA graphs")
def test_cuda_graphs_give_the_same_answers(renderer, prompts):
    model = model_of(renderer).cuda()
    how = Sampling(100, num_samples=5, seed=5, stop_token_ids=STOPS)
    for _ in range(2):
        answers = generate(model, GenerationRequest(renderer, prompts, how), len(prompts))
        reference = generate(model, GenerationRequest(renderer, prompts, how), len(prompts), backend="hf")
        assert [[c.tokens for c in s] for s in answers] == [[c.tokens for c in s] for s in reference]
    assert 0 < len(graphs._kept[model].replays) <= bound(len(prompts), 5, 100)
    assert graphs._kept[model].works


# ---------------------------------------------------------------------------------------------------------- memory


def test_answers_that_end_early_take_little_room(renderer, prompts, monkeypatch):
    """The store of an eager generation grows with the longest answer, in the sizes of `rounded`."""
    model, sizes_met = model_of(renderer, max_position_embeddings=4096), set()

    class Watched(shared.SharedCache):
        def append(self, layer, key, value):
            found = super().append(layer, key, value)
            stored = sum(x.nbytes for cache in (self.keys, self.values) for x in cache.values())
            sizes_met.add((stored, len(self.order), self.keys[layer].shape[2]))
            return found

    monkeypatch.setattr(shared, "SharedCache", Watched)
    layers, heads, size = 3, 2, 16
    with generating(model):
        how = Sampling(2000, num_samples=4, seed=5, stop_token_ids=tuple(range(3, 8)))
        found = shared.complete(model, GenerationRequest(renderer, prompts, how, range(len(prompts))))
    longest = max(len(c.tokens) for several in found for c in several)
    assert 130 < longest < 600
    assert max(places for _, _, places in sizes_met) == rounded(longest - 1, 64)
    rows = len(prompts) * 4
    at_once = 2 * layers * heads * rows * 2000 * size * 4
    assert max(stored for stored, _, _ in sizes_met) < at_once * 0.3
    for stored, rows, places in sizes_met:
        assert stored <= 2 * layers * heads * rows * places * size * 4
