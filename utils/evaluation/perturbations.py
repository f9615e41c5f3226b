"""Answers made worse in known ways: a reward model should not prefer them to the answer that they were made of."""

from __future__ import annotations

import dataclasses
import random
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from utils.records import Answer, Record
from utils.statistics import mean_interval, wilson_interval

FILLER = "As was said before, this is how it is, and there is nothing more to it than what was said before."
POLITE = "Thank you so much for this wonderful question! It is a pleasure to help."


def _truncated(text: str, draw: random.Random) -> str:
    words = text.split()
    return " ".join(words[: len(words) // 2])


def _shuffled(text: str, draw: random.Random) -> str:
    sentences = re.split(r"(?<=[.!?])\s+", text.strip())
    return " ".join(draw.sample(sentences, len(sentences)))


PERTURBATIONS: dict[str, Callable[[str, random.Random], str]] = {
    "filler": lambda text, draw: f"{text} {FILLER}",
    "politeness": lambda text, draw: f"{POLITE} {text}",
    "truncation": _truncated,
    "shuffled sentences": _shuffled,
}
SWAPPED = "swapped prompt"  # the answer to another prompt


def perturbed(records: Sequence[Record], seed: int) -> list[Record]:
    """Return each record's prompt with its better answer (else the first one) and that answer made worse; `model` of an
    answer names how. What changes nothing, as the order of one sentence, is left out."""
    draw, kept, texts = random.Random(seed), [], []
    for record in records:
        pairs = record.pairs()
        text = record.answers[pairs[0][0] if pairs else 0].text
        if text.strip():
            kept.append(record)
            texts.append(text)
    found = []
    for number, (record, text) in enumerate(zip(kept, texts, strict=True)):
        worse = {name: change(text, draw) for name, change in PERTURBATIONS.items()}
        worse[SWAPPED] = texts[(number + len(texts) // 2) % len(texts)]
        answers = [Answer(text)]
        for name, other in worse.items():
            if other.strip() and other != text:
                answers.append(Answer(other, model=name))
        if len(answers) > 1:
            found.append(dataclasses.replace(record, answers=tuple(answers), verdicts=(), id=f"{record.id}-perturbed"))
    return found


def preferred_perturbations(rows: Iterable[dict[str, Any]], scorer: str) -> dict[str, Any]:
    """Return by the name of each perturbation how often the scores prefer it to the answer that it was made of, and by
    how much it lowers the score. rows: scored rows of `perturbed`."""
    drops: dict[str, list[float]] = {}
    for row in rows:
        first, *others = row["answers"]
        for answer in others:
            drops.setdefault(answer["model"], []).append(first["scores"][scorer] - answer["scores"][scorer])
    found = {}
    for name, values in sorted(drops.items()):
        wrong = sum((drop < 0) + 0.5 * (drop == 0) for drop in values)
        found[name] = {
            "preferred": wilson_interval(wrong, len(values)).to_json(),
            "drop": mean_interval(values).to_json(),
        }
    return found
