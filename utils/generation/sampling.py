"""Settings of drawing tokens, what they do to the logits, and how a token is drawn.

Legend: R rows, P the longest prompt, V vocabulary.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import LogitsProcessorList
from transformers.generation import logits_process as warp

from utils.errors import UserError


@dataclass(frozen=True)
class Sampling:
    """The settings of drawing an answer.

    Args:
        max_new_tokens: longest answer in tokens.
        min_new_tokens: no stop token before this many tokens; stop strings are not held back.
        temperature: divides the logits; 0 takes the likeliest token.
        top_p: sample from the likeliest tokens that together have this probability.
        top_k: sample from the k likeliest tokens; 0: from all.
        repetition_penalty: above 1 makes tokens of the prompt and the answer so far less likely.
        no_repeat_ngram_size: no sequence of this many tokens twice; 0: off.
        num_beams: beams of a beam search; 1: none.
        num_samples: answers to each prompt.
        seed: of the random numbers.
        stop_strings: texts that end an answer, besides those of the template.
        stop_token_ids: tokens that end an answer, besides those of the template.
    """

    max_new_tokens: int
    min_new_tokens: int = 0
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    repetition_penalty: float = 1.0
    no_repeat_ngram_size: int = 0
    num_beams: int = 1
    num_samples: int = 1
    seed: int = 0
    stop_strings: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        wrong = {
            "max_new_tokens": (self.max_new_tokens < 1, "1 or more"),
            "min_new_tokens": (not 0 <= self.min_new_tokens <= self.max_new_tokens, "0 to max_new_tokens"),
            "temperature": (self.temperature < 0, "0 (greedy) or more"),
            "top_p": (not 0 < self.top_p <= 1, "above 0 and at most 1"),
            "top_k": (self.top_k < 0, "0 (every token) or more"),
            "repetition_penalty": (self.repetition_penalty <= 0, "above 0 (1 is none)"),
            "no_repeat_ngram_size": (self.no_repeat_ngram_size < 0, "0 (off) or more"),
            "num_beams": (self.num_beams < 1, "1 or more"),
            "num_samples": (self.num_samples < 1, "1 or more"),
        }
        for name, (is_wrong, expected) in wrong.items():
            if is_wrong:
                raise UserError(f"{name} is {getattr(self, name)}; expected {expected}")
        if self.num_samples > 1 and self.temperature == 0 and self.num_beams == 1:
            raise UserError(
                f"temperature 0 gives the same answer {self.num_samples} times; raise it, or ask for one answer"
            )
        if self.num_samples > self.num_beams > 1:
            raise UserError(f"{self.num_beams} beams give at most as many answers; num_samples is {self.num_samples}")

    def to_json(self) -> dict[str, Any]:
        """Return what is kept beside an answer: temperature, the length limit, and what differs from the defaults."""
        kept = {"temperature": self.temperature, "max_new_tokens": self.max_new_tokens}
        if self.temperature:
            kept["seed"] = self.seed
        for name, value in asdict(self).items():
            if name not in ("num_samples", "seed") and value != _DEFAULTS[name]:
                kept[name] = list(value) if isinstance(value, tuple) else value
        return kept


_DEFAULTS = asdict(Sampling(max_new_tokens=1))


def processors_of(sampling: Sampling, mask: Tensor, stops: list[int]) -> LogitsProcessorList:
    """Return the processors of raw logits, in transformers' order. mask: [rows, P], 0 at padding; stops: tokens."""
    found: list[Any] = []
    if sampling.repetition_penalty != 1:
        found.append(RepetitionPenalty(sampling.repetition_penalty, mask))
    if sampling.no_repeat_ngram_size:
        found.append(warp.NoRepeatNGramLogitsProcessor(sampling.no_repeat_ngram_size))
    if sampling.min_new_tokens:
        found.append(warp.MinNewTokensLengthLogitsProcessor(mask.shape[1], sampling.min_new_tokens, stops, mask.device))
    if sampling.temperature not in (0, 1):
        found.append(warp.TemperatureLogitsWarper(float(sampling.temperature)))
    if sampling.temperature and sampling.top_k:
        found.append(warp.TopKLogitsWarper(sampling.top_k))
    if sampling.temperature and sampling.top_p < 1:
        found.append(warp.TopPLogitsWarper(sampling.top_p))
    return LogitsProcessorList(found)


class RepetitionPenalty(warp.LogitsProcessor):
    """The penalty of Keskar et al. 2019, arXiv:1909.05858, on tokens of the prompt and of the answer so far.

    Padding is left out: its token may be the end token, which a short prompt beside a long one would then rarely reach.
    """

    def __init__(self, penalty: float, mask: Tensor) -> None:
        self.inner, self.mask = warp.RepetitionPenaltyLogitsProcessor(penalty), mask

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        mask = self.mask.repeat_interleave(len(input_ids) // len(self.mask), 0)
        prompt, answer = input_ids[:, : mask.shape[1]], input_ids[:, mask.shape[1] :]
        # The prompt's last token counts anyway, so in place of padding it changes nothing.
        prompt = torch.where(mask.bool(), prompt, prompt[:, -1:])
        return self.inner(torch.cat((prompt, answer), 1), scores)


def uniforms(keys: Sequence[tuple[float, ...]], count: int, device: torch.device) -> Tensor:
    """Return random numbers in [0, 1), [R, count], that depend on each row's key and the place in the row alone.

    A row draws the same numbers whatever its batch is.
    """
    # splitmix64: Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators", figure 17.
    row_R1 = np.array([hashed(*key) for key in keys], np.uint64).reshape(-1, 1)
    z = row_R1 + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    # 22 bits: in float32 the number times a total then stays below the total.
    return torch.from_numpy(((z ^ (z >> np.uint64(31))) >> np.uint64(42)).astype(np.float32) / 2**22).to(device)


def draw(scores_RV: Tensor, uniforms_R: Tensor | None) -> Tensor:
    """Return a token for each row, [R]: the one at which the cumulative probability passes the row's random number.

    Without random numbers it is the likeliest. Raises UserError when a row's logits are not finite, those of refused
    tokens (minus infinity) aside.
    """
    if uniforms_R is None:
        tokens_R = scores_RV.argmax(-1)
        refuse_nonfinite_logits(scores_RV.gather(-1, tokens_R[:, None]))
        return tokens_R
    cumulative_RV = scores_RV.softmax(-1).cumsum(-1)
    refuse_nonfinite_logits(cumulative_RV[:, -1])
    return torch.searchsorted(cumulative_RV, uniforms_R[:, None] * cumulative_RV[:, -1:], right=True).squeeze(-1)


def refuse_nonfinite_logits(of_rows: Tensor) -> None:
    """Raise UserError unless all numbers are finite; each is NaN or infinite when a logit of its row is."""
    if not of_rows.isfinite().all():
        raise UserError(
            "the model's logits are not finite; its weights are broken or diverged: start from an earlier checkpoint, "
            "or train it again with a lower --learning_rate"
        )


class RefuseNonfinite(warp.LogitsProcessor):
    """A processor that refuses logits as draw() does, for beams, where transformers draws."""

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        refuse_nonfinite_logits(scores.amax(-1))
        return scores


class DrawProcessor(warp.LogitsProcessor):
    """draw() as a processor of `model.generate`: leaves only the drawn token possible, and keeps its raw log-prob.

    `logprobs`: [R, 1] of each token so far.
    """

    def __init__(self, processors: LogitsProcessorList, uniforms_RT: Tensor | None) -> None:
        self.processors, self.uniforms_RT = processors, uniforms_RT
        self.logprobs: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        uniforms_R = None
        if self.uniforms_RT is not None:
            uniforms_R = self.uniforms_RT[:, len(self.logprobs)]
        tokens_R = draw(self.processors(input_ids, scores), uniforms_R)
        self.logprobs.append(scores.log_softmax(-1).gather(-1, tokens_R[:, None]))
        return torch.full_like(scores, float("-inf")).scatter_(-1, tokens_R[:, None], 0.0)


def hashed(*key: float) -> int:
    """Return a seed of 63 bits."""
    return int.from_bytes(hashlib.blake2b(repr(key).encode(), digest_size=8).digest(), "big") >> 1
