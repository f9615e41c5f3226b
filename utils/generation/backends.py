"""The back ends by name, and the choice among them: a back end must agree with the reference before it is used."""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Callable

import torch
from torch import nn

from utils.errors import UserError
from utils.generation import hf, shared, vllm
from utils.generation.request import Completion, GenerationRequest
from utils.generation.sampling import Sampling
from utils.generation.shared_attention import why_not_shared
from utils.model.adapted import plain
from utils.model.packed_attention import why_not_packed
from utils.reporting import say, warn

Backend = Callable[[nn.Module, GenerationRequest], list[list[Completion]]]
BACKENDS: dict[str, Backend] = {
    "shared": shared.complete,
    "hf": hf.complete,
    "vllm": vllm.complete,
}
PROBE_TOKENS = 8
# For each model: by the name of a back end the reason why it is refused, "" if it is not.
_reasons: weakref.WeakKeyDictionary[nn.Module, dict[str, str]] = weakref.WeakKeyDictionary()


def choose(model: nn.Module, request: GenerationRequest, wanted: str) -> Backend:
    """Return the back end `wanted`, or `hf` where it cannot serve this model or this request.

    For a model the reason is printed once. Raises UserError for an unknown name.
    """
    if wanted not in BACKENDS:
        raise UserError(f"the back end {wanted!r} is unknown; known: {', '.join(BACKENDS)}")
    if wanted in ("hf", "vllm"):
        return BACKENDS[wanted]
    # Beams copy each other's keys and values, and with sharded weights every rank must take the same number of steps.
    if request.sampling.num_beams > 1 or request.synced:
        return hf.complete
    base = plain(model)
    known = _reasons.setdefault(base, {})
    if wanted not in known:
        known[wanted] = why_not(model, request, wanted) or ""
        if known[wanted]:
            warn(f"generation: hf instead of {wanted} (slower, the same answers): {known[wanted]}")
        else:
            say(f"generation: {wanted}, equal to hf in {PROBE_TOKENS} greedy tokens")
    return hf.complete if known[wanted] else BACKENDS[wanted]


def why_not(model: nn.Module, request: GenerationRequest, wanted: str) -> str | None:
    """Return None if the back end can read the model and agrees with `hf` on the first prompts, else the reason."""
    base = plain(model)
    return why_not_packed(base) or why_not_shared(base) or _probe(model, request, BACKENDS[wanted])


def _probe(model: nn.Module, request: GenerationRequest, backend: Backend) -> str | None:
    """Compare the greedy tokens of two prompts, and their log-probs, with those of `hf`; return what is wrong."""
    limit = getattr(plain(model).config.get_text_config(), "max_position_embeddings", None)
    few = request.part(range(min(2, len(request.prompts))))
    room = PROBE_TOKENS
    if limit:
        room = min(room, limit - max(map(len, few.prompts)))
    if room < 1:
        return None  # check_positions refuses the request itself
    few = dataclasses.replace(few, sampling=Sampling(max_new_tokens=room, temperature=0), stream=None)
    # bfloat16 rounds logits of size 10 by about 0.04.
    tolerance = 1e-3 if plain(model).dtype == torch.float32 else 0.1
    try:
        pairs = zip(backend(model, few), hf.complete(model, few), strict=True)
    except (RuntimeError, TypeError, ValueError, AttributeError, IndexError) as error:
        return f"it fails on this model: {next(iter(str(error).splitlines()), type(error).__name__)}"
    for (mine,), (theirs,) in pairs:
        for number, (own, other) in enumerate(zip(mine.logprobs, theirs.logprobs, strict=False)):
            if abs(own - other) > tolerance:
                return f"its log-probs differ from those of hf by {abs(own - other):.2g}"
            # Two tokens may be equally likely within rounding: behind a different one nothing can be compared.
            if mine.tokens[number] != theirs.tokens[number]:
                break
    return None
