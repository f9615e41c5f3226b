"""The vllm package, for a model that lies in a folder or on the hub (pip install -e '.[vllm]', CUDA)."""

from __future__ import annotations

import functools
from typing import Any

from torch import nn

from utils.errors import UserError
from utils.generation.request import Completion, Request
from utils.model.lora import plain


def complete(model: nn.Module, request: Request) -> list[list[Completion]]:
    """Of the weights in the model's folder: a model in training has others, and rollouts refuse this back end."""
    how = request.sampling
    if how.no_repeat_ngram_size or how.num_beams > 1:
        raise UserError("the back end vllm knows neither --no_repeat_ngram_size nor beams; use another")
    engine, settings = _engine(plain(model).name_or_path)
    found = engine.generate(
        [{"prompt_token_ids": list(map(int, p))} for p in request.prompts],
        [
            settings(
                n=how.num_samples, temperature=how.temperature, top_p=how.top_p, top_k=how.top_k or -1,
                repetition_penalty=how.repetition_penalty, min_tokens=how.min_new_tokens,
                max_tokens=how.max_new_tokens, stop_token_ids=request.stops, stop=list(request.strings) or None,
                seed=hash((how.seed, number)) % 2**31, logprobs=0,
            )
            for number in request.numbers
        ],
    )  # fmt: skip
    answers = [answer for output in found for answer in output.outputs]
    tokens = [list(answer.token_ids) for answer in answers]
    logprobs = [[place[token].logprob for token, place in zip(a.token_ids, a.logprobs, strict=True)] for a in answers]
    return request.completions(tokens, logprobs)


@functools.lru_cache(maxsize=1)
def _engine(name: str) -> tuple[Any, Any]:
    try:
        from vllm import LLM, SamplingParams
    except ImportError:
        raise UserError("the back end vllm needs the vllm package (pip install -e '.[vllm]') and a GPU") from None
    return LLM(model=name), SamplingParams
