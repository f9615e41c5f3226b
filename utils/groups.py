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

    @property
    def tokens(self) -> int:
        """How long the packed row is: the prompt once, every answer once."""
        return len(self.prompt) + sum(map(len, self.answers))

    @property
    def trained_tokens(self) -> int:
        inside = 0 if self.prompt_trained is None else int(self.prompt_trained.sum())
        return inside + sum(map(len, self.answers))

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
