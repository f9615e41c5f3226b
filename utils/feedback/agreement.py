"""Agreement of ratings with rankings, and of a judge with itself."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from utils.feedback.comparisons import BY_ORDER
from utils.feedback.pairs.measures import has_cycle
from utils.raw_datasets.feedback_csv import asked_verdicts, implied
from utils.records import Message, Record
from utils.statistics import Estimate, cluster_bootstrap, cohens_kappa

SAYS = ("tie", "a", "b")  # the rows and columns of the table: equal, A, B
Prompt = tuple[Message, ...]


class Ranking(NamedTuple):
    """A judge's verdict on two texts.

    Args:
        prompt: the messages.
        a: the first text.
        b: the second text.
        says: tie, a or b.
        judge: who compared them, or None.
    """

    prompt: Prompt
    a: str
    b: str
    says: str
    judge: str | None = None


def first_ratings(rated: Iterable[Record]) -> dict[tuple[Prompt, str], float]:
    """Return the first rating of each answer."""
    found: dict[tuple[Prompt, str], float] = {}
    for record in rated:
        for answer in record.answers:
            if answer.rating is not None:
                found.setdefault((record.prompt, answer.text), answer.rating)
    return found


def decided(ranked: Iterable[Record]) -> list[Ranking]:
    """Return the first verdict of each judge on each two texts, where there is one."""
    first: dict[tuple, Ranking] = {}
    for ranking in all_rankings(ranked):
        first.setdefault((ranking.prompt, ranking.a, ranking.b, ranking.judge), ranking)
    return [ranking for ranking in first.values() if ranking.says in SAYS]


def all_rankings(ranked: Iterable[Record]) -> Iterator[Ranking]:
    """Yield verdicts, those on the same two answers in both orders as one: failed if one of them is, tie where they
    differ."""
    for record in ranked:
        orders: dict[tuple, set[str]] = defaultdict(set)
        for number, verdict in enumerate(asked_verdicts(record)):
            # A verdict of unknown order is not paired with another: its number keeps it apart.
            once = number
            if verdict.order:
                once = None
            orders[verdict.a, verdict.b, verdict.judge, once].add(verdict.preferred)
        for (a, b, judge, _), said in orders.items():
            if len(said) == 1:
                (says,) = said
            elif said <= set(SAYS):
                says = "tie"
            else:
                says = "failed"
            yield Ranking(record.prompt, record.answers[a].text, record.answers[b].text, says=says, judge=judge)


def measure(ratings: dict[tuple[Prompt, str], float], rankings: Iterable[Ranking], seed: int) -> dict:
    """Return the table and what follows from it: counts, percents, and 95 % intervals over prompts."""
    counts: dict[Prompt, np.ndarray] = defaultdict(lambda: np.zeros((3, 3), int))
    missing = 0
    for ranking in rankings:
        rating_a, rating_b = ratings.get((ranking.prompt, ranking.a)), ratings.get((ranking.prompt, ranking.b))
        if rating_a is None or rating_b is None:
            missing += 1
        else:
            counts[ranking.prompt][SAYS.index(implied(rating_a, rating_b)), SAYS.index(ranking.says)] += 1
    tables = list(counts.values())
    total = sum(tables, np.zeros((3, 3), int))
    # Rows and columns of A and B alone: the first ones are those of ties.
    strict = [each[1:, 1:] for each in tables]
    n, decided = int(total.sum()), int(total[1:, 1:].sum())
    consistency = None
    if n:
        consistency = 100 * (int(np.trace(total)) / n)
    return {
        "consistency": consistency,
        "n": n,
        "table": total.tolist(),
        "rows": "ratings: equal, A, B; columns: rankings: equal, A, B",
        "unrated": missing,
        "prompts": len(tables),
        "interval": percent(agreement(tables, seed)),
        "without_ties": {"n": decided, **percent(agreement(strict, seed))},
        "kappa": cohens_kappa(tables, seed).to_json(),
    }


def agreement(tables: list[np.ndarray], seed: int) -> Estimate:
    """Estimate the share on the diagonal of tables, one of each prompt."""
    # Resampled by prompt: the pairs of one prompt share answers and are not independent.
    clusters = []
    for counts in tables:
        agreed = int(np.trace(counts))
        clusters.append([1.0] * agreed + [0.0] * (int(counts.sum()) - agreed))
    return cluster_bootstrap(clusters, seed)


def percent(share: Estimate) -> dict[str, float | None]:
    """Return an estimate and its interval in percent."""
    found = {}
    for name, value in share.to_json().items():
        if name in ("value", "low", "high"):
            found[name] = value
            if value is not None:
                found[name] = 100 * value
    return found


def flips(ranked: Iterable[Record]) -> dict:
    """Count the pairs that a judge decided differently in the two orders, each pair the first time."""
    seen: dict[tuple, dict[str, tuple]] = defaultdict(dict)
    twice = []
    for record in ranked:
        for said in record.meta.get(BY_ORDER, []):
            ab, ba = said.get("ab"), said.get("ba")
            # These name the answers themselves, whichever was shown first: the verdict is the winner.
            twice.append([(ab, ab), (ba, ba)])
        for verdict in asked_verdicts(record):
            a, b = record.answers[verdict.a].text, record.answers[verdict.b].text
            if a != b:
                first = b if verdict.order == "ba" else a
                said = verdict.preferred, {"a": a, "b": b}.get(verdict.preferred)
                seen[record.prompt, verdict.judge, frozenset((a, b))].setdefault(first, said)
    for said in seen.values():
        if len(said) == 2:
            twice.append(list(said.values()))
    both = changed = 0
    for (preferred, winner), (other_preferred, other_winner) in twice:
        if preferred in SAYS and other_preferred in SAYS:
            both += 1
            changed += winner != other_winner
    percentage = None
    if both:
        percentage = 100 * changed / both
    return {"pairs_in_both_orders": both, "flips": changed, "percent": percentage}


def cycles(rankings: Iterable[Ranking]) -> dict:
    """Count circles in a judge's decisions: prompts, and triples of answers all of whose pairs are decided."""
    won: dict[tuple, Counter[tuple[str, str]]] = defaultdict(Counter)
    for prompt, a, b, says, judge in rankings:
        if says != "tie" and a != b:
            winner_first = (a, b)
            if says == "b":
                winner_first = (b, a)
            won[prompt, judge][winner_first] += 1
    triples = circular = 0
    for wins in won.values():
        beats = [pair for pair, times in wins.items() if times > wins[pair[::-1]]]
        # The answers as bits of whole numbers: those that an answer beats, and those that beat it.
        bit: dict[str, int] = {}
        for text in itertools.chain.from_iterable(beats):
            bit.setdefault(text, 1 << len(bit))
        beaten, beating = Counter(), Counter()
        for winner, loser in beats:
            beaten[winner] |= bit[loser]
            beating[loser] |= bit[winner]
        # Each triple is met by each of its three pairs.
        found = around = 0
        for winner, loser in beats:
            found += ((beaten[winner] | beating[winner]) & (beaten[loser] | beating[loser])).bit_count()
            around += (beaten[loser] & beating[winner]).bit_count()
        triples += found // 3
        circular += around // 3
    cyclic = sum(map(has_cycle, won.values()))
    return {"prompts": len(won), "prompts_with_a_cycle": cyclic, "triples": triples, "circular_triples": circular}
