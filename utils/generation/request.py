"""What a back end is given (prompts and settings), what it returns (completions), and where an answer ends."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from utils.generation.sampling import Sampling, uniforms
from utils.generation.stopping import decode
from utils.tokens.templates import Renderer


@dataclass(frozen=True)
class Completion:
    """One answer.

    Args:
        tokens: they end with the stop token, if it came.
        text: the answer without what ended it.
        finished: False when the length limit cut the answer.
        logprobs: of each token under the model's raw distribution (temperature 1, nothing held back).
    """

    tokens: list[int]
    text: str
    finished: bool
    logprobs: list[float]


@dataclass
class GenerationRequest:
    """Prompts, and how to answer them. The rows of a back end are all answers, those of one prompt beside each other.

    Args:
        renderer: the tokenizer, and what ends an answer by the template.
        prompts: token ids of each.
        sampling: the settings of drawing tokens.
        numbers: of the prompts, by default 0, 1, 2, …: what is drawn depends on them and not on the batch.
        synced: whether the weights are sharded (ZeRO-3), so that all ranks take every step together (a collective).
        stream: called with the tokens so far of a request that has a single row.
    """

    renderer: Renderer
    prompts: Sequence[Sequence[int]]
    sampling: Sampling
    numbers: Sequence[int] | None = None
    synced: bool = False
    stream: Callable[[list[int]], None] | None = None

    def __post_init__(self) -> None:
        if self.numbers is None:
            self.numbers = range(len(self.prompts))

    def part(self, places: Sequence[int]) -> GenerationRequest:
        """Return the request for the prompts at these places."""
        prompts, numbers = [self.prompts[i] for i in places], [self.numbers[i] for i in places]
        return dataclasses.replace(self, prompts=prompts, numbers=numbers)

    @property
    def copies(self) -> int:
        """Rows of a prompt: its samples, or one where beams give several answers."""
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
        """Return random numbers, [rows, max_new_tokens], or None when nothing is drawn."""
        sampling = self.sampling
        if not sampling.temperature:
            return None
        keys = []
        for number in self.numbers:
            for copy in range(self.copies):
                keys.append((sampling.seed, sampling.temperature, number, copy))
        return uniforms(keys, sampling.max_new_tokens, device)

    def left_padded(self) -> tuple[Tensor, Tensor]:
        """Return (ids, mask), each [rows, longest prompt]; the mask is 0 where a row is padded."""
        longest, pad = max(map(len, self.prompts)), self.renderer.tokenizer.pad_token_id
        ids, mask = [], []
        for prompt in self.prompts:
            padding = longest - len(prompt)
            ids += [[pad] * padding + list(map(int, prompt))] * self.copies
            # By its place, not by its id: the padding token may be a token of the prompt.
            mask += [[0] * padding + [1] * len(prompt)] * self.copies
        return torch.tensor(ids), torch.tensor(mask)

    def completions(self, tokens: list[list[int]], logprobs: list[list[float]]) -> list[list[Completion]]:
        """Return the rows of a back end as completions, prompt by prompt."""
        answers = list(map(self._completion, tokens, logprobs))
        samples = self.sampling.num_samples
        return [answers[i : i + samples] for i in range(0, len(answers), samples)]

    def _completion(self, tokens: list[int], logprobs: list[float]) -> Completion:
        end = self._end(tokens)
        kept = tokens[:end]
        # A stop token that only this request names is not part of the text; the template's own hides itself.
        stopped_by_own = kept[-1] in self.renderer.stop_token_ids or kept[-1] not in self.stops
        text = self.renderer.decode_answer(kept if stopped_by_own else kept[:-1])
        for stop in self.strings:
            text = text.partition(stop)[0]
        return Completion(kept, text, finished=end is not None, logprobs=logprobs[: len(kept)])

    def _end(self, tokens: list[int]) -> int | None:
        """Return the length of the answer, with the token that ends it, or None if none does; the rest is padding."""
        end = None
        for length, token in enumerate(tokens, start=1):
            if token in self.stops:
                end = length
                break
        if not self._holds_stop_string(tokens[:end]):
            return end
        length = 1
        while not self._holds_stop_string(tokens[:length]):
            length += 1
        return length

    def _holds_stop_string(self, tokens: list[int]) -> bool:
        if not self.strings:
            return False
        text = decode(self.renderer.tokenizer, tokens)
        return any(stop in text for stop in self.strings)
