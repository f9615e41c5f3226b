"""What is asked of a back end, what it gives back, and where an answer ends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from utils.generation.sampling import Sampling, decode, uniforms
from utils.tokens.templates import Renderer


@dataclass(frozen=True)
class Completion:
    """One answer. `tokens` end with the stop token if it came; `finished` is False when the length limit cut it;
    `logprobs` are those of the tokens under the model's raw distribution (temperature 1, nothing held back)."""

    tokens: list[int]
    text: str
    finished: bool
    logprobs: list[float]


@dataclass(frozen=True)
class Request:
    """A batch of prompts (token ids) and how to answer them. Rows are all answers, those of one prompt beside each
    other. `synced`: the weights are sharded, so all ranks take every step together. `stream` is called with the tokens
    so far of a single row."""

    renderer: Renderer
    prompts: Sequence[Sequence[int]]
    sampling: Sampling
    numbers: Sequence[int]  # of the prompts: what is drawn depends on them, not on the batch
    synced: bool = False
    stream: Callable[[list[int]], None] | None = None

    @property
    def copies(self) -> int:
        return self.sampling.num_samples if self.sampling.num_beams == 1 else 1

    @cached_property
    def stops(self) -> list[int]:
        """Tokens that end an answer."""
        return list(dict.fromkeys([*self.renderer.stop_token_ids, *self.sampling.stop_token_ids]))

    @cached_property
    def strings(self) -> tuple[str, ...]:
        """Texts that end an answer."""
        return (*self.renderer.stop_strings, *self.sampling.stop_strings)

    def uniforms(self, device: torch.device) -> Tensor | None:
        """[rows, max_new_tokens] random numbers; None when nothing is drawn."""
        how = self.sampling
        if not how.temperature:
            return None
        keys = [(how.seed, how.temperature, number, copy) for number in self.numbers for copy in range(self.copies)]
        return uniforms(keys, how.max_new_tokens, device)

    def left_padded(self) -> tuple[Tensor, Tensor]:
        """(ids, mask), each [rows, longest]. The mask knows the padding by its place: the padding token may be a token
        of the prompt."""
        longest, pad = max(map(len, self.prompts)), self.renderer.tokenizer.pad_token_id
        rows = [list(map(int, p)) for p in self.prompts for _ in range(self.copies)]
        ids = torch.tensor([[pad] * (longest - len(row)) + row for row in rows])
        mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
        return ids, mask

    def completions(self, tokens: list[list[int]], logprobs: list[list[float]]) -> list[list[Completion]]:
        """The rows of a back end, prompt by prompt."""
        answers = [self._completion(t, p) for t, p in zip(tokens, logprobs, strict=True)]
        samples = self.sampling.num_samples
        return [answers[i : i + samples] for i in range(0, len(answers), samples)]

    def _completion(self, tokens: list[int], logprobs: list[float]) -> Completion:
        """Cut after the first stop token, or the first token that completes a stop string: what follows is padding."""
        end = next((n for n, token in enumerate(tokens, start=1) if token in self.stops), None)
        tokenizer = self.renderer.tokenizer
        whole = decode(tokenizer, tokens[:end]) if self.strings else ""
        if any(stop in whole for stop in self.strings):
            end = next(n for n in range(1, len(tokens) + 1)
                       if any(stop in decode(tokenizer, tokens[:n]) for stop in self.strings))  # fmt: skip
        kept = tokens[:end]
        stopped_by_own = kept[-1] in self.renderer.stop_token_ids or kept[-1] not in self.stops
        text = self.renderer.decode_answer(kept if stopped_by_own else kept[:-1])
        for stop in self.strings:
            text = text.partition(stop)[0]
        return Completion(kept, text, end is not None, logprobs[: len(kept)])
