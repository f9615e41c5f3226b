"""How an answer is drawn, token by token: the settings, what they do to the logits, and what ends an answer.

Legend: R rows, P the longest prompt, V vocabulary.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import LogitsProcessorList
from transformers.generation import logits_process as warp
from transformers.generation.stopping_criteria import StoppingCriteria

from utils.errors import UserError


@dataclass(frozen=True)
class Sampling:
    """How to answer. `temperature` 0 takes the likeliest token; lengths are in tokens; `min_new_tokens` holds back stop
    tokens, not stop strings; `stop_token_ids` and `stop_strings` come on top of the template's own."""

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
        """What is worth keeping beside an answer: temperature, the length limit, and what differs from the defaults."""
        kept = {"temperature": self.temperature, "max_new_tokens": self.max_new_tokens}
        if self.temperature:
            kept["seed"] = self.seed
        for name, value in asdict(self).items():
            if name not in ("num_samples", "seed") and value != _DEFAULTS[name]:
                kept[name] = list(value) if isinstance(value, tuple) else value
        return kept


_DEFAULTS = asdict(Sampling(max_new_tokens=1))


def processors_of(sampling: Sampling, mask: Tensor, stops: list[int]) -> LogitsProcessorList:
    """What is done to raw logits before a token is drawn, in transformers' order."""
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
    """Keskar et al. 2019, arXiv:1909.05858, over the prompt and the answer so far, but not over padding: its token may
    be the end token, which a short prompt beside a long one would then rarely reach."""

    def __init__(self, penalty: float, mask: Tensor) -> None:
        self.inner, self.mask = warp.RepetitionPenaltyLogitsProcessor(penalty), mask

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        mask = self.mask.repeat_interleave(len(input_ids) // len(self.mask), 0)
        prompt, answer = input_ids[:, : mask.shape[1]], input_ids[:, mask.shape[1] :]
        prompt = torch.where(mask.bool(), prompt, prompt[:, -1:])  # a token that counts anyway
        return self.inner(torch.cat((prompt, answer), 1), scores)


def uniforms(keys: Sequence[tuple[float, ...]], count: int, device: torch.device) -> Tensor:
    """[R, count] numbers in [0, 1), a function of each row's key and the place in the row alone (splitmix64: Steele,
    Lea and Flood 2014), so that a row draws the same whatever stands beside it."""
    row_R1 = np.array([hashed(*key) for key in keys], np.uint64).reshape(-1, 1)
    z = row_R1 + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    # 22 bits: times the total it stays below the total in float32
    return torch.from_numpy(((z ^ (z >> np.uint64(31))) >> np.uint64(42)).astype(np.float32) / 2**22).to(device)


def draw(scores_RV: Tensor, uniforms_R: Tensor | None) -> Tensor:
    """A token for each row, [R]: the likeliest, or that at which the cumulative probability passes the row's number.
    Raises UserError when a row's logits are not finite, those of refused tokens (minus infinity) aside."""
    if uniforms_R is None:
        tokens_R = scores_RV.argmax(-1)
        refuse_nonfinite_logits(scores_RV.gather(-1, tokens_R[:, None]))
        return tokens_R
    cumulative_RV = scores_RV.softmax(-1).cumsum(-1)
    refuse_nonfinite_logits(cumulative_RV[:, -1])
    return torch.searchsorted(cumulative_RV, uniforms_R[:, None] * cumulative_RV[:, -1:], right=True).squeeze(-1)


def refuse_nonfinite_logits(of_rows: Tensor) -> None:
    """Raise UserError unless all are finite. of_rows: a number of each row that is NaN or infinite when a logit is."""
    if not of_rows.isfinite().all():
        raise UserError(
            "the model's logits are not finite; its weights are broken or diverged: start from an earlier checkpoint, "
            "or train it again with a lower --learning_rate"
        )


class Finite(warp.LogitsProcessor):
    """The refusal of draw() where transformers draws: for beams."""

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        refuse_nonfinite_logits(scores.amax(-1))
        return scores


class Draw(warp.LogitsProcessor):
    """draw() inside `model.generate`: makes the token that it takes the arg-max, and keeps its raw log-prob."""

    def __init__(self, processors: LogitsProcessorList, uniforms_RT: Tensor | None) -> None:
        self.processors, self.uniforms_RT, self.logprobs = processors, uniforms_RT, []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        place = len(self.logprobs)
        tokens_R = draw(
            self.processors(input_ids, scores), None if self.uniforms_RT is None else self.uniforms_RT[:, place]
        )
        self.logprobs.append(scores.log_softmax(-1).gather(-1, tokens_R[:, None]))
        return torch.full_like(scores, float("-inf")).scatter_(-1, tokens_R[:, None], 0.0)


def hashed(*key: float) -> int:
    """A seed of 63 bits."""
    return int.from_bytes(hashlib.blake2b(repr(key).encode(), digest_size=8).digest(), "big") >> 1


class StopStrings(StoppingCriteria):
    """Ends a row whose answer, which begins at token `start`, holds one of the strings."""

    def __init__(self, tokenizer: Any, strings: Sequence[str], start: int) -> None:
        self.tokenizer, self.strings, self.start = tokenizer, strings, start
        self.window = max(map(len, strings)) + 8  # a token writes a character or more, pieces of a character aside

    def __call__(self, input_ids: Tensor, scores: Any, **_: Any) -> Tensor:
        ends = input_ids[:, self.start :][:, -self.window :].tolist()
        met = [any(stop in decode(self.tokenizer, end) for stop in self.strings) for end in ends]
        return torch.tensor(met, device=input_ids.device)


class StopTokens:
    """Which rows end with the token just drawn: a stop token, or one that completes a stop string. Only rows whose
    token may do so are decoded."""

    def __init__(self, stops: list[int], strings: Sequence[str], tokenizer: Any, device: torch.device) -> None:
        self.stops, self.strings = torch.tensor(stops, device=device), strings
        self.met = StopStrings(tokenizer, strings, 0) if strings else None
        self.may_end_V = _may_end(tokenizer, frozenset(s[-1] for s in strings)).to(device) if strings else None

    def __call__(self, tokens_R: Tensor, answers: Callable[[Tensor], Tensor]) -> Tensor:
        """[R], True where the row ends. answers(rows): the tokens of these rows so far."""
        ends_R = torch.isin(tokens_R, self.stops)
        if self.met is not None:
            known_R = tokens_R.clamp(max=len(self.may_end_V) - 1)  # a model may have more tokens than its tokenizer
            rows = (self.may_end_V[known_R] & ~ends_R).nonzero().squeeze(-1)
            if len(rows):
                ends_R[rows] = self.met(answers(rows), None)
        return ends_R


@functools.lru_cache(maxsize=8)
def _may_end(tokenizer: Any, last: frozenset[str]) -> Tensor:
    """[V + 1], True for tokens that may write one of these characters, a piece of one, or hidden white space; the last
    entry stands for those that the tokenizer does not know, which write nothing."""
    texts = tokenizer.batch_decode([[i] for i in range(len(tokenizer))], clean_up_tokenization_spaces=False)
    return torch.tensor([not text or "\ufffd" in text or not last.isdisjoint(text) for text in texts] + [False])


def decode(tokenizer: Any, ids: list[int]) -> str:
    """The text of tokens, nothing hidden or tidied."""
    return tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
