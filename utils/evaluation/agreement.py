"""Agreement of two raters of the same answers: judges, people, reward models; and what position and length do to each.

A rater's *choices* say of two answers to a prompt which one is better, from its verdicts, its ratings or its scores.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from utils.errors import UserError
from utils.evaluation.comparisons import BY_ORDER, OUTCOMES, SWAPPED, shown_first
from utils.evaluation.summary import interval
from utils.raw_datasets.feedback_csv import BY_RATING, implied
from utils.records import LIKELIHOODS, Message, Record
from utils.statistics import Estimate, cluster_bootstrap, cohens_kappa

SAYS = ("tie", "a", "b")
Prompt = tuple[Message, ...]
Pair = tuple[Prompt, str, str]  # two texts, the smaller one first


@dataclass
class Choices:
    """What one rater says of pairs of answers.

    Args:
        says: of each pair tie, a (the first text) or b.
        first_shown: for each prompt 1 where the answer shown first is preferred, 1/2 for a tie, 0 else; where the order
            is known.
        longer: for each prompt 1 where the longer answer is preferred, 0 the shorter; decided pairs of two lengths.
        orders: of each pair that was judged in both orders, whether both say the same.
        undecided: verdicts that were refused or could not be read.
    """

    says: dict[Pair, str] = field(default_factory=dict)
    first_shown: dict[Prompt, list[float]] = field(default_factory=lambda: defaultdict(list))
    longer: dict[Prompt, list[float]] = field(default_factory=lambda: defaultdict(list))
    orders: list[bool] = field(default_factory=list)
    undecided: int = 0

    def add(self, prompt: Prompt, first: str, second: str, says: str) -> None:
        """Keep the first choice between two texts; two equal texts are none.

        Args:
            prompt: the messages.
            first: a text.
            second: another.
            says: tie, a (the first) or b.
        """
        if first == second:
            return
        if second < first:
            first, second, says = second, first, SWAPPED.get(says, says)
        if (prompt, first, second) not in self.says:
            self.says[prompt, first, second] = says
            if says != "tie" and len(first) != len(second):
                self.longer[prompt].append(float((len(first) > len(second)) == (says == "a")))


def of_verdicts(records: Iterable[Record], judge: str | None = None) -> Choices:
    """Return the choices of a judge; two orders that disagree are a tie.

    Args:
        records: with verdicts.
        judge: name of the judge; None: all of them. Position bias and flips are of all judges of the records.
    """
    found = Choices()
    for record in records:
        said: dict[tuple[int, int], list[tuple[str | None, str]]] = defaultdict(list)
        for verdict in record.verdicts:
            if verdict.judge == BY_RATING or (judge is not None and verdict.judge != judge):
                continue
            if verdict.preferred not in OUTCOMES:
                found.undecided += 1
                continue
            said[verdict.a, verdict.b].append((verdict.order, verdict.preferred))
        for _, _, outcome in shown_first(record):
            found.first_shown[record.prompt].append(outcome)
        for both in record.meta.get(BY_ORDER, []):
            if {both.get("ab"), both.get("ba")} <= set(OUTCOMES):
                found.orders.append(both["ab"] == both["ba"])
        for (a, b), orders in said.items():
            # The same order asked again is no second order: the first verdict of each counts.
            by_order = dict(reversed(orders))
            both = set(by_order.values())
            says = "tie"
            if len(both) == 1:
                (says,) = both
            if len(by_order) > 1:
                found.orders.append(len(both) == 1)
            found.add(record.prompt, record.answers[a].text, record.answers[b].text, says)
    return found


def of_numbers(records: Iterable[Record], by: str) -> Choices:
    """Return the choices that ratings or scores imply: the higher number is better, equal ones are a tie.

    Args:
        records: with rated or scored answers.
        by: ratings, or scores, those of the one scorer that is no likelihood.

    Raises:
        UserError: an answer has scores of several scorers.
    """
    found = Choices()
    for record in records:
        numbers: dict[str, float] = {}
        for answer in record.answers:
            number = answer.rating
            if by == "scores":
                number = _score(answer.scores, record.where)
            if number is not None:
                numbers.setdefault(answer.text, number)
        for (first, one), (second, other) in itertools.combinations(numbers.items(), 2):
            found.add(record.prompt, first, second, implied(one, other))
    return found


def _score(scores: dict[str, float], where: str) -> float | None:
    names = [name for name in scores if name not in LIKELIHOODS]
    if len(names) > 1:
        raise UserError(f"{where}: an answer has scores of {', '.join(names)}; expected those of one reward model")
    for name in names:
        return scores[name]
    return None


def agreement_of(first: Choices, second: Choices, seed: int) -> dict[str, Any]:
    """Return how far two raters agree on the pairs that both have chosen from; intervals are over prompts.

    Args:
        first: one rater.
        second: the other.
        seed: of the bootstraps.

    Raises:
        UserError: no pair is in both.
    """
    tables: dict[Prompt, np.ndarray] = defaultdict(lambda: np.zeros((3, 3), int))
    for pair in first.says.keys() & second.says.keys():
        prompt, _, _ = pair
        tables[prompt][SAYS.index(first.says[pair]), SAYS.index(second.says[pair])] += 1
    # A set has no order; the bootstrap's draws need one.
    counts = [tables[prompt] for prompt in sorted(tables, key=repr)]
    if not counts:
        sizes = f"{len(first.says)} and {len(second.says)}"
        raise UserError(f"the two raters share no pair of answers, of {sizes}; expected the same prompts and answers")
    total = sum(counts)
    return {
        "pairs": int(total.sum()),
        "only_first": len(first.says) - int(total.sum()),
        "only_second": len(second.says) - int(total.sum()),
        "table": total.tolist(),
        "rows": "first: tie, a, b; columns: second: tie, a, b",
        "agreement": _diagonal(counts, seed).to_json(),
        "decided": int(total[1:, 1:].sum()),
        "without_ties": _diagonal([each[1:, 1:] for each in counts], seed).to_json(),
        "kappa": cohens_kappa(counts, seed).to_json(),
        "first": _biases(first, seed),
        "second": _biases(second, seed),
    }


def _diagonal(tables: list[np.ndarray], seed: int) -> Estimate:
    clusters = []
    for counts in tables:
        agreed = int(np.trace(counts))
        clusters.append([1.0] * agreed + [0.0] * (int(counts.sum()) - agreed))
    return cluster_bootstrap(clusters, seed)


def _biases(choices: Choices, seed: int) -> dict[str, Any]:
    ties = sum(says == "tie" for says in choices.says.values())
    return {
        "pairs": len(choices.says),
        "ties": ties,
        "undecided": choices.undecided,
        "first_shown": cluster_bootstrap(list(choices.first_shown.values()), seed).to_json(),
        "longer": cluster_bootstrap(list(choices.longer.values()), seed).to_json(),
        "both_orders": len(choices.orders),
        "flips": choices.orders.count(False),
    }


def agreement_lines(found: dict[str, Any]) -> Iterator[str]:
    """Yield what agreement_of() returned, for people."""
    yield f"{found['pairs']:,} pairs of answers in both; {found['only_first']} and {found['only_second']} in one alone"
    yield f"agreement: {interval(found['agreement'])}"
    if found["decided"]:
        yield f"without ties: {interval(found['without_ties'])} of {found['decided']:,} pairs"
    kappa = found["kappa"]
    if kappa["value"] is not None:
        between = ""
        if kappa["low"] is not None:
            between = f" [{kappa['low']:.3f}, {kappa['high']:.3f}]"
        yield f"Cohen's kappa: {kappa['value']:.3f}{between}"
    for name in ("first", "second"):
        rater = found[name]
        yield f"{name}: {rater['pairs']:,} pairs, {rater['ties']} ties, {rater['undecided']} refused or unread verdicts"
        if rater["first_shown"]["n"]:
            yield f"  the answer shown first is preferred in {interval(rater['first_shown'])} of the judgements"
        if rater["longer"]["n"]:
            yield f"  the longer answer is preferred in {interval(rater['longer'])} of the decided pairs"
        if rater["both_orders"]:
            yield f"  {rater['flips']} of {rater['both_orders']} pairs judged in both orders are decided differently"
