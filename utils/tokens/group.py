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
    are trained only where `prompt_trained` says so (earlier assistant turns, with --train_on all).
    `pairs` are (winner, loser) indices into `answers`.
    """

    prompt: np.ndarray
    answers: tuple[np.ndarray, ...]
    pairs: tuple[tuple[int, int], ...] = ()
    prompt_trained: np.ndarray | None = None  # bool, one per prompt token; None trains none
    part: tuple[int, ...] | None = None  # in a part of a split group: which of the group's answers these are

    @property
    def tokens(self) -> int:
        """How long the packed row is: the prompt once, every answer once."""
        return len(self.prompt) + sum(map(len, self.answers))

    @property
    def trained_tokens(self) -> int:
        inside = 0 if self.prompt_trained is None else int(self.prompt_trained.sum())
        return inside + sum(map(len, self.answers))

    def split(self, budget: int, keep_pairs: bool = False) -> list[Group]:
        """Divide the answers into groups of at most `budget` tokens, the prompt repeated in each; 0 does not divide.

        An answer (keep_pairs: the two of a pair) that alone exceeds the budget makes a group by itself. keep_pairs:
        every pair is in exactly one part, an answer in several if its pairs are; without it every answer is in exactly
        one part, in order, and pairs that are divided are dropped. Trained prompt tokens stay with the first part.
        """
        if not budget or self.tokens <= budget:
            return [self]
        wanted = self.pairs if keep_pairs and self.pairs else [(k,) for k in range(len(self.answers))]
        parts: list[dict[int, None]] = []  # answers of each part, in the order in which they came
        for together in wanted:
            joined = {**parts[-1], **dict.fromkeys(together)} if parts else {}
            if parts and len(self.prompt) + sum(len(self.answers[k]) for k in joined) <= budget:
                parts[-1] = joined
            else:
                parts.append(dict.fromkeys(together))
        pairs, found = list(self.pairs), []
        for kept in parts:
            place = {k: i for i, k in enumerate(kept)}
            mine = [pair for pair in pairs if set(pair) <= kept.keys()]
            pairs = [pair for pair in pairs if pair not in mine]
            trained = None if found else self.prompt_trained
            answers, inside = tuple(self.answers[k] for k in kept), tuple((place[w], place[l]) for w, l in mine)
            found.append(Group(self.prompt, answers, inside, trained, part=tuple(kept)))
        return found

    def answer_key(self, k: int) -> bytes:
        """16 bytes that name (prompt, answer k) by content: the key of a cached log-prob."""
        digest = hashlib.blake2b(len(self.prompt).to_bytes(4, "little"), digest_size=16)
        digest.update(np.ascontiguousarray(self.prompt, np.int32).tobytes())
        digest.update(np.ascontiguousarray(self.answers[k], np.int32).tobytes())
        return digest.digest()


def group(prompt: Sequence[int], answers: Sequence[Sequence[int]], pairs=(), prompt_trained=None) -> Group:
    """A Group from plain lists."""
    return Group(
        np.asarray(prompt, np.int32),
        tuple(np.asarray(answer, np.int32) for answer in answers),
        tuple((int(w), int(l)) for w, l in pairs),
        None if prompt_trained is None else np.asarray(prompt_trained, bool),
    )


def sizes_of(groups: Sequence[Group]) -> tuple[Sequence[int], Sequence[int], Sequence[int]]:
    """(packed tokens, trained tokens, pairs) of each group; a token store knows them without reading its groups."""
    if hasattr(groups, "trained_tokens"):
        return groups.tokens, groups.trained_tokens, groups.pairs
    return [g.tokens for g in groups], [g.trained_tokens for g in groups], [len(g.pairs) for g in groups]
