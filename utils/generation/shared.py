"""The back end of this project: each prompt is read once for all its answers, finished answers leave the batch.

A step is one row of tokens (shared_attention.py), so that nothing is padded and no Python runs for a single answer,
except where a stop string may have ended.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from utils.engine.internals import attention_of
from utils.generation.graphs import Eager, MakeRecord, Recorded, kept_for
from utils.generation.request import Completion, Request
from utils.generation.sampling import StopTokens, draw, processors_of
from utils.generation.shared_attention import CASCADE, Cascade
from utils.generation.slots import Slots
from utils.model.lora import plain
from utils.model.packed_attention import Layout

PROMPT_TOKENS = 16_384  # read in one forward pass
LEAVE = 0.75  # when at most this share of the rows is still being written, the others leave


def complete(model: nn.Module, request: Request, make_record: MakeRecord | None = None) -> list[list[Completion]]:
    """Inside `generating(model)`. make_record: makes what records a step and repeats it (utils/generation/graphs.py);
    None: CUDA graphs on CUDA, nothing elsewhere."""
    base = plain(model)
    before = attention_of(base)
    base.set_attn_implementation(CASCADE)
    try:
        return _Decoder(base, request, make_record).run()
    finally:
        base.set_attn_implementation(before)


class _Decoder:
    def __init__(self, model: nn.Module, request: Request, make_record: MakeRecord | None) -> None:
        self.model, self.request, self.how, device = model, request, request.sampling, model.device
        lengths, room = [len(p) for p in request.prompts], self.how.max_new_tokens
        self.kept = kept_for(model, lengths, make_record)
        if self.kept:
            self.cascade = Slots(lengths, request.copies, room, device, self.kept.arena)
        else:
            self.cascade = Cascade(lengths, request.copies, room, device)
        rows = len(self.cascade.order)
        self.uniforms_RT = request.uniforms(device)
        self.tokens_RT = torch.zeros(rows, room, dtype=torch.int64, device=device)
        self.logprobs_RT = torch.zeros(rows, room, device=device)
        self.lengths_R = torch.full((rows,), room, device=device)
        self.ended_R = torch.zeros(rows, dtype=torch.bool, device=device)
        self.stop = StopTokens(request.stops, request.strings, request.renderer.tokenizer, device)
        self.padded = None if _plain(self.how) else [x.to(device) for x in request.left_padded()]
        self._forget()

    def run(self) -> list[list[Completion]]:
        cascade = self.cascade
        logits_RV = self._read_prompts()[cascade.order // self.request.copies]
        if self.kept:
            advance = Recorded(self.model, cascade, self.kept, logits_RV)
        else:
            advance = Eager(self.model, cascade)
        for step in range(self.how.max_new_tokens):
            tokens_R = self._take(logits_RV.float(), step)
            if self.request.stream:
                self.request.stream(self.tokens_RT[0, : step + 1].tolist())
            if step + 1 == self.how.max_new_tokens:
                break
            alive = len(tokens_R) - int(self.ended_R[cascade.order].sum())
            if not alive:
                break
            if alive <= LEAVE * len(tokens_R):
                rows = (~self.ended_R[cascade.order]).nonzero().squeeze(-1)
                cascade.keep(rows)
                tokens_R = tokens_R[rows]
                self._forget()
            logits_RV = advance(tokens_R, step)
        rows = zip(self.tokens_RT.tolist(), self.logprobs_RT.tolist(), self.lengths_R.tolist(), strict=True)
        tokens, logprobs = zip(*((t[:n], p[:n]) for t, p, n in rows), strict=True)
        return self.request.completions(list(tokens), list(logprobs))

    def _read_prompts(self) -> Tensor:
        """Logits after each prompt, [prompts, V]."""
        found, lengths = [], self.cascade.lengths
        for part in _parts(lengths):
            ids = np.concatenate([np.asarray(self.request.prompts[i], np.int64) for i in part])
            positions = np.concatenate([np.arange(lengths[i]) for i in part])
            ends = np.cumsum([lengths[i] for i in part]) - 1
            ids, positions, ends = (torch.from_numpy(x).to(self.model.device) for x in (ids, positions, ends))
            self.cascade.packed = Layout(tuple((lengths[i], ()) for i in part))
            found.append(self.model(input_ids=ids[None], position_ids=positions[None], layout=self.cascade,
                                    use_cache=False, logits_to_keep=ends).logits[0])  # fmt: skip
        self.cascade.packed = None
        self.cascade.fill()
        return torch.cat(found)

    def _take(self, logits_RV: Tensor, step: int) -> Tensor:
        """Draw a token for each row in flight, note it and whether it ends the answer. [R]"""
        order, scores_RV = self.cascade.order, logits_RV
        if self.padded is not None:
            scores_RV = self._processors(self._ids(step), logits_RV)
        tokens_R = draw(scores_RV, None if self.uniforms_RT is None else self._uniforms_RT[:, step])
        chosen_R1 = logits_RV.gather(-1, tokens_R[:, None])
        self.tokens_RT[order, step] = tokens_R
        self.logprobs_RT[order, step] = (chosen_R1 - logits_RV.logsumexp(-1, keepdim=True)).squeeze(-1)
        ends_R = self.stop(tokens_R, lambda rows: self.tokens_RT[order[rows], : step + 1])
        new = order[ends_R & ~self.ended_R[order]]
        self.lengths_R[new] = step + 1
        self.ended_R[new] = True
        return tokens_R

    def _forget(self) -> None:
        """The rows in flight have changed: what is kept for them is made anew."""
        order = self.cascade.order
        self._uniforms_RT = None if self.uniforms_RT is None else self.uniforms_RT[order]
        if self.padded is not None:
            self._ids_RP, self._mask_RP = (x[order] for x in self.padded)
            self._processors = processors_of(self.how, self._mask_RP, self.request.stops)

    def _ids(self, step: int) -> Tensor:
        return torch.cat((self._ids_RP, self.tokens_RT[self.cascade.order, :step]), 1)


def _plain(how) -> bool:
    """Are raw logits what tokens are drawn from?"""
    return not processors_of(how, torch.ones(1, 1), [0])


def _parts(lengths: list[int]) -> list[list[int]]:
    """Prompts in order, so many to a forward pass as PROMPT_TOKENS allows."""
    parts, used = [[]], 0
    for i, length in enumerate(lengths):
        if parts[-1] and used + length > PROMPT_TOKENS:
            parts.append([])
            used = 0
        parts[-1].append(i)
        used += length
    return parts
