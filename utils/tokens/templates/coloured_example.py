"""The tokens of a group as coloured text: what is trained and what is only read."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from rich.text import Text

from utils.tokens.group import Group

TRAINED, READ = "green", "dim"
SHOWN = 300  # tokens of a prompt or an answer; of longer ones the two ends


def coloured(tokenizer: Any, group: Group) -> Text:
    """Return the prompt and each answer as text: green tokens are trained, dim ones only read."""
    trained = group.prompt_trained
    if trained is None:
        trained = np.zeros(len(group.prompt), bool)
    text = Text().append("prompt: ", "bold").append(_runs(tokenizer, group.prompt, trained))
    winners = {winner for winner, _ in group.pairs}
    losers = {loser for _, loser in group.pairs}
    for place, answer in enumerate(group.answers):
        verdict = ""
        if place in winners - losers:
            verdict = " (preferred)"
        elif place in losers - winners:
            verdict = " (rejected)"
        text.append(f"\nanswer {place + 1}{verdict}: ", "bold")
        text.append(_runs(tokenizer, answer, np.ones(len(answer), bool)))
    return text


def _runs(tokenizer: Any, ids: np.ndarray, trained: np.ndarray) -> Text:
    if len(ids) > SHOWN:
        half = SHOWN // 2
        first, last = _runs(tokenizer, ids[:half], trained[:half]), _runs(tokenizer, ids[-half:], trained[-half:])
        return first.append(f" … {len(ids) - SHOWN} tokens … ", "bold").append(last)
    edges = [0, *(np.flatnonzero(np.diff(trained.astype(int))) + 1).tolist(), len(ids)]
    text, written = Text(), ""
    # Always decoded from the first token on: alone, a run would lose the space that its first token begins with.
    for start, end in itertools.pairwise(edges):
        upto = tokenizer.decode(ids[:end].tolist(), skip_special_tokens=False, clean_up_tokenization_spaces=False)
        text.append(upto[len(written) :], TRAINED if start < end and trained[start] else READ)
        written = upto
    return text
