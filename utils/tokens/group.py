"""Feedback as tokens: a prompt and its k answers, the prompt written once."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

# What a loss is averaged over: trained tokens, answers, votes (one judgement of one answer as good or bad), pairs, or
# whole prompts with all their answers.
Unit = Literal["token", "answer", "vote", "pair", "prompt"]


@dataclass(frozen=True)
class Feedback:
    """What is known of a group's k answers and m pairs, an array for each thing that its kind of data needs.

    The names are also those of the token store's files: another name of one is another format.
    """

    rating: np.ndarray | None = None  # float32 [k], a rating or a reward; NaN: unknown
    rank: np.ndarray | None = None  # int32 [k], 1 is the best, equal ranks are ties; 0: unknown
    good: np.ndarray | None = None  # int32 [k], how often the answer was judged good (a thumb, a comparison won)
    bad: np.ndarray | None = None  # int32 [k], how often bad
    confidence: np.ndarray | None = None  # float32 [m], P(the chosen answer is truly the better); a hard verdict: 1
    tie: np.ndarray | None = None  # bool [m], whether neither was judged the better

    def of(self, answers: Sequence[int], pairs: Sequence[int]) -> Feedback:
        """Return what is known of these answers and pairs, given by their numbers."""
        chosen = {}
        for name, values in vars(self).items():
            if values is not None:
                chosen[name] = values[list(pairs if name in OF_PAIRS else answers)]
        return Feedback(**chosen)


OF_PAIRS = ("confidence", "tie")
OF_ANSWERS = ("rating", "rank", "good", "bad")


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
    feedback: Feedback = Feedback()

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

    def split(self, budget: int, unit: Unit = "token") -> list[Group]:
        """Divide the answers into groups of at most `budget` tokens, the prompt repeated in each; 0 does not divide.

        Nothing that a loss of this unit needs together is divided: with `pair` every pair is in exactly one part, an
        answer in several if its pairs are; with `prompt` nothing is divided at all. With the other units every answer
        is in exactly one part, in order, and pairs that are divided are dropped. What alone exceeds the budget makes a
        group by itself. Trained prompt tokens stay with the first part.
        """
        if not budget or self.tokens <= budget or unit == "prompt":
            return [self]
        if unit == "pair" and self.pairs:
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
        left, found = list(range(len(self.pairs))), []
        for part in parts:
            here = [pair for pair in left if part.keys() >= set(self.pairs[pair])]
            left = [pair for pair in left if pair not in here]
            found.append(self._part(tuple(part), here, with_prompt=not found))
        return found

    def _part(self, kept: tuple[int, ...], pairs: list[int], with_prompt: bool) -> Group:
        """Return the group of the answers `kept` and of `pairs`, both by their numbers; with_prompt: trained prompt
        tokens are trained in it."""
        answers = tuple(self.answers[k] for k in kept)
        inside = tuple((kept.index(self.pairs[n][0]), kept.index(self.pairs[n][1])) for n in pairs)
        trained = self.prompt_trained if with_prompt else None
        return Group(self.prompt, answers, inside, trained, part=kept, feedback=self.feedback.of(kept, pairs))

    def answer_key(self, k: int) -> bytes:
        """Return 16 bytes that name (prompt, answer k) by content: the key of a cached log-prob."""
        # The prompt's length first: the same tokens with another end of the prompt are another answer.
        digest = hashlib.blake2b(len(self.prompt).to_bytes(4, "little"), digest_size=16)
        digest.update(np.ascontiguousarray(self.prompt, np.int32).tobytes())
        digest.update(np.ascontiguousarray(self.answers[k], np.int32).tobytes())
        return digest.digest()


def group(
    prompt: Sequence[int], answers: Sequence[Sequence[int]], pairs: Sequence[tuple[int, int]] = (),
    prompt_trained: Sequence[bool] | None = None, feedback: Feedback | None = None,
) -> Group:  # fmt: skip
    """Return a Group of plain lists.

    Args:
        prompt: token ids.
        answers: token ids of each answer.
        pairs: (chosen, rejected) indices into `answers`.
        prompt_trained: of each prompt token, whether it is trained; None trains none.
        feedback: what is known of the answers and pairs.
    """
    if prompt_trained is not None:
        prompt_trained = np.asarray(prompt_trained, bool)
    arrays = tuple(np.asarray(answer, np.int32) for answer in answers)
    whole = tuple((int(chosen), int(rejected)) for chosen, rejected in pairs)
    return Group(np.asarray(prompt, np.int32), arrays, whole, prompt_trained, feedback=feedback or Feedback())


def sizes_of(groups: Sequence[Group], unit: Unit) -> tuple[Sequence[int], Sequence[int]]:
    """Return packed tokens, and what a loss of this unit is averaged over, of each group; a token store knows both
    without reading its tokens."""
    if hasattr(groups, "units"):
        return groups.tokens, groups.units(unit)
    return [group.tokens for group in groups], [_units(group, unit) for group in groups]


def _units(group: Group, unit: Unit) -> int:
    if unit == "token":
        return group.trained_tokens
    if unit == "pair":
        return len(group.pairs)
    if unit == "vote":
        return int(group.feedback.good.sum() + group.feedback.bad.sum())
    return len(group.answers) if unit == "answer" else 1
