"""Requests as data_collect/prompts/ word them, and cases of the built-in world to judge."""

from __future__ import annotations

import random

from utils.world.exchanges import draw_exchange, write_prompt
from utils.world.teachers import TEACHERS

NAMES = {"system": "System", "user": "Human", "assistant": "Assistant"}


def conversation(turns):
    return "\n\n".join(f"{NAMES[turn.role]}: {turn.content}" for turn in turns)


def request(task, turns, *answers, comment=None, form="As asked."):
    """The messages of a request: one answer stands under `### Answer`, several under `### Answer A`, B, …"""
    blocks = [f"### Task: {task}", f"### Conversation\n{conversation(turns)}"]
    letters = [""] if len(answers) == 1 else [f" {letter}" for letter in "ABCDEFGH"]
    blocks += [f"### Answer{letter}\n{answer}" for letter, answer in zip(letters, answers, strict=False)]
    blocks += [f"### Comment\n{comment}"] if comment is not None else []
    text = "\n\n".join(["Please judge what a tutor said.", *blocks, f"### Reply\n{form}"])
    return [{"role": "system", "content": "You are a judge."}, {"role": "user", "content": text}]


def cases(number, answers, seed=0):
    """(exchange, turns, texts of both teachers) `number` times."""
    rng = random.Random(seed)
    for _ in range(number):
        exchange = draw_exchange(rng)
        turns = write_prompt(exchange, rng)
        yield exchange, turns, [TEACHERS[rng.choice(("strong", "weak"))](exchange, rng) for _ in range(answers)]
