"""Answers of a language model: prompts in as token ids, completions out, whatever the back end.

shared   each prompt is read once for all its answers, finished answers leave (the default)
hf       transformers' model.generate, the reference; beams, sharded weights and what `shared` cannot read go here
vllm     the vllm package, for a model in a folder
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import nn
from transformers import GenerationConfig

from utils.engine import ranks
from utils.engine.internals import attention_of, padded_attention
from utils.errors import UserError
from utils.generation.backends import BACKENDS, choose
from utils.generation.graphs import release
from utils.generation.request import Completion, Request
from utils.generation.sampling import Sampling
from utils.model.lora import plain
from utils.model.packed_attention import PACKED
from utils.reporting import progress
from utils.tokens.templates import Renderer

__all__ = ["BACKENDS", "Completion", "Sampling", "check_positions", "complete", "generate", "generating"]


def generate(
    model: nn.Module,
    renderer: Renderer,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    batch_size: int,
    *,
    rows: Sequence[int] | None = None,
    spread: bool = False,
    synced: bool = False,
    backend: str = "shared",
    title: str = "generating",
) -> list[list[Completion]]:
    """num_samples completions of every prompt, `batch_size` prompts at a time.

    What is drawn for a prompt depends on the seed, on its number (`rows`, by default its place) and on nothing else:
    not on its batch, not on the number of processes (sampled beams do depend on their batch). The model may be in
    training: its mode, attention and generation config are put back, and no global random state is touched.
    spread: the ranks share the prompts, and each gets every completion (a collective). synced: the weights are sharded
    (ZeRO-3), so all ranks take every step together (a collective); they may hold different numbers of prompts, but each
    at least one.
    Raises UserError when a prompt and its answer exceed the model's positions.
    """
    rows = range(len(prompts)) if rows is None else rows
    check_positions(model, max(map(len, prompts), default=0), sampling.max_new_tokens)
    chunks = [range(i, min(i + batch_size, len(prompts))) for i in range(0, len(prompts), batch_size)]
    world, rank = (ranks.world_size(), ranks.rank()) if spread else (1, 0)
    found: dict[int, list[Completion]] = {}
    turns = -(-len(chunks) // world)
    if synced:
        turns = max(ranks.gather_objects(turns))
    with generating(model), progress(title, turns) as advance:
        for turn in range(turns):
            number = turn * world + rank
            if number < len(chunks) or synced:
                # a rank without a chunk repeats its last, and drops the answers: collectives match
                chunk = chunks[min(number, len(chunks) - 1)]
                answers = complete(
                    model, renderer, [prompts[i] for i in chunk], sampling, [rows[i] for i in chunk], synced, backend
                )
                if number < len(chunks):
                    found.update(zip(chunk, answers, strict=True))
            advance()
    for part in ranks.gather_objects(found) if spread else ():
        found |= part
    return [found[i] for i in range(len(prompts))]


def check_positions(model: nn.Module, longest_prompt: int, max_new_tokens: int) -> None:
    limit = getattr(plain(model).config.get_text_config(), "max_position_embeddings", None)
    if limit and longest_prompt + max_new_tokens > limit:
        raise UserError(
            f"a prompt of {longest_prompt} tokens and an answer of up to {max_new_tokens} exceed the model's {limit} "
            f"positions; lower --max_prompt_seq_len or --max_new_tokens"
        )


@contextlib.contextmanager
def generating(model: nn.Module) -> Iterator[None]:
    """The model as generation needs it: evaluation mode, attention that reads left padding, none of its own generation
    defaults (a published model's may hold a temperature). Everything is put back."""
    base = plain(model)
    training = {module: module.training for module in model.modules()}
    attention, defaults = attention_of(base), base.generation_config
    model.eval()
    if attention == PACKED:
        base.set_attn_implementation(padded_attention(base))
    base.generation_config = GenerationConfig()
    strict = torch.are_deterministic_algorithms_enabled() and not torch.is_deterministic_algorithms_warn_only_enabled()
    if strict:  # sampling sums probabilities along the vocabulary, which PyTorch has no deterministic kernel for
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


def complete(
    model: nn.Module,
    renderer: Renderer,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    rows: Sequence[int],
    synced: bool = False,
    backend: str = "shared",
    stream: Callable[[list[int]], None] | None = None,
) -> list[list[Completion]]:
    """One batch, inside `generating(model)`: as generate(). stream is called with the tokens so far of a single row."""
    request = Request(renderer, prompts, sampling, rows, synced, stream)
    return choose(model, request, backend)(model, request)
