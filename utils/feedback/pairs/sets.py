"""Sets of pairs: duplicates and the prompts of test sets taken out, divided by prompt, written in three forms."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from utils.feedback.pairs.pairing import Pair, PromptKey
from utils.formats.dialogues import human_assistant
from utils.records import Answer, Record, Verdict, comparison, prompt_hash


def without_duplicates(pairs: Sequence[Pair]) -> list[Pair]:
    """The first of those that say the same of the same two texts."""
    first: dict[Any, Pair] = {}
    for pair in pairs:
        first.setdefault((pair.prompt_key, pair.chosen.text, pair.rejected.text), pair)
    return list(first.values())


def without_prompts(pairs: Sequence[Pair], prompts: Collection[PromptKey]) -> list[Pair]:
    return [pair for pair in pairs if pair.prompt_key not in prompts]


def divided(pairs: Sequence[Pair], share: float, seed: int) -> tuple[list[Pair], list[Pair]]:
    """(training, validation): a hash of the prompt and the seed decides, so that no prompt is in both."""
    held = [_unit(f"validation {seed} {prompt_hash(pair.prompt)}") < share for pair in pairs]
    return (
        [pair for pair, out in zip(pairs, held, strict=True) if not out],
        [pair for pair, out in zip(pairs, held, strict=True) if out],
    )


def _unit(key: str) -> float:
    """A number in [0, 1) that depends on nothing but `key`."""
    return (int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big") >> 11) / 2**53


def rows(pairs: Sequence[Pair], form: str) -> Iterator[Any]:
    """pairs: a record of two answers each; sets: a record a prompt, with all its answers and verdicts; lines: columns
    prompt, chosen, reject."""
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
        place = {text: number for number, text in enumerate(answers)}
        verdicts = [Verdict(place[p.chosen.text], place[p.rejected.text], "a", p.judge, p.order) for p in mine]
        meta = {**mine[0].meta, "kinds": [p.kind for p in mine], "margins": [p.margin for p in mine]}
        yield Record(mine[0].prompt, tuple(answers.values()), tuple(verdicts), meta=meta)
