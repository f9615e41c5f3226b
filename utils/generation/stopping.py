"""Where an answer ends: at a stop token, or where a stop string is complete. Legend: R rows, V vocabulary."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.generation.stopping_criteria import StoppingCriteria


class StopStrings(StoppingCriteria):
    """A criterion of `model.generate` that ends a row whose answer, from token `start` on, holds one of the strings."""

    def __init__(self, tokenizer: Any, strings: Sequence[str], start: int) -> None:
        self.tokenizer, self.strings, self.start = tokenizer, strings, start
        # Tokens that may hold a string: each writes a character or more, but a character may take several (8 to spare).
        self.window = max(map(len, strings)) + 8

    def __call__(self, input_ids: Tensor, scores: Any, **_: Any) -> Tensor:
        ends = input_ids[:, self.start :][:, -self.window :].tolist()
        met = []
        for end in ends:
            text = decode(self.tokenizer, end)
            met.append(any(stop in text for stop in self.strings))
        return torch.tensor(met, device=input_ids.device)


class StopTokens:
    """Finds the rows that end with the token just drawn: a stop token, or one that completes a stop string.

    Args:
        stops: ids of the stop tokens.
        strings: the stop strings.
        tokenizer: decodes what may hold a stop string.
        device: where tokens are drawn.
    """

    def __init__(self, stops: list[int], strings: Sequence[str], tokenizer: Any, device: torch.device) -> None:
        self.stops, self.strings = torch.tensor(stops, device=device), strings
        self.met = self.may_end_V = None
        if strings:
            # Decoding is slow: only rows whose token may write the last character of a string are decoded.
            self.may_end_V = _may_end(tokenizer, frozenset(s[-1] for s in strings)).to(device)
            self.met = StopStrings(tokenizer, strings, 0)

    def __call__(self, tokens_R: Tensor, answers: Callable[[Tensor], Tensor]) -> Tensor:
        """Return [R], True where the row ends. answers(rows) gives the tokens of these rows so far."""
        ends_R = torch.isin(tokens_R, self.stops)
        if self.met is not None:
            # A model may have more tokens than its tokenizer; the last entry stands for these.
            known_R = tokens_R.clamp(max=len(self.may_end_V) - 1)
            rows = (self.may_end_V[known_R] & ~ends_R).nonzero().squeeze(-1)
            if len(rows):
                ends_R[rows] = self.met(answers(rows), None)
        return ends_R


@functools.lru_cache(maxsize=8)
def _may_end(tokenizer: Any, last: frozenset[str]) -> Tensor:
    """Return [V + 1], True for tokens that may write one of these characters, a piece of one, or hidden white space.

    The last entry is for tokens that the tokenizer does not know, which write nothing.
    """
    texts = tokenizer.batch_decode([[i] for i in range(len(tokenizer))], clean_up_tokenization_spaces=False)
    found = []
    for text in texts:
        found.append(not text or "\ufffd" in text or not last.isdisjoint(text))
    return torch.tensor([*found, False])


def decode(tokenizer: Any, ids: list[int]) -> str:
    """Return the text of tokens, special ones included, with white space as it is."""
    return tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
