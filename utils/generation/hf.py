"""The reference back end: transformers' `model.generate`, on rows of left-padded prompts, one row for each answer."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import nn
from transformers import GenerationConfig, LogitsProcessorList, StoppingCriteriaList
from transformers.generation.streamers import BaseStreamer

from utils.generation.request import Completion, GenerationRequest
from utils.generation.sampling import DrawProcessor, RefuseNonfinite, hashed, processors_of
from utils.generation.stopping import StopStrings
from utils.model.adapted import plain


def complete(model: nn.Module, request: GenerationRequest) -> list[list[Completion]]:
    """Answer a batch, inside `generating(model)`."""
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
        processors.insert(0, RefuseNonfinite())
    else:
        draw = DrawProcessor(processors, request.uniforms(ids.device))
        processors = LogitsProcessorList([draw])
    strings = request.strings
    criteria = StoppingCriteriaList()
    if strings:
        criteria.append(StopStrings(request.renderer.tokenizer, strings, ids.shape[1]))
    random_state = contextlib.nullcontext()
    if config.do_sample:
        # Beams are drawn by transformers from the global generator, so their seed is that of the batch's first prompt.
        random_state = _seeded(hashed(sampling.seed, request.numbers[0]), base.device)
    with random_state:
        output = base.generate(
            ids, attention_mask=mask, position_ids=(mask.cumsum(-1) - 1).clamp(min=0), generation_config=config,
            logits_processor=processors, stopping_criteria=criteria,
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
    """Seed the global random generators, and put their state back at the end."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


class _Streamer(BaseStreamer):
    """Calls `stream` with the answer's tokens so far."""

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
