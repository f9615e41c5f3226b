"""Groups cut to length."""

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
class LengthLimits:
    """Longest prompt, longest answer (stop token included) and longest prompt with one answer, in tokens."""

    prompt: int
    answer: int
    total: int
    truncation: str  # keep_end | keep_start | drop_turns | drop

    @staticmethod
    def of(data: DataArguments) -> LengthLimits:
        """Return the limits that the options set."""
        return LengthLimits(
            prompt=data.max_prompt_seq_len,
            answer=data.max_answer_seq_len,
            total=data.max_length,
            truncation=data.truncation,
        )

    def __str__(self) -> str:
        return f"prompt ≤ {self.prompt}, answer ≤ {self.answer}, together ≤ {self.total} tokens, {self.truncation}"


def fit(renderer: Renderer, row: Row, group: Group, limits: LengthLimits, tally: Tally) -> Group | None:
    """Cut a group to length.

    An answer loses its end, and with it its stop token; a prompt keeps its begin token and the words that open the
    answer. When prompt and answer are too long only together, the prompt gives way down to half of the total, then the
    answers. A pair whose answers are the same tokens, from the first or once cut, is dropped.

    Args:
        renderer: what made the group.
        row: what it was made of.
        group: renderer.group(*row).
        limits: how long its parts may be.
        tally: counts what is cut and dropped.

    Returns:
        The group, or None when it is dropped.

    Raises:
        UserError: a prompt whose template alone is longer than its limit.
    """
    longest = min(max(map(len, group.answers), default=limits.answer), limits.answer)
    # Half of the total at least: a long answer must not leave the model without its question.
    room = min(limits.prompt, max(limits.total - longest, limits.total // 2))
    if len(group.prompt) > room:
        if limits.truncation == "drop":
            tally.add("records dropped: prompt too long", row.record)
            return None
        if limits.truncation == "drop_turns":
            group = _drop_turns(renderer, row, group, room=room, tally=tally)
    if len(group.prompt) > room:
        keep_start = limits.truncation == "keep_start"
        group = _cut_prompt(renderer, group, room, keep_start=keep_start, where=row.record.where)
        tally.add("prompts cut at their end" if keep_start else "prompts cut at their start", row.record)
    room = min(limits.answer, limits.total - len(group.prompt))
    tally.add("answers cut at their end", row.record, sum(len(answer) > room for answer in group.answers))
    answers = tuple(answer[:room] for answer in group.answers)
    pairs = []
    for number, (winner, loser) in enumerate(group.pairs):
        # Equal answers have no difference to learn from.
        if not np.array_equal(answers[winner], answers[loser]):
            pairs.append(number)
    tally.add("pairs dropped: both answers are the same tokens", row.record, len(group.pairs) - len(pairs))
    if group.pairs and not pairs:
        return None
    known = group.feedback.of(range(len(answers)), pairs)
    return dataclasses.replace(group, answers=answers, pairs=tuple(group.pairs[n] for n in pairs), feedback=known)


def _drop_turns(renderer: Renderer, row: Row, group: Group, room: int, tally: Tally) -> Group:
    """Return the group without its oldest exchanges (a user's message and the answers to it), as few as make the prompt
    fit. System messages at the front and the last question stay."""
    messages = row.record.prompt
    system = tuple(takewhile(lambda message: message.role == "system", messages))
    # A conversation may begin only with a user's message: most chat templates refuse any other.
    starts = [place for place in range(len(system) + 1, len(messages)) if messages[place].role == "user"]
    for start in starts:
        record = dataclasses.replace(row.record, prompt=system + messages[start:])
        if start == starts[-1] or len(renderer.prompt_ids(record.prompt)) <= room:
            tally.add("prompts that lost their oldest turns", row.record)
            return dataclasses.replace(renderer.group(*row._replace(record=record)), feedback=group.feedback)
    return group


def _cut_prompt(renderer: Renderer, group: Group, room: int, keep_start: bool, where: str) -> Group:
    prompt = group.prompt
    begins = int(len(prompt) > 0 and prompt[0] == renderer.tokenizer.bos_token_id)
    if room <= renderer.header + begins:
        at = f"{where}: " if where else ""
        raise UserError(
            f"{at}a prompt of {len(prompt)} tokens has to fit in {room}, and the words "
            f"around it take {renderer.header + begins}; raise --max_prompt_seq_len or --model_max_length"
        )
    # The template's opening of the answer stays in any case: without it the model would go on with the question.
    kept = np.ones(len(prompt), bool)
    if keep_start:
        kept[room - renderer.header : len(prompt) - renderer.header] = False
    else:
        kept[begins : begins + len(prompt) - room] = False
    trained = group.prompt_trained
    if trained is not None:
        trained = trained[kept]
    return dataclasses.replace(group, prompt=prompt[kept], prompt_trained=trained)
