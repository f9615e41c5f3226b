"""The default back end: each prompt is read once for all its answers, and finished answers leave the batch.

A step is one row of tokens (shared_attention.py), so that nothing is padded and no Python runs for a single answer,
except where a stop string may be complete.

Legend: R answers in flight (in attributes that outlive a step: all answers), T places of an answer, P the longest
prompt, V vocabulary.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from utils.engine.internals import attention_of
from utils.generation.graphs import EagerStep, MakeRecorder, RecordedStep, recorded_steps
from utils.generation.request import Completion, GenerationRequest
from utils.generation.sampling import Sampling, draw, processors_of
from utils.generation.shared_attention import SHARED_PREFIX
from utils.generation.shared_cache import SharedCache
from utils.generation.slots import Slots
from utils.generation.stopping import StopTokens
from utils.model.adapted import plain
from utils.model.packed_attention import Layout

PROMPT_TOKENS = 16_384  # the most that one forward pass reads, unless a single prompt is longer
# Packing the batch anew copies every key and value, so finished answers leave when at most this share is still written.
LEAVE = 0.75


def complete(
    model: nn.Module, request: GenerationRequest, make_recorder: MakeRecorder | None = None
) -> list[list[Completion]]:
    """Answer a batch, inside `generating(model)`.

    make_recorder: makes what records a step and repeats it (graphs.py); None: CUDA graphs on CUDA, nothing elsewhere.
    """
    base = plain(model)
    before = attention_of(base)
    base.set_attn_implementation(SHARED_PREFIX)
    try:
        return _Decoder(base, request, make_recorder).run()
    finally:
        base.set_attn_implementation(before)


class _Decoder:
    """The answers of one batch while they are written: tokens, log-probs, and which of them have ended."""

    def __init__(self, model: nn.Module, request: GenerationRequest, make_recorder: MakeRecorder | None) -> None:
        self.model, self.request, self.sampling, device = model, request, request.sampling, model.device
        lengths, room = [len(p) for p in request.prompts], self.sampling.max_new_tokens
        self.steps = recorded_steps(model, lengths, make_recorder)
        if self.steps:
            self.cache = Slots(lengths, request.copies, room=room, device=device, buffers=self.steps.buffers)
        else:
            self.cache = SharedCache(lengths, request.copies, room=room, device=device)
        rows = len(self.cache.order)
        self.uniforms_RT = request.uniforms(device)
        self.tokens_RT = torch.zeros(rows, room, dtype=torch.int64, device=device)
        self.logprobs_RT = torch.zeros(rows, room, device=device)
        self.lengths_R = torch.full((rows,), room, device=device)
        self.ended_R = torch.zeros(rows, dtype=torch.bool, device=device)
        self.stop = StopTokens(request.stops, request.strings, tokenizer=request.renderer.tokenizer, device=device)
        self.padded = None
        if _changes_logits(self.sampling):
            self.padded = [x.to(device) for x in request.left_padded()]
        self._follow_rows()

    def run(self) -> list[list[Completion]]:
        """Write every answer to its end."""
        cache = self.cache
        logits_RV = self._read_prompts()[cache.order // self.request.copies]
        if self.steps:
            advance = RecordedStep(self.model, cache, self.steps, like_RV=logits_RV)
        else:
            advance = EagerStep(self.model, cache)
        for step in range(self.sampling.max_new_tokens):
            tokens_R = self._draw(logits_RV.float(), step)
            if self.request.stream:
                self.request.stream(self.tokens_RT[0, : step + 1].tolist())
            if step + 1 == self.sampling.max_new_tokens:
                break
            alive = len(tokens_R) - int(self.ended_R[cache.order].sum())
            if not alive:
                break
            if alive <= LEAVE * len(tokens_R):
                rows = (~self.ended_R[cache.order]).nonzero().squeeze(-1)
                cache.keep(rows)
                tokens_R = tokens_R[rows]
                self._follow_rows()
            logits_RV = advance(tokens_R, step)
        tokens, logprobs = [], []
        rows = zip(self.tokens_RT.tolist(), self.logprobs_RT.tolist(), self.lengths_R.tolist(), strict=True)
        for row_tokens, row_logprobs, length in rows:
            tokens.append(row_tokens[:length])
            logprobs.append(row_logprobs[:length])
        return self.request.completions(tokens, logprobs)

    def _read_prompts(self) -> Tensor:
        """Read the prompts, packed, into the cache; return the logits after each, [prompts, V]."""
        found, lengths = [], self.cache.lengths
        for part in _parts(lengths):
            ids, positions, groups = [], [], []
            for i in part:
                ids.append(np.asarray(self.request.prompts[i], np.int64))
                positions.append(np.arange(lengths[i]))
                groups.append((lengths[i], ()))
            ends = torch.from_numpy(np.cumsum(list(map(len, ids))) - 1).to(self.model.device)
            ids = torch.from_numpy(np.concatenate(ids)).to(self.model.device)
            positions = torch.from_numpy(np.concatenate(positions)).to(self.model.device)
            self.cache.packed = Layout(tuple(groups))
            found.append(self.model(input_ids=ids[None], position_ids=positions[None], layout=self.cache,
                                    use_cache=False, logits_to_keep=ends).logits[0])  # fmt: skip
        self.cache.packed = None
        self.cache.fill()
        return torch.cat(found)

    def _draw(self, logits_RV: Tensor, step: int) -> Tensor:
        """Draw a token for each row in flight, [R], and note it, its log-prob and whether it ends the answer."""
        order, scores_RV, uniforms_R = self.cache.order, logits_RV, None
        if self.padded is not None:
            ids = torch.cat((self._ids_RP, self.tokens_RT[order, :step]), 1)
            scores_RV = self._processors(ids, logits_RV)
        if self.uniforms_RT is not None:
            uniforms_R = self._uniforms_RT[:, step]
        tokens_R = draw(scores_RV, uniforms_R)
        chosen_R1 = logits_RV.gather(-1, tokens_R[:, None])
        self.tokens_RT[order, step] = tokens_R
        self.logprobs_RT[order, step] = (chosen_R1 - logits_RV.logsumexp(-1, keepdim=True)).squeeze(-1)
        ends_R = self.stop(tokens_R, lambda rows: self.tokens_RT[order[rows], : step + 1])
        new = order[ends_R & ~self.ended_R[order]]
        self.lengths_R[new] = step + 1
        self.ended_R[new] = True
        return tokens_R

    def _follow_rows(self) -> None:
        """Make anew what is kept for the rows in flight, which have changed."""
        order = self.cache.order
        if self.uniforms_RT is not None:
            self._uniforms_RT = self.uniforms_RT[order]
        if self.padded is not None:
            self._ids_RP, self._mask_RP = (x[order] for x in self.padded)
            self._processors = processors_of(self.sampling, self._mask_RP, self.request.stops)


def _changes_logits(sampling: Sampling) -> bool:
    """Return whether tokens are drawn from changed logits, for which processors need the rows' tokens."""
    return bool(processors_of(sampling, torch.ones(1, 1), [0]))


def _parts(lengths: list[int]) -> list[list[int]]:
    """Return the places of prompts in order, divided into forward passes of at most PROMPT_TOKENS tokens."""
    parts, used = [[]], 0
    for i, length in enumerate(lengths):
        if parts[-1] and used + length > PROMPT_TOKENS:
            parts.append([])
            used = 0
        parts[-1].append(i)
        used += length
    return parts
