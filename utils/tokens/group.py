"""Feedback as tokens: a prompt and its k answers, the prompt written once."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Group:
    """One prompt and its k answers as token ids (int32).

    Every token of an answer is trained (its stop token is the last of them, unless the answer was cut). Prompt tokens
    are trained only where `prompt_trained` is true (earlier assistant turns, with --train_on all).
    `pairs` are (chosen, rejected) indices into `answers`.
    """

    prompt: np.ndarray
    answers: tuple[np.ndarray, ...]
    pairs: tuple[tuple[int, int], ...] = ()
    prompt_trained: np.ndarray | None = None  # bool, one per prompt token; None trains none
    part: tuple[int, ...] | None = None  # in a part of a split group: which of the group's answers these are

    @property
    def tokens(self) -> int:
        """Return the length of the packed row: the prompt once, every answer once."""
        return len(self.prompt) + sum(map(len, self.answers))

    @property
    def trained_tokens(self) -> int:
        """Return how many tokens a loss of tokens is averaged over."""
        answers = sum(map(len, self.answers))
        if self.prompt_trained is None:
            return answers
        return int(self.prompt_trained.sum()) + answers

    def split(self, budget: int, keep_pairs: bool = False) -> list[Group]:
        """Divide the answers into groups of at most `budget` tokens, the prompt repeated in each; 0 does not divide.

        An answer (keep_pairs: the two of a pair) that alone exceeds the budget makes a group by itself. keep_pairs:
        every pair is in exactly one part, an answer in several if its pairs are; without it every answer is in exactly
        one part, in order, and pairs that are divided are dropped. Trained prompt tokens stay with the first part.
        """
        if not budget or self.tokens <= budget:
            return [self]
        if keep_pairs and self.pairs:
            together = self.pairs
        else:
            together = [(k,) for k in range(len(self.answers))]
        parts: list[dict[int, None]] = []  # answers of each part, in the order in which they came
        for answers in together:
            if parts:
                # pairs may share an answer, which is then in the part once
                joined = {**parts[-1], **dict.fromkeys(answers)}
                if len(self.prompt) + sum(len(self.answers[k]) for k in joined) <= budget:
                    parts[-1] = joined
                    continue
            parts.append(dict.fromkeys(answers))
        left, found = list(self.pairs), []
        for part in parts:
            here = [pair for pair in left if set(pair) <= part.keys()]
            left = [pair for pair in left if pair not in here]
            found.append(self._part(tuple(part), here, with_prompt=not found))
        return found

    def _part(self, kept: tuple[int, ...], pairs: list[tuple[int, int]], with_prompt: bool) -> Group:
        """Return the group of the answers `kept`; with_prompt: trained prompt tokens are trained in it."""
        answers = tuple(self.answers[k] for k in kept)
        inside = tuple((kept.index(chosen), kept.index(rejected)) for chosen, rejected in pairs)
        trained = self.prompt_trained if with_prompt else None
        return Group(self.prompt, answers, inside, trained, part=kept)

    def answer_key(self, k: int) -> bytes:
        """Return 16 bytes that name (prompt, answer k) by content: the key of a cached log-prob."""
        # The prompt's length first: the same tokens with another end of the prompt are another answer.
        digest = hashlib.blake2b(len(self.prompt).to_bytes(4, "little"), digest_size=16)
        digest.update(np.ascontiguousarray(self.prompt, np.int32).tobytes())
        digest.update(np.ascontiguousarray(self.answers[k], np.int32).tobytes())
        return digest.digest()


def group(
    prompt: Sequence[int], answers: Sequence[Sequence[int]], pairs: Sequence[tuple[int, int]] = (),
    prompt_trained: Sequence[bool] | None = None,
) -> Group:  # fmt: skip
    """Return a Group of plain lists.

    Args:
        prompt: token ids.
        answers: token ids of each answer.
        pairs: (chosen, rejected) indices into `answers`.
        prompt_trained: of each prompt token, whether it is trained; None trains none.
    """
    if prompt_trained is not None:
        prompt_trained = np.asarray(prompt_trained, bool)
    arrays = tuple(np.asarray(answer, np.int32) for answer in answers)
    whole = tuple((int(chosen), int(rejected)) for chosen, rejected in pairs)
    return Group(np.asarray(prompt, np.int32), arrays, whole, prompt_trained)


def sizes_of(groups: Sequence[Group]) -> tuple[Sequence[int], Sequence[int], Sequence[int]]:
    """Return packed tokens, trained tokens and pairs of each group; a token store knows them without reading it."""
    if hasattr(groups, "trained_tokens"):
        return groups.tokens, groups.trained_tokens, groups.pairs
    return [g.tokens for g in groups], [g.trained_tokens for g in groups], [len(g.pairs) for g in groups]
