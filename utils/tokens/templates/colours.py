"""What is trained, seen: the tokens of a group as coloured text."""

from __future__ import annotations

from typing import Any

import numpy as np
from rich.text import Text

from utils.tokens.group import Group

TRAINED, READ = "green", "dim"
SHOWN = 300  # tokens of a prompt or an answer; of longer ones the two ends


def coloured(tokenizer: Any, group: Group) -> Text:
    """The prompt and each answer: green tokens are trained, dim ones only read."""
    trained = np.zeros(len(group.prompt), bool) if group.prompt_trained is None else group.prompt_trained
    text = Text().append("prompt: ", "bold").append(_runs(tokenizer, group.prompt, trained))
    winners, losers = ({pair[side] for pair in group.pairs} for side in (0, 1))
    for k, answer in enumerate(group.answers):
        verdict = {(True, False): " (preferred)", (False, True): " (rejected)"}.get((k in winners, k in losers), "")
        text.append(f"\nanswer {k + 1}{verdict}: ", "bold").append(_runs(tokenizer, answer, np.ones(len(answer), bool)))
    return text


def _runs(tokenizer: Any, ids: np.ndarray, trained: np.ndarray) -> Text:
    if len(ids) > SHOWN:
        half = SHOWN // 2
        first, last = _runs(tokenizer, ids[:half], trained[:half]), _runs(tokenizer, ids[-half:], trained[-half:])
        return first.append(f" … {len(ids) - SHOWN} tokens … ", "bold").append(last)
    edges = [0, *(np.flatnonzero(np.diff(trained.astype(int))) + 1).tolist(), len(ids)]
    text, written = Text(), ""
    for start, end in zip(edges, edges[1:], strict=False):
        upto = tokenizer.decode(ids[:end].tolist(), skip_special_tokens=False, clean_up_tokenization_spaces=False)
        text.append(upto[len(written) :], TRAINED if start < end and trained[start] else READ)
        written = upto
    return text
