"""Decoding with the shared back end (graphs on CUDA) against transformers' `model.generate`: the same tokens.

In float32 every token must be that of `model.generate`, and its log-prob within 1e-4. Two tokens may be equally likely
within rounding; a difference is accepted only where a plain forward pass over that row shows such a tie. In bfloat16
the answers part where rounding decides, so each back end's log-probs are compared with a float32 forward over its own
answers: the shared back end may be at most half as much again off as `model.generate` is.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from gpu.common import Part, device, on_gpu
from torch import nn
from toy_folders import peaked
from toy_folders import toy_tokenizer as byte_tokenizer
from toys import tiny_lm

from utils.generation.backends import BACKENDS, choose
from utils.generation.generate import generate, generating
from utils.generation.request import Completion, GenerationRequest
from utils.generation.sampling import Sampling, draw, uniforms
from utils.model.batch import collate
from utils.model.scoring import Policy
from utils.tokens.group import group
from utils.tokens.templates import Renderer

LOG_PROBS = 1e-4  # float32, absolute
TIE = 5e-5  # of a probability, or of the largest logit: what float32 sums in another order may move
WORSE = 1.5  # bfloat16: error against float32, shared over model.generate
STOPS = tuple(range(3, 30))  # a tenth of the vocabulary, so that answers end at many places
ROOM = 1024  # positions of the model


@dataclass(frozen=True)
class Case:
    """Prompts of these lengths, answered `batch_size` (0: all) at a time."""

    name: str
    lengths: tuple[int, ...]
    sampling: Sampling
    batch_size: int = 0
    family: str = "llama"
    reaches: int = 0  # tokens that some answer must have, or the case tests nothing


# graphs are captured for numbers of rows and for every 64 places of an answer, and prompts of similar length share a
# bucket: the cases stand on both sides of such borders
LONG = 600 if on_gpu() else 520
CASES = (
    Case("1 row, prompts at 63", (63,), Sampling(66, temperature=0)),
    Case("3 rows, prompts of 63, 64 and 65", (63, 64, 65), Sampling(66, temperature=0)),
    Case("8 rows drawn, one prompt", (64,), Sampling(62, num_samples=8, seed=1)),
    Case("9 rows drawn, three prompts", (65, 8, 64), Sampling(64, num_samples=3, seed=2)),
    Case("33 rows drawn, prompts of 5 to 133", tuple(5 + 4 * i for i in range(33)), Sampling(63, seed=3)),
    Case("departures", (40, 7, 38), Sampling(96, num_samples=11, seed=4, stop_token_ids=STOPS)),
    Case("departures by a likely stop", (64, 63, 9), Sampling(130, num_samples=3, seed=5, stop_token_ids=(41, 42, 43))),
    Case("answers longer than 512", (65, 20), Sampling(LONG, num_samples=2, seed=6), reaches=513),
    Case("three chunks in a row", (63, 64, 65, 12, 13, 200, 7), Sampling(40, num_samples=2, seed=7), 3),
    Case("a window shorter than the answer", (40, 65, 7), Sampling(70, num_samples=3, seed=8), 0, "mistral"),
    Case("settings", (40, 9, 64), Sampling(66, num_samples=3, seed=9, temperature=0.7, top_k=50, top_p=0.9)),
)


def model_of(renderer: Renderer, family: str, seed: int = 0) -> nn.Module:
    model = tiny_lm(family, seed=seed, vocab_size=len(renderer.tokenizer), max_position_embeddings=ROOM)
    return peaked(model, 12.0).eval().to(device())


def prompts_of(case: Case, vocabulary: int) -> list[list[int]]:
    drawn = np.random.default_rng(len(case.lengths))
    return [drawn.integers(5, vocabulary, n).tolist() for n in case.lengths]


def answers_of(model: nn.Module, renderer: Renderer, case: Case, backend: str) -> list[list[Completion]]:
    """Raises AssertionError where `shared` is not what answers: compared with itself, hf is always right."""
    prompts = prompts_of(case, len(renderer.tokenizer) - 20)
    batch = case.batch_size or len(prompts)
    with generating(model):
        chosen = choose(model, GenerationRequest(renderer, prompts, case.sampling, range(len(prompts))), backend)
    assert chosen is BACKENDS[backend], f"{backend} does not read this model; the warning above says why"
    return generate(model, GenerationRequest(renderer, prompts, case.sampling), batch, backend=backend, title=case.name)


def compare(model: nn.Module, renderer: Renderer, case: Case, mine, theirs) -> dict[str, float]:
    """Raises AssertionError unless both gave the same answers."""
    prompts = prompts_of(case, len(renderer.tokenizer) - 20)
    gap, ties, tokens = 0.0, 0, 0
    for number, (prompt, several, others) in enumerate(zip(prompts, mine, theirs, strict=True)):
        for copy_number, (a, b) in enumerate(zip(several, others, strict=True)):
            same = next((i for i, (x, y) in enumerate(zip(a.tokens, b.tokens, strict=False)) if x != y), None)
            if same is None:
                assert (len(a.tokens), a.finished) == (len(b.tokens), b.finished), f"prompt {number}: lengths differ"
                same = len(a.tokens)
            else:
                key = (case.sampling.seed, case.sampling.temperature, number, copy_number)
                assert _tie(model, [*prompt, *a.tokens[:same]], a.tokens[same], b.tokens[same], case, key, same), (
                    f"prompt {number}, answer {copy_number}: token {same} is {a.tokens[same]}, hf has {b.tokens[same]}"
                )
                ties += 1
            tokens += same
            if same:
                gap = max(gap, float(np.abs(np.subtract(a.logprobs[:same], b.logprobs[:same])).max()))
    assert gap <= LOG_PROBS, f"log-probs differ by {gap:.2g}"
    return {"logprobs": gap, "ties": ties, "tokens": tokens}


@torch.no_grad()
def _tie(model, ids: list[int], one: int, other: int, case: Case, key: tuple, place: int) -> bool:
    """Are both tokens right within rounding, by a plain forward pass over the row so far? Tokens that processors
    (top-k, a penalty) have changed the odds of are never a tie."""
    with generating(model):
        logits_V = model(torch.tensor([ids], device=model.device)).logits[0, -1].float()
    how = case.sampling
    if not how.temperature:
        return float((logits_V[one] - logits_V[other]).abs()) <= TIE * float(logits_V.abs().max())
    if how != Sampling(how.max_new_tokens, num_samples=how.num_samples, seed=how.seed,
                       stop_token_ids=how.stop_token_ids):  # fmt: skip
        return False
    u = uniforms([key], place + 1, model.device)[:, place]
    near = {int(draw(logits_V[None], (u + d).clamp(0, 1 - 1e-7))) for d in (-TIE, 0.0, TIE)}
    return {one, other} <= near


def in_float32(case: Case) -> dict[str, float]:
    renderer = Renderer(byte_tokenizer(), "plain")
    model = model_of(renderer, case.family)
    mine, theirs = (answers_of(model, renderer, case, backend) for backend in ("shared", "hf"))
    found = compare(model, renderer, case, mine, theirs)
    lengths = {len(c.tokens) for several in mine for c in several}
    assert len(lengths) > 3 or not case.sampling.stop_token_ids, "no answer left early: the case tests nothing"
    assert max(lengths) >= case.reaches, f"no answer is as long as {case.reaches} tokens: the case tests nothing"
    return found


def in_bfloat16(case: Case) -> dict[str, float]:
    """Errors of the noted log-probs against a float32 forward over the same answers."""
    renderer = Renderer(byte_tokenizer(), "plain")
    model = model_of(renderer, case.family).bfloat16()
    exact = Policy(copy.deepcopy(model).float())
    prompts = prompts_of(case, len(renderer.tokenizer) - 20)
    errors = {}
    for backend in ("shared", "hf"):
        found = answers_of(model, renderer, case, backend)
        groups = [group(p, [c.tokens for c in several]) for p, several in zip(prompts, found, strict=True)]
        with torch.no_grad():
            right = exact(collate(groups, packed=False).to(device())).cpu().numpy()
        noted = np.concatenate([c.logprobs for several in found for c in several])
        errors[backend] = float(np.sqrt(np.mean((noted - right) ** 2)))
    assert 0 < errors["shared"] <= WORSE * errors["hf"], (
        f"log-probs of shared are {errors['shared']:.2g} off float32, those of hf {errors['hf']:.2g}"
    )
    return errors


def after_a_training_step() -> dict[str, float]:
    """New weights, new answers: nothing of the old model is kept in a graph."""
    renderer, case = Renderer(byte_tokenizer(), "plain"), CASES[3]
    model = model_of(renderer, case.family)
    before = answers_of(model, renderer, case, "shared")
    policy = Policy(model.train())
    optimizer = torch.optim.AdamW(policy.parameters(), lr=1e-2)
    prompts = prompts_of(case, len(renderer.tokenizer) - 20)
    groups = [group(p, [c.tokens for c in several]) for p, several in zip(prompts, before, strict=True)]
    for _ in range(2):
        policy(collate(groups).to(device())).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        mine, theirs = (answers_of(model, renderer, case, backend) for backend in ("shared", "hf"))
        found = compare(model, renderer, case, mine, theirs)
        assert [c.tokens for s in mine for c in s] != [c.tokens for s in before for c in s], "the step changed nothing"
        before = mine
    return found


def cases() -> Iterator[tuple[str, object]]:
    for case in CASES:
        yield f"fp32, {case.name}", lambda case=case: in_float32(case)
    yield "fp32, after training steps", after_a_training_step
    for case in CASES:
        if case.sampling.temperature == 1:
            yield f"bf16, {case.name}", lambda case=case: in_bfloat16(case)


def main(part: Part) -> None:
    part.run(cases())
