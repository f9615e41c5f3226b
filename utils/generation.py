"""Answers of a language model: prompts in as token ids, completions out, whatever the back end. The one here is
transformers' own `model.generate`.

Legend: R = prompts x num_samples rows, P the longest prompt, T new tokens.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import GenerationConfig, LogitsProcessorList, StoppingCriteriaList
from transformers.generation.streamers import BaseStreamer

from utils import ranks
from utils.attention import PACKED
from utils.decoding import Draw, Sampling, StopStrings, decode, hashed, processors_of
from utils.errors import UserError
from utils.lora import plain
from utils.reporting import progress
from utils.templates import Renderer


@dataclass(frozen=True)
class Completion:
    """One answer. `tokens` end with the stop token if it came; `finished` is False when the length limit cut it;
    `logprobs` are those of the tokens under the model's raw distribution (temperature 1, nothing held back)."""

    tokens: list[int]
    text: str
    finished: bool
    logprobs: list[float]


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
    title: str = "generating",
) -> list[list[Completion]]:
    """num_samples completions of every prompt, `batch_size` prompts at a time.

    What is drawn for a prompt depends on the seed, on its number (`rows`, by default its place) and on nothing else:
    not on its batch, not on the number of processes (sampled beams do depend on their batch). The model may be in
    training: its mode, attention and generation config are put back, and no global random state is touched.
    spread: the ranks share the prompts, and each gets every completion (a collective). synced: the weights are sharded
    (ZeRO-3), so all ranks take every step together.
    Raises UserError when a prompt and its answer exceed the model's positions.
    """
    rows = range(len(prompts)) if rows is None else rows
    check_positions(model, max(map(len, prompts), default=0), sampling.max_new_tokens)
    chunks = [range(i, min(i + batch_size, len(prompts))) for i in range(0, len(prompts), batch_size)]
    world, rank = (ranks.world_size(), ranks.rank()) if spread else (1, 0)
    found: dict[int, list[Completion]] = {}
    with generating(model), progress(title, -(-len(chunks) // world)) as advance:
        for turn in range(0, len(chunks), world):
            if turn + rank < len(chunks) or synced:
                chunk = chunks[min(turn + rank, len(chunks) - 1)]
                answers = complete(
                    model, renderer, [prompts[i] for i in chunk], sampling, [rows[i] for i in chunk], synced
                )
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
    attention, defaults = base.config._attn_implementation, base.generation_config
    model.eval()
    if attention == PACKED:
        base.set_attn_implementation("sdpa" if base._supports_sdpa else "eager")
    base.generation_config = GenerationConfig()
    try:
        with torch.no_grad():
            yield
    finally:
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
    stream: Callable[[list[int]], None] | None = None,
) -> list[list[Completion]]:
    """One batch, inside `generating(model)`: as generate(). stream is called with the tokens so far of a single row."""
    base, beams, samples = plain(model), sampling.num_beams, sampling.num_samples
    copies = samples if beams == 1 else 1
    ids, mask = _left_padded(prompts, copies, renderer.tokenizer.pad_token_id)
    ids, mask = ids.to(base.device), mask.to(base.device)
    stops = list(dict.fromkeys([*renderer.stop_token_ids, *sampling.stop_token_ids]))
    config = GenerationConfig(
        max_new_tokens=sampling.max_new_tokens, eos_token_id=stops, pad_token_id=renderer.tokenizer.pad_token_id,
        num_beams=beams, num_return_sequences=samples if beams > 1 else 1, use_cache=True, return_dict_in_generate=True,
        do_sample=beams > 1 and sampling.temperature > 0, output_logits=beams > 1,
    )  # fmt: skip
    processors = processors_of(sampling, mask, stops)
    if beams == 1:
        keys = [(sampling.seed, sampling.temperature, row, sample) for row in rows for sample in range(samples)]
        draw = Draw(processors, keys if sampling.temperature else [], ids.device)
        processors = LogitsProcessorList([draw])
    strings = (*renderer.stop_strings, *sampling.stop_strings)
    criteria = StoppingCriteriaList([StopStrings(renderer.tokenizer, strings, ids.shape[1])] if strings else [])
    with _seeded(sampling.seed, rows[0], base.device) if config.do_sample else contextlib.nullcontext():
        output = base.generate(
            ids, attention_mask=mask, position_ids=(mask.cumsum(-1) - 1).clamp(min=0), generation_config=config,
            logits_processor=processors, stopping_criteria=criteria, synced_gpus=synced,
            streamer=_Streamer(stream) if stream else None,
        )  # fmt: skip
    if beams == 1:
        logprobs_RT = torch.cat(draw.logprobs, -1)
    else:
        logprobs_RT = base.compute_transition_scores(
            output.sequences, output.logits, output.beam_indices, normalize_logits=True
        )
    answers = [
        _completion(renderer, tokens, logprobs, stops, strings)
        for tokens, logprobs in zip(output.sequences[:, ids.shape[1] :].tolist(), logprobs_RT.tolist(), strict=True)
    ]
    return [answers[i : i + samples] for i in range(0, len(answers), samples)]


def _left_padded(prompts: Sequence[Sequence[int]], copies: int, pad: int) -> tuple[Tensor, Tensor]:
    """(ids, mask), each [R, P]. The mask knows the padding by its place: `pad` may be a token of the prompt."""
    longest = max(map(len, prompts))
    ids = torch.tensor([[pad] * (longest - len(p)) + [int(i) for i in p] for p in prompts for _ in range(copies)])
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts for _ in range(copies)])
    return ids, mask


@contextlib.contextmanager
def _seeded(seed: int, row: int, device: torch.device) -> Iterator[None]:
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(hashed(seed, row))
        yield


class _Streamer(BaseStreamer):
    def __init__(self, stream: Callable[[list[int]], None]) -> None:
        self.stream, self.tokens = stream, None

    def put(self, value: Tensor) -> None:
        if self.tokens is None:  # the prompt comes first
            self.tokens = []
        else:
            self.tokens += value.flatten().tolist()
            self.stream(self.tokens)

    def end(self) -> None:
        pass


def _completion(renderer: Renderer, tokens: list[int], logprobs: list[float], stops: list[int], strings) -> Completion:
    """Cut after the first stop token or the first token that completes a stop string: everything later is padding."""
    end = next((n for n, token in enumerate(tokens, start=1) if token in stops), None)
    whole = decode(renderer.tokenizer, tokens[:end])
    if any(stop in whole for stop in strings):
        end = next(n for n in range(1, len(tokens) + 1)
                   if any(stop in decode(renderer.tokenizer, tokens[:n]) for stop in strings))  # fmt: skip
    kept = tokens[:end]
    stopped_by_own = kept[-1] in renderer.stop_token_ids or kept[-1] not in stops
    text = renderer.decode_answer(kept if stopped_by_own else kept[:-1])
    for stop in strings:
        text = text.partition(stop)[0]
    return Completion(kept, text, end is not None, logprobs[: len(kept)])
