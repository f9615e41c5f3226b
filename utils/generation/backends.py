"""Which back end answers, and why: a registry, gates, and a probe that compares with the reference at the start."""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Callable

import torch
from torch import nn

from utils.errors import UserError
from utils.generation import hf, shared, vllm
from utils.generation.request import Completion, Request
from utils.generation.sampling import Sampling
from utils.generation.shared_attention import why_not_shared
from utils.model.lora import plain
from utils.model.packed_attention import why_not_packed
from utils.reporting import say, warn

Backend = Callable[[nn.Module, Request], list[list[Completion]]]
BACKENDS: dict[str, Backend] = {
    "shared": shared.complete,
    "hf": hf.complete,
    "vllm": vllm.complete,
}
PROBE_TOKENS = 8
_refused: weakref.WeakKeyDictionary[nn.Module, dict[str, str]] = weakref.WeakKeyDictionary()  # reason by back end


def choose(model: nn.Module, request: Request, wanted: str) -> Backend:
    """The back end `wanted`, or `hf` where it cannot serve this model (said once, with the reason) or this request.
    Raises UserError for an unknown name."""
    if wanted not in BACKENDS:
        raise UserError(f"the back end {wanted!r} is unknown; known: {', '.join(BACKENDS)}")
    if wanted in ("hf", "vllm"):
        return BACKENDS[wanted]
    if request.sampling.num_beams > 1 or request.synced:  # beams copy each other's past; sharded weights need one pace
        return hf.complete
    base = plain(model)
    known = _refused.setdefault(base, {})
    if wanted not in known:
        known[wanted] = why_not(model, request, wanted) or ""
        if known[wanted]:
            warn(f"generation: hf instead of {wanted} (slower, the same answers): {known[wanted]}")
        else:
            say(f"generation: {wanted}, equal to hf in {PROBE_TOKENS} greedy tokens")
    return hf.complete if known[wanted] else BACKENDS[wanted]


def why_not(model: nn.Module, request: Request, wanted: str) -> str | None:
    """None if the back end can read the model and agrees with `hf` on the first prompts, else the reason."""
    base = plain(model)
    return why_not_packed(base) or why_not_shared(base) or _probe(model, request, BACKENDS[wanted])


def _probe(model: nn.Module, request: Request, backend: Backend) -> str | None:
    """Greedy tokens and their log-probs of two prompts, compared with those of `hf`. In bfloat16 two tokens may be
    equally likely within rounding: what comes after the first difference is not compared."""
    limit = getattr(plain(model).config.get_text_config(), "max_position_embeddings", None)
    longest = max(len(p) for p in request.prompts[:2])
    room = min(PROBE_TOKENS, limit - longest) if limit else PROBE_TOKENS
    if room < 1:
        return None  # check_positions refuses the request itself
    greedy = Sampling(max_new_tokens=room, temperature=0)
    question = dataclasses.replace(
        request, prompts=request.prompts[:2], numbers=request.numbers[:2], sampling=greedy, stream=None
    )
    tolerance = 1e-3 if plain(model).dtype == torch.float32 else 0.1
    try:
        pairs = zip(backend(model, question), hf.complete(model, question), strict=True)
    except (RuntimeError, TypeError, ValueError, AttributeError, IndexError) as error:
        return f"it fails on this model: {next(iter(str(error).splitlines()), type(error).__name__)}"
    for (mine,), (theirs,) in pairs:
        for a, b, p, q in zip(mine.tokens, theirs.tokens, mine.logprobs, theirs.logprobs, strict=False):
            if abs(p - q) > tolerance:
                return f"its log-probs differ from those of hf by {abs(p - q):.2g}"
            if a != b:
                break
    return None
