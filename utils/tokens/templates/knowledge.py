"""What a record knows of its answers, as numbers: ratings, ranks, votes, shares of verdicts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np

from utils.records import LIKELIHOODS, Record
from utils.tokens.group import Feedback


def ratings_of(record: Record) -> list[float | None]:
    """Return each answer's rating, or else its reward, if there is one scorer: a score that is no likelihood."""
    found = []
    for answer in record.answers:
        scores = [score for name, score in answer.scores.items() if name not in LIKELIHOODS]
        rating = answer.rating
        if rating is None and len(scores) == 1:
            rating = scores[0]
        found.append(rating)
    return found


def ranks_of(record: Record) -> list[int | None]:
    """Return each answer's rank, 1 the best, equal ranks for ties: as given, or else of the ratings."""
    given = [answer.rank for answer in record.answers]
    if any(rank is not None for rank in given):
        return given
    ratings = ratings_of(record)
    better = sorted({rating for rating in ratings if rating is not None}, reverse=True)
    return [None if rating is None else 1 + better.index(rating) for rating in ratings]


def votes_of(record: Record) -> list[tuple[int, int]]:
    """Return how often each answer was judged good, and how often bad: by its thumb, and by every decided verdict,
    which judges the winner good and the loser bad."""
    good = Counter(place for place, answer in enumerate(record.answers) if answer.thumb is True)
    bad = Counter(place for place, answer in enumerate(record.answers) if answer.thumb is False)
    for winner, loser in record.pairs():
        good[winner] += 1
        bad[loser] += 1
    return [(good[place], bad[place]) for place in range(len(record.answers))]


def compared_pairs(record: Record) -> list[tuple[int, int]]:
    """Return (chosen, rejected) of every two answers of different texts with a verdict a, b or tie, in the order of the
    first; chosen is the one that won more often, of a draw the first named."""
    judged: dict[frozenset[int], tuple[int, int]] = {}
    for verdict in record.verdicts:
        if verdict.preferred in ("a", "b", "tie"):
            judged.setdefault(frozenset((verdict.a, verdict.b)), (verdict.a, verdict.b))
    pairs = []
    for a, b in judged.values():
        if record.answers[a].text != record.answers[b].text:
            wins = _wins(record, a, b)
            pairs.append((b, a) if wins["second"] > wins["first"] else (a, b))
    return pairs


def _wins(record: Record, first: int, second: int) -> Counter[str]:
    """Return how many verdicts on two answers say first, second, tie."""
    found: Counter[str] = Counter()
    for verdict in record.verdicts:
        if {verdict.a, verdict.b} == {first, second}:
            winner = {"a": verdict.a, "b": verdict.b}.get(verdict.preferred)
            if winner is not None:
                found["first" if winner == first else "second"] += 1
            elif verdict.preferred == "tie":
                found["tie"] += 1
    return found


def _confidence(record: Record, chosen: int, rejected: int) -> float:
    wins = _wins(record, chosen, rejected)
    total = sum(wins.values())
    # a pair made of ratings has no verdict
    return (wins["first"] + wins["tie"] / 2) / total if total else 1.0


def _tied(record: Record, chosen: int, rejected: int) -> bool:
    wins = _wins(record, chosen, rejected)
    return wins["tie"] > max(wins["first"], wins["second"])


def feedback_of(record: Record, kind: str, answers: tuple[int, ...], pairs: tuple[tuple[int, int], ...]) -> Feedback:
    """Return what a kind of data stores of a record's answers and pairs.

    Confidence is the share of the verdicts on two answers that prefer the chosen one, ties counting one half; a tie is
    a pair of which more verdicts are ties than prefer either.

    Args:
        record: the record.
        kind: the kind of data.
        answers: the numbers of the answers that were chosen.
        pairs: (chosen, rejected) answers, by their numbers in the record.
    """
    known: dict[str, np.ndarray] = {}
    if kind == "verdicts":
        known["confidence"] = np.asarray([_confidence(record, *pair) for pair in pairs], np.float32)
        known["tie"] = np.asarray([_tied(record, *pair) for pair in pairs], bool)
    elif kind in ("rated_comparisons", "rated_answers", "rated"):
        known["rating"] = _taken(ratings_of(record), answers, np.float32)
    elif kind == "ranked":
        known["rank"] = _taken(ranks_of(record), answers, np.int32)
    elif kind == "unpaired":
        votes = votes_of(record)
        known["good"] = np.asarray([votes[place][0] for place in answers], np.int32)
        known["bad"] = np.asarray([votes[place][1] for place in answers], np.int32)
    return Feedback(**known)


def _taken(values: list, answers: tuple[int, ...], dtype: Callable) -> np.ndarray:
    return np.asarray([values[place] for place in answers], dtype)
