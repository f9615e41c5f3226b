"""The prompts kept of each source, and draws among them."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field
from itertools import chain

from utils.feedback.source_prompt import SourcePrompt
from utils.raw_datasets.spec import Spec
from utils.reporting import warn

# What became of a row or a prompt, in the order of the printed table.
ROWS, PROMPTS, DUPLICATES, TOO_LONG, TOO_SHORT, UNWANTED, SEVERAL, NOT_DRAWN, KEPT = (
    "rows", "prompts", "duplicates", "too long", "too short", "unwanted words", "of several turns", "not drawn", "kept",
)  # fmt: skip


@dataclass
class Gathering:
    """One source and the prompts kept of it.

    Args:
        name: the source, of SOURCES, or records.
        spec: its path, and the number of prompts to draw.
        prompts: the prompts that are kept.
        tally: counts of rows and prompts by what became of them.
        seen: the texts of all its prompts, drawn or not.
    """

    name: str
    spec: Spec
    prompts: list[SourcePrompt] = field(default_factory=list)
    tally: Counter[str] = field(default_factory=Counter)
    seen: set[str] = field(default_factory=set)

    def keep(self, prompts: list[SourcePrompt]) -> None:
        """Keep these of its prompts, and count the others."""
        self.tally[NOT_DRAWN] += len(self.prompts) - len(prompts)
        self.prompts = prompts


def draw(prompts: list[SourcePrompt], count: int, key: str) -> list[SourcePrompt]:
    """Draw `count` prompts, in their own order; `key` seeds the draw."""
    if len(prompts) <= count:
        return prompts
    numbers = sorted(random.Random(key).sample(range(len(prompts)), count))
    return [prompts[number] for number in numbers]


def draw_tasks(sources: list[Gathering], per_task: int, seed: int) -> None:
    """Draw `per_task` of all prompts of each task, whichever source they are of."""
    of_task: dict[str, list[SourcePrompt]] = {}
    for prompt in all_prompts(sources):
        of_task.setdefault(prompt.task, []).append(prompt)
    # By identity: two sources may hold prompts that are equal.
    kept: set[int] = set()
    for task, prompts in of_task.items():
        if len(prompts) < per_task:
            warn(f"{task}: {len(prompts)} prompts, fewer than --per_task {per_task}; all are kept")
        kept |= set(map(id, draw(prompts, per_task, f"{seed} {task}")))
    for source in sources:
        source.keep([prompt for prompt in source.prompts if id(prompt) in kept])


def all_prompts(sources: list[Gathering]) -> list[SourcePrompt]:
    """Return the prompts that are kept of all sources."""
    return list(chain.from_iterable(source.prompts for source in sources))
