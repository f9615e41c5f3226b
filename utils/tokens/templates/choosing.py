"""What each kind of training takes of a record, and the count of what it leaves."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from utils.records import Record

Kind = Literal["demonstrations", "comparisons", "prompts"]


class Row(NamedTuple):
    """What is taken from a record: the arguments of Renderer.render and Renderer.group."""

    record: Record
    answers: tuple[int, ...] = ()
    pairs: tuple[tuple[int, int], ...] = ()
    train_on: str = "last"


@dataclass
class Tally:
    """How many met which fate, and where the first three of them stand."""

    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def add(self, fate: str, record: Record, n: int = 1) -> None:
        if n:
            self.counts[fate] += n
            shown = self.examples.setdefault(fate, [])
            if len(shown) < 3:
                shown.append(record.where or record.id)

    def lines(self) -> list[str]:
        """The table, most frequent first; no line when nothing happened."""
        firsts = {fate: ", ".join(where.rpartition("/")[2] for where in shown) for fate, shown in self.examples.items()}
        return [f"{n:9,}  {fate} (first: {firsts[fate]})" for fate, n in Counter(self.counts).most_common()]


def choose(record: Record, kind: Kind, tally: Tally, train_on: str = "last") -> Row | None:
    """What `kind` takes of a record; None when it has nothing for it, which is counted.

    demonstrations: the preferred answer of a record with decided verdicts, else its first answer that has text.
    comparisons: every answer with text that takes part in a decided pair. prompts: none.
    """
    if kind == "prompts":
        return Row(record)
    written = {k for k, answer in enumerate(record.answers) if answer.text.strip()}
    tally.add("empty answers left out", record, len(record.answers) - len(written))
    if kind == "comparisons":
        pairs = tuple(pair for pair in record.pairs() if written.issuperset(pair))
        if not pairs:
            tally.add("records dropped: no decided pair of answers with text", record)
            return None
        return Row(record, tuple(sorted(set(itertools.chain(*pairs)))), pairs)
    winners, losers = zip(*record.pairs(), strict=True) if record.pairs() else ((), ())
    liked = [k for k in winners if k not in losers] or winners or range(len(record.answers))
    best = next((k for k in liked if k in written), None)
    if best is None:
        tally.add("records dropped: no answer with text", record)
        return None
    return Row(record, (best,), (), train_on)
