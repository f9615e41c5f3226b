"""What the doctor shows: one coloured example, and tables of rows, lengths, tokens, labels, memory and time."""

from __future__ import annotations

from collections import Counter

import numpy as np

from utils.doctor.data_checks import contradictions, longer_chosen
from utils.doctor.estimate import REACHED, estimate, seconds_of_a_step
from utils.doctor.subject import Split, Subject
from utils.doctor.token_checks import begin_tokens
from utils.reporting import say
from utils.statistics import mean_interval, wilson_interval
from utils.tables import aligned
from utils.tokens.templates import coloured

GIGABYTE = 1e9


def show(subject: Subject, tflops: float | None) -> None:
    """Print an example and the tables. `tflops`: of a GPU; None: measured here."""
    for split in subject.splits:
        for note in split.notes:
            say(f"{split.name}: {note.strip()}")
    say(coloured(subject.tokenizer, subject.train.groups[0]))
    tables = {
        "rows": _rows(subject),
        "tokens, and what the limits cut": _lengths(subject),
        "begin and stop tokens": _ends(subject),
        "pairs": _pairs(subject),
        "memory and time": _costs(subject, tflops),
    }
    for title, table in tables.items():
        if table:
            say(f"\n{title}", style="bold")
            say(table)


def _rows(subject: Subject) -> str:
    rows = []
    for split in subject.splits:
        pairs = sum(len(item.whole.pairs) for item in split.items)
        answers = sum(len(item.answers) for item in split.items)
        copies = len(split.records) - len({(record.id, record.where) for record in split.records})
        rows.append([split.name, split.total, len(split.records), len(split.groups), answers, pairs, copies])
    return aligned(["", "rows", "looked at", "usable", "answers", "pairs", "by weight"], rows)


def _lengths(subject: Subject) -> str:
    rows, limits = [], subject.limits
    for split in subject.splits:
        prompts, answers = Counter(), Counter()
        for item in split.items:
            after = item.group.answers if item.group else item.whole.answers
            prompts["cut"] += item.group is None or len(item.group.prompt) < len(item.whole.prompt)
            for one, other in zip(item.whole.answers, after, strict=True):
                answers["cut"] += len(other) < len(one)
        lengths = [len(item.whole.prompt) for item in split.items]
        rows.append(
            [f"{split.name} prompts", *_sizes(lengths), limits.prompt, prompts["cut"], _share(prompts["cut"], lengths)]
        )
        lengths = [len(answer) for item in split.items for answer in item.whole.answers]
        if lengths:
            row = [
                f"{split.name} answers",
                *_sizes(lengths),
                limits.answer,
                answers["cut"],
                _share(answers["cut"], lengths),
            ]
            rows.append(row)
    return aligned(["", "median", "95 %", "longest", "limit", "cut", "share"], rows)


def _sizes(lengths: list[int]) -> list[int]:
    return [int(x) for x in (*np.percentile(lengths, [50, 95]), max(lengths))]


def _share(count: int, of: list[int]) -> str:
    return f"{count / len(of):.1%}"


def _ends(subject: Subject) -> str:
    bos, stops = subject.tokenizer.bos_token_id, subject.renderer.stop_token_ids
    rows = []
    for split in subject.splits:
        begins = Counter(begin_tokens(group.prompt.tolist(), bos) for group in split.groups)
        ends = Counter(int(np.isin(answer, stops).sum()) for group in split.groups for answer in group.answers)
        rows.append([f"{split.name}: begin tokens of a prompt", *_zero_to_many(begins)])
        if ends:
            rows.append([f"{split.name}: stop tokens of an answer", *_zero_to_many(ends)])
    return aligned(["", "none", "one", "more"], rows)


def _zero_to_many(counts: Counter[int]) -> list[int]:
    return [counts[0], counts[1], sum(count for number, count in counts.items() if number > 1)]


def _pairs(subject: Subject) -> str:
    rows = []
    for split in subject.splits:
        longer, differing = longer_chosen(split)
        if not differing:
            continue
        gaps = _gaps(split)
        both, total = contradictions(split)
        rows.append([f"{split.name}: chosen is longer", f"{wilson_interval(longer, differing)} of {differing:,}"])
        rows.append([f"{split.name}: chosen minus rejected, tokens", str(mean_interval(gaps))])
        rows.append([f"{split.name}: decided both ways", f"{len(both):,} of {total:,}"])
    if not rows:
        return ""
    return aligned(["", "95 % interval"], rows)


def _gaps(split: Split) -> list[int]:
    gaps = []
    for item in split.items:
        for winner, loser in item.whole.pairs:
            gaps.append(len(item.whole.answers[winner]) - len(item.whole.answers[loser]))
    return gaps


def _costs(subject: Subject, tflops: float | None) -> str:
    memory = estimate(subject)
    seconds, speed = seconds_of_a_step(subject, memory.weights, tflops)
    rows = [[f"GB of a GPU: {name}", size / GIGABYTE] for name, size in memory.parts.items()]
    rows.append([f"GB of a GPU, of {subject.devices}, at ZeRO {subject.args.zero_stage}", memory.total / GIGABYTE])
    rows.append(["weights, millions", memory.weights.all / 1e6])
    rows.append(["trained weights, millions", memory.weights.trained / 1e6])
    unit, updates = "a step", 1
    if subject.ppo:
        unit, updates = "a rollout, without its decoding", subject.ppo.updates
    rows.append([f"seconds of {unit}, at {REACHED} of {speed:.3g} TFLOP/s a GPU", seconds])
    rows.append(["optimizer steps", subject.steps])
    rows.append(["hours", seconds * subject.steps / updates / 3600])
    return aligned(["", "estimate"], rows)
