"""Sets of pairs without duplicates and the prompts of test sets, divided by prompt and written in three forms."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from utils.feedback.pairs.pairing import Pair, PromptKey
from utils.formats.dialogues import human_assistant
from utils.records import Answer, Record, Verdict, comparison, prompt_hash


def without_duplicates(pairs: Sequence[Pair]) -> list[Pair]:
    """Return the first of the pairs with the same prompt, chosen and rejected text."""
    first: dict[Any, Pair] = {}
    for pair in pairs:
        first.setdefault((pair.prompt_key, pair.chosen.text, pair.rejected.text), pair)
    return list(first.values())


def without_prompts(pairs: Sequence[Pair], prompts: Collection[PromptKey]) -> list[Pair]:
    """Return the pairs of other prompts."""
    return [pair for pair in pairs if pair.prompt_key not in prompts]


def divided(pairs: Sequence[Pair], share: float, seed: int) -> tuple[list[Pair], list[Pair]]:
    """Return (training, validation) pairs, of which no prompt is in both."""
    train, valid = [], []
    for pair in pairs:
        # A hash of the prompt decides, so that more data leaves the division of the old ones as it is.
        if _unit(f"validation {seed} {prompt_hash(pair.prompt)}") < share:
            valid.append(pair)
        else:
            train.append(pair)
    return train, valid


def _unit(key: str) -> float:
    """Return a number in [0, 1) that depends on nothing but `key`."""
    return (int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big") >> 11) / 2**53


def rows(pairs: Sequence[Pair], form: str) -> Iterator[Any]:
    """Yield the rows of a file. `form` pairs: a record of two answers each; sets: a record a prompt, with all its
    answers and verdicts; lines: columns prompt, chosen, reject."""
    if form == "sets":
        yield from _sets(pairs)
        return
    for pair in pairs:
        if form == "lines":
            prompt = human_assistant(Record(pair.prompt, where=pair.where)).lstrip("\n")
            yield {"prompt": prompt, "chosen": pair.chosen.text, "reject": pair.rejected.text, **pair.facts}
            continue
        record = comparison(pair.prompt, pair.chosen.text, pair.rejected.text, meta=pair.facts)
        verdict = dataclasses.replace(record.verdicts[0], judge=pair.judge, order=pair.order)
        yield dataclasses.replace(record, answers=(pair.chosen, pair.rejected), verdicts=(verdict,))


def _sets(pairs: Sequence[Pair]) -> Iterator[Record]:
    of_prompt: dict[PromptKey, list[Pair]] = {}
    for pair in pairs:
        of_prompt.setdefault(pair.prompt_key, []).append(pair)
    for mine in of_prompt.values():
        answers: dict[str, Answer] = {}
        for pair in mine:
            for answer in (pair.chosen, pair.rejected):
                answers.setdefault(answer.text, answer)
        # One answer may be in several pairs of its prompt, and is listed once.
        place = {text: number for number, text in enumerate(answers)}
        verdicts = []
        for pair in mine:
            a, b = place[pair.chosen.text], place[pair.rejected.text]
            verdicts.append(Verdict(a, b, "a", judge=pair.judge, order=pair.order))
        first, *_ = mine
        meta = {**first.meta, "kinds": [p.kind for p in mine], "margins": [p.margin for p in mine]}
        yield Record(first.prompt, tuple(answers.values()), tuple(verdicts), meta=meta)
