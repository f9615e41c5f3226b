"""The reference back end: transformers' own `model.generate`; a prompt stands once for each answer, left-padded."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import nn
from transformers import GenerationConfig, LogitsProcessorList, StoppingCriteriaList
from transformers.generation.streamers import BaseStreamer

from utils.generation.request import Completion, Request
from utils.generation.sampling import Draw, Finite, StopStrings, hashed, processors_of
from utils.model.lora import plain


def complete(model: nn.Module, request: Request) -> list[list[Completion]]:
    """Inside `generating(model)`."""
    base, sampling = plain(model), request.sampling
    beams = sampling.num_beams
    ids, mask = (x.to(base.device) for x in request.left_padded())
    config = GenerationConfig(
        max_new_tokens=sampling.max_new_tokens, eos_token_id=request.stops, num_beams=beams, use_cache=True,
        pad_token_id=request.renderer.tokenizer.pad_token_id, return_dict_in_generate=True,
        num_return_sequences=sampling.num_samples if beams > 1 else 1,
        do_sample=beams > 1 and sampling.temperature > 0, output_logits=beams > 1,
    )  # fmt: skip
    processors = processors_of(sampling, mask, request.stops)
    if beams > 1:
        processors.insert(0, Finite())
    else:
        draw = Draw(processors, request.uniforms(ids.device))
        processors = LogitsProcessorList([draw])
    strings = request.strings
    criteria = [StopStrings(request.renderer.tokenizer, strings, ids.shape[1])] if strings else []
    seed = hashed(sampling.seed, request.numbers[0])
    with _seeded(seed, base.device) if config.do_sample else contextlib.nullcontext():
        output = base.generate(
            ids, attention_mask=mask, position_ids=(mask.cumsum(-1) - 1).clamp(min=0), generation_config=config,
            logits_processor=processors, stopping_criteria=StoppingCriteriaList(criteria),
            synced_gpus=request.synced, streamer=_Streamer(request.stream) if request.stream else None,
        )  # fmt: skip
    if beams == 1:
        logprobs_RT = torch.cat(draw.logprobs, -1)
    else:
        logprobs_RT = base.compute_transition_scores(
            output.sequences, output.logits, output.beam_indices, normalize_logits=True
        )
    return request.completions(output.sequences[:, ids.shape[1] :].tolist(), logprobs_RT.tolist())


@contextlib.contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


class _Streamer(BaseStreamer):
    def __init__(self, stream: Callable[[list[int]], None]) -> None:
        self.stream, self.tokens = stream, None

    def put(self, value: torch.Tensor) -> None:
        if self.tokens is None:  # the prompt comes first
            self.tokens = []
        else:
            self.tokens += value.flatten().tolist()
            self.stream(self.tokens)

    def end(self) -> None:
        pass
