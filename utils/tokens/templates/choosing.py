"""The answers and pairs that each kind of training takes from a record, and counts of what it leaves out."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from utils.records import Record
from utils.tokens.templates.knowledge import compared_pairs, ranks_of, ratings_of, votes_of

Kind = Literal[
    "demonstrations", "comparisons", "verdicts", "rated_comparisons", "unpaired", "rated_answers", "rated", "ranked",
    "prompts",
]  # fmt: skip
OF_PAIRS = ("comparisons", "verdicts", "rated_comparisons")  # kinds of which a record gives pairs
RATINGS_ALONE = "records dropped: ratings or ranks, but no decided pair (--pairs_from_ratings makes pairs of them)"


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


def choose(
    record: Record, kind: Kind, tally: Tally, train_on: str = "last", pairs_from_ratings: bool = False
) -> Row | None:
    """Choose what a kind of training takes from a record; `feedback_of` has what it then knows of that.

    demonstrations: the preferred answer of a record with decided verdicts, else its first answer that has text.
    comparisons: a pair for every decided verdict. verdicts: a pair for every two answers that were compared, however
    often, ties included. rated_comparisons: comparisons of two rated answers. unpaired: every answer with a thumb or in
    a decided verdict. rated_answers: every answer with a rating. rated: the same, of at least two answers. ranked: at
    least two answers with ranks, or else with ratings, that are not all equal. prompts: no answer. Only answers with
    text are taken.

    Args:
        record: the record.
        kind: the kind of training.
        tally: counts what is left out.
        train_on: last | all, of demonstrations: which assistant turns are trained.
        pairs_from_ratings: of kinds with pairs: any two answers that no decided verdict compares make a pair when their
            ratings, or else their ranks, differ.

    Returns:
        The row, or None when the record has nothing for this kind.
    """
    if kind == "prompts":
        return Row(record)
    written = {place for place, answer in enumerate(record.answers) if answer.text.strip()}
    tally.add("empty answers left out", record, len(record.answers) - len(written))
    if kind == "demonstrations":
        for place in _best_first(record):
            if place in written:
                return Row(record, answers=(place,), train_on=train_on)
        tally.add("records dropped: no answer with text", record)
        return None
    if kind in OF_PAIRS:
        return _choose_pairs(record, kind, tally, written=written, from_ratings=pairs_from_ratings)
    return _choose_answers(record, kind, tally, written)


def _choose_pairs(record: Record, kind: Kind, tally: Tally, *, written: set[int], from_ratings: bool) -> Row | None:
    pairs = compared_pairs(record) if kind == "verdicts" else record.pairs()
    if from_ratings:
        pairs = [*pairs, *_pairs_by_value(record, {frozenset(pair) for pair in pairs})]
    pairs = [pair for pair in pairs if written.issuperset(pair)]
    if kind == "rated_comparisons":
        ratings = ratings_of(record)
        rated = [pair for pair in pairs if None not in (ratings[pair[0]], ratings[pair[1]])]
        tally.add("pairs dropped: an answer without a rating", record, len(pairs) - len(rated))
        pairs = rated
    if not pairs:
        if not from_ratings and any(written.issuperset(pair) for pair in _pairs_by_value(record, set())):
            tally.add(RATINGS_ALONE, record)
        else:
            tally.add("records dropped: no decided pair of answers with text", record)
        return None
    compared = set(itertools.chain(*pairs))
    return Row(record, answers=tuple(sorted(compared)), pairs=tuple(pairs))


def _choose_answers(record: Record, kind: Kind, tally: Tally, written: set[int]) -> Row | None:
    least, missing = 1, "rating"
    if kind == "unpaired":
        known, missing = [good + bad or None for good, bad in votes_of(record)], "thumb or decided verdict"
    elif kind == "ranked":
        known, least, missing = ranks_of(record), 2, "rank or rating"
    else:
        known = ratings_of(record)
        least = 2 if kind == "rated" else 1
    chosen = tuple(place for place in sorted(written) if known[place] is not None)
    tally.add(f"answers left out: no {missing}", record, len(written) - len(chosen))
    if len(chosen) < least:
        few = "no answer" if least == 1 else "fewer than two answers"
        tally.add(f"records dropped: {few} with a {missing}", record)
        return None
    if kind == "ranked" and len({known[place] for place in chosen}) == 1:
        tally.add("records dropped: all answers have the same rank", record)
        return None
    return Row(record, answers=chosen)


def _best_first(record: Record) -> Sequence[int]:
    """Return the answers that may be demonstrated: those that never lost, else those that won, else all."""
    pairs = record.pairs()
    if not pairs:
        return range(len(record.answers))
    winners = [winner for winner, _ in pairs]
    losers = {loser for _, loser in pairs}
    return [winner for winner in winners if winner not in losers] or winners


def _pairs_by_value(record: Record, known: set[frozenset[int]]) -> list[tuple[int, int]]:
    """Return (better, worse) of any two answers, not in `known`, whose texts and ratings (or else ranks) differ."""
    ranks, found = ranks_of(record), []
    for a, b in itertools.combinations(range(len(ranks)), 2):
        if None in (ranks[a], ranks[b]) or ranks[a] == ranks[b] or {a, b} in known:
            continue
        if record.answers[a].text != record.answers[b].text:
            found.append((a, b) if ranks[a] < ranks[b] else (b, a))
    return found
