"""The answers and pairs that each kind of training takes from a record, and counts of what it leaves out."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from utils.records import Record

Kind = Literal["demonstrations", "comparisons", "prompts"]


class Row(NamedTuple):
    """A record and what is taken from it: the arguments of Renderer.render and Renderer.group."""

    record: Record
    answers: tuple[int, ...] = ()
    pairs: tuple[tuple[int, int], ...] = ()
    train_on: str = "last"


@dataclass
class Tally:
    """How many records were cut or dropped, and why; of each reason the first three records."""

    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def add(self, reason: str, record: Record, count: int = 1) -> None:
        """Count a record, or `count` of its answers or pairs, under a reason."""
        if count:
            self.counts[reason] += count
            shown = self.examples.setdefault(reason, [])
            if len(shown) < 3:
                shown.append(record.where or record.id)

    def lines(self) -> list[str]:
        """Return the counts as lines, most frequent first; no line when nothing was counted."""
        lines = []
        for reason, count in Counter(self.counts).most_common():
            places = [where.rpartition("/")[2] for where in self.examples[reason]]  # the file's name without its folder
            lines.append(f"{count:9,}  {reason} (first: {', '.join(places)})")
        return lines


def choose(record: Record, kind: Kind, tally: Tally, train_on: str = "last") -> Row | None:
    """Choose what a kind of training takes from a record.

    demonstrations: the preferred answer of a record with decided verdicts, else its first answer that has text.
    comparisons: every answer with text that takes part in a decided pair. prompts: none.

    Args:
        record: the record.
        kind: the kind of training.
        tally: counts what is left out.
        train_on: last | all, of demonstrations: which assistant turns are trained.

    Returns:
        The row, or None when the record has nothing for this kind.
    """
    if kind == "prompts":
        return Row(record)
    written = {place for place, answer in enumerate(record.answers) if answer.text.strip()}
    tally.add("empty answers left out", record, len(record.answers) - len(written))
    if kind == "comparisons":
        pairs = tuple(pair for pair in record.pairs() if written.issuperset(pair))
        if not pairs:
            tally.add("records dropped: no decided pair of answers with text", record)
            return None
        compared = set(itertools.chain(*pairs))
        return Row(record, answers=tuple(sorted(compared)), pairs=pairs)
    for place in _best_first(record):
        if place in written:
            return Row(record, answers=(place,), train_on=train_on)
    tally.add("records dropped: no answer with text", record)
    return None


def _best_first(record: Record) -> Sequence[int]:
    """Return the answers that may be demonstrated: those that never lost, else those that won, else all."""
    pairs = record.pairs()
    if not pairs:
        return range(len(record.answers))
    winners = [winner for winner, _ in pairs]
    losers = {loser for _, loser in pairs}
    return [winner for winner in winners if winner not in losers] or winners
