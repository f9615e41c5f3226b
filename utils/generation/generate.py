"""Answers to any number of prompts, batch by batch, with the model put into the state that generation needs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import nn
from transformers import GenerationConfig

from utils.engine import ranks
from utils.engine.internals import attention_of, padded_attention
from utils.errors import UserError
from utils.generation.backends import choose
from utils.generation.graphs import release
from utils.generation.request import Completion, GenerationRequest
from utils.model.adapted import plain
from utils.model.packed_attention import PACKED
from utils.reporting import progress


def generate(
    model: nn.Module,
    request: GenerationRequest,
    batch_size: int,
    *,
    spread: bool = False,
    backend: str = "shared",
    title: str = "generating",
) -> list[list[Completion]]:
    """Answer every prompt of a request.

    What is drawn for a prompt depends on the seed, on the prompt's number and on nothing else: not on its batch, not
    on the number of processes (sampled beams do depend on their batch). The model may be in training: its mode,
    attention and generation config are put back, and no global random state is touched.

    Args:
        model: the language model.
        request: the prompts, their numbers and the sampling settings. With `synced` this is a collective: ranks may
            hold different numbers of prompts, but each at least one.
        batch_size: prompts at a time, each with all its answers.
        spread: whether the ranks divide the prompts among them; each gets every completion. A collective.
        backend: a name of backends.BACKENDS.
        title: of the progress bar.

    Returns:
        For each prompt its completions, `request.sampling.num_samples` of them.

    Raises:
        UserError: a prompt and its answer exceed the model's positions.
    """
    prompts = request.prompts
    check_positions(model, max(map(len, prompts), default=0), request.sampling.max_new_tokens)
    chunks = [range(i, min(i + batch_size, len(prompts))) for i in range(0, len(prompts), batch_size)]
    world, rank = 1, 0
    if spread:
        world, rank = ranks.world_size(), ranks.rank()
    turns = -(-len(chunks) // world)
    if request.synced:
        turns = max(ranks.gather_objects(turns))
    found: dict[int, list[Completion]] = {}
    with generating(model), progress(title, turns) as advance:
        for turn in range(turns):
            number = turn * world + rank
            if number < len(chunks):
                chunk = chunks[number]
                found.update(zip(chunk, complete(model, request.part(chunk), backend), strict=True))
            elif request.synced:
                # A rank without a chunk repeats its last and drops the answers, so that the collectives match.
                complete(model, request.part(chunks[-1]), backend)
            advance()
    if spread:
        for part in ranks.gather_objects(found):
            found |= part
    return [found[i] for i in range(len(prompts))]


def complete(model: nn.Module, request: GenerationRequest, backend: str = "shared") -> list[list[Completion]]:
    """Answer one batch, inside `generating(model)`."""
    return choose(model, request, backend)(model, request)


def check_positions(model: nn.Module, longest_prompt: int, max_new_tokens: int) -> None:
    """Raise UserError if a prompt of this many tokens and its answer exceed the model's positions."""
    limit = getattr(plain(model).config.get_text_config(), "max_position_embeddings", None)
    if limit and longest_prompt + max_new_tokens > limit:
        raise UserError(
            f"a prompt of {longest_prompt} tokens and an answer of up to {max_new_tokens} exceed the model's {limit} "
            f"positions; lower --max_prompt_seq_len or --max_new_tokens"
        )


@contextlib.contextmanager
def generating(model: nn.Module) -> Iterator[None]:
    """Put the model into evaluation mode, with attention that reads left padding; everything is put back at the end.

    The model's own generation defaults are set aside: a published model's may hold a temperature.
    """
    base = plain(model)
    training = {module: module.training for module in model.modules()}
    attention, defaults = attention_of(base), base.generation_config
    model.eval()
    if attention == PACKED:
        base.set_attn_implementation(padded_attention(base))
    base.generation_config = GenerationConfig()
    strict = torch.are_deterministic_algorithms_enabled() and not torch.is_deterministic_algorithms_warn_only_enabled()
    if strict:
        # Sampling sums probabilities along the vocabulary, which PyTorch has no deterministic kernel for.
        torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with torch.no_grad():
            yield
    finally:
        if strict:
            torch.use_deterministic_algorithms(True)
        release(base)
        base.generation_config = defaults
        if attention == PACKED:
            base.set_attn_implementation(PACKED)
        for module, mode in training.items():
            module.training = mode
