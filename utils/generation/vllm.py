"""The back end of the vllm package, for a model in a folder or on the hub (pip install -e '.[vllm]', CUDA)."""

from __future__ import annotations

import functools
from typing import Any

from torch import nn

from utils.errors import UserError
from utils.generation.request import Completion, GenerationRequest
from utils.model.adapted import plain


def complete(model: nn.Module, request: GenerationRequest) -> list[list[Completion]]:
    """Answer a batch by the weights in the model's folder.

    A model in training has other weights than its folder, so that rollouts refuse this back end.
    """
    sampling = request.sampling
    if sampling.no_repeat_ngram_size or sampling.num_beams > 1:
        raise UserError("the back end vllm knows neither --no_repeat_ngram_size nor beams; use another")
    engine, settings = _engine(plain(model).name_or_path)
    prompts, parameters = [], []
    for prompt, number in zip(request.prompts, request.numbers, strict=True):
        prompts.append({"prompt_token_ids": list(map(int, prompt))})
        parameters.append(settings(
            n=sampling.num_samples, temperature=sampling.temperature, top_p=sampling.top_p, top_k=sampling.top_k or -1,
            repetition_penalty=sampling.repetition_penalty, min_tokens=sampling.min_new_tokens,
            max_tokens=sampling.max_new_tokens, stop_token_ids=request.stops, stop=list(request.strings) or None,
            seed=hash((sampling.seed, number)) % 2**31, logprobs=0,
        ))  # fmt: skip
    tokens, logprobs = [], []
    for output in engine.generate(prompts, parameters):
        for answer in output.outputs:
            tokens.append(list(answer.token_ids))
            # Of each place vllm returns the log-probs by token: here that of the drawn token alone (logprobs=0).
            places = zip(answer.token_ids, answer.logprobs, strict=True)
            logprobs.append([place[token].logprob for token, place in places])
    return request.completions(tokens, logprobs)


@functools.lru_cache(maxsize=1)
def _engine(name: str) -> tuple[Any, Any]:
    """Return (vllm's engine for a model, the class of its sampling settings)."""
    try:
        from vllm import LLM, SamplingParams
    except ImportError:
        raise UserError("the back end vllm needs the vllm package (pip install -e '.[vllm]') and a GPU") from None
    return LLM(model=name), SamplingParams
