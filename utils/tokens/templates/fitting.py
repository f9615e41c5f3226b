"""Cutting a group to length, and counting what was cut and why."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from itertools import takewhile

import numpy as np

from utils.arguments.options import DataArguments
from utils.errors import UserError
from utils.tokens.group import Group
from utils.tokens.templates.choosing import Row, Tally
from utils.tokens.templates.rendering import Renderer


@dataclass(frozen=True)
class Limits:
    """Longest prompt, longest answer (stop token included) and longest prompt with one answer, in tokens."""

    prompt: int
    answer: int
    total: int
    truncation: str  # keep_end | keep_start | drop_turns | drop

    @staticmethod
    def of(data: DataArguments) -> Limits:
        return Limits(data.max_prompt_seq_len, data.max_answer_seq_len, data.max_length, data.truncation)

    def __str__(self) -> str:
        return f"prompt ≤ {self.prompt}, answer ≤ {self.answer}, together ≤ {self.total} tokens, {self.truncation}"


def fit(renderer: Renderer, row: Row, group: Group, limits: Limits, tally: Tally) -> Group | None:
    """`group`, which is renderer.group(*row), cut to `limits`; None when it is dropped.

    An answer loses its end, and with it its stop token; a prompt keeps its begin token and the words that open the
    answer. When prompt and answer are too long only together, the prompt gives way down to half of the total, then the
    answers. A pair whose answers are the same tokens, from the first or once cut, is dropped. Raises UserError.
    """
    longest = min(max(map(len, group.answers), default=limits.answer), limits.answer)
    room = min(limits.prompt, max(limits.total - longest, limits.total // 2))
    if len(group.prompt) > room:
        if limits.truncation == "drop":
            tally.add("records dropped: prompt too long", row.record)
            return None
        if limits.truncation == "drop_turns":
            group = _drop_turns(renderer, row, group, room, tally)
    if len(group.prompt) > room:
        group = _cut_prompt(renderer, group, room, limits.truncation == "keep_start", row.record.where)
        end = "end" if limits.truncation == "keep_start" else "start"
        tally.add(f"prompts cut at their {end}", row.record)
    room = min(limits.answer, limits.total - len(group.prompt))
    tally.add("answers cut at their end", row.record, sum(len(answer) > room for answer in group.answers))
    answers = tuple(answer[:room] for answer in group.answers)
    pairs = tuple(pair for pair in group.pairs if not np.array_equal(*(answers[k] for k in pair)))
    tally.add("pairs dropped: both answers are the same tokens", row.record, len(group.pairs) - len(pairs))
    if group.pairs and not pairs:
        return None
    return dataclasses.replace(group, answers=answers, pairs=pairs)


def _drop_turns(renderer: Renderer, row: Row, group: Group, room: int, tally: Tally) -> Group:
    """Without the oldest exchanges (a user's message and the answers to it), as few as make the prompt fit. System
    messages at the front and the last question stay."""
    messages = row.record.prompt
    system = tuple(takewhile(lambda message: message.role == "system", messages))
    turns = [n for n in range(len(system) + 1, len(messages)) if messages[n].role == "user"]
    for n in turns:
        record = dataclasses.replace(row.record, prompt=system + messages[n:])
        if n == turns[-1] or len(renderer.prompt_ids(record.prompt)) <= room:
            tally.add("prompts that lost their oldest turns", row.record)
            return renderer.group(*row._replace(record=record))
    return group


def _cut_prompt(renderer: Renderer, group: Group, room: int, keep_start: bool, where: str) -> Group:
    prompt = group.prompt
    begins = int(len(prompt) > 0 and prompt[0] == renderer.tokenizer.bos_token_id)
    if room <= renderer.header + begins:
        raise UserError(
            f"{where}{': ' if where else ''}a prompt of {len(prompt)} tokens has to fit in {room}, and the words "
            f"around it take {renderer.header + begins}; raise --max_prompt_seq_len or --model_max_length"
        )
    kept = np.ones(len(prompt), bool)
    if keep_start:
        kept[room - renderer.header : len(prompt) - renderer.header] = False
    else:
        kept[begins : begins + len(prompt) - room] = False
    trained = None if group.prompt_trained is None else group.prompt_trained[kept]
    return dataclasses.replace(group, prompt=prompt[kept], prompt_trained=trained)
