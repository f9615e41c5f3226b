"""How far a tutor's codes agree with those expected, and how it weighs hints against solutions (arXiv:2402.05000)."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from utils.statistics import Estimate, cluster_bootstrap

RESAMPLES = 2000
# The two turns that a reply to the same words of a student can be, by their actions: a hint or the solution.
HINT_OR_SOLUTION = (("1", "2"), ("4", "5"))
POOLED = {"1": ("1",), "2": ("2",), "4": ("4",), "5": ("5",), "hint, 1+4": ("1", "4"), "solution, 2+5": ("2", "5")}


@dataclass(frozen=True)
class Coded:
    """One code of a tutor's turn.

    Args:
        conversation: what the turn is from; turns of one conversation depend on one another.
        actual: the code expected.
        predicted: the model's; empty where its turn has none.
    """

    conversation: str
    actual: str
    predicted: str


def labels_of(codes: Sequence[Coded], quirk: bool = False) -> list[str]:
    """Return the labels whose F1 scores are averaged: those expected or predicted, without the empty one.

    Args:
        codes: of all turns.
        quirk: leave out the first label in alphabetical order instead, as Tutorbot-Spock's script does. It is the empty
            one only if a prediction is empty; otherwise a real class is lost, such as "a".
    """
    labels = sorted({code.actual for code in codes} | {code.predicted for code in codes})
    if quirk:
        return labels[1:]
    return [label for label in labels if label]


def accuracy(codes: Sequence[Coded], seed: int) -> Estimate:
    """Return the share of exactly equal codes; the interval is over conversations."""
    right: dict[str, list[float]] = defaultdict(list)
    for code in codes:
        right[code.conversation].append(float(code.actual == code.predicted))
    return cluster_bootstrap(list(right.values()), seed)


def macro_f1(codes: Sequence[Coded], seed: int, quirk: bool = False) -> Estimate:
    """Return the mean over labels of F1 = 2 TP / (2 TP + FP + FN); the interval is over conversations.

    Args:
        codes: of all turns.
        seed: of the bootstrap, which draws conversations.
        quirk: as of labels_of().
    """
    labels = labels_of(codes, quirk)
    numbers = {name: number for number, name in enumerate(dict.fromkeys(code.conversation for code in codes))}
    if not labels:
        return Estimate(math.nan, math.nan, math.nan, len(numbers))
    # For each conversation and label twice the true positives, and the false positives and negatives together.
    counts_C2L = np.zeros((len(numbers), 2, len(labels)))
    for code in codes:
        counts_2L = counts_C2L[numbers[code.conversation]]
        for number, label in enumerate(labels):
            hits = (code.actual == label) + (code.predicted == label)
            counts_2L[0 if hits == 2 else 1, number] += hits
    value = float(_mean_f1(counts_C2L.sum(0)))
    if len(numbers) < 2:
        return Estimate(value, math.nan, math.nan, len(numbers))
    drawn_RC = np.random.default_rng(seed).multinomial(len(numbers), np.full(len(numbers), 1 / len(numbers)), RESAMPLES)
    low, high = np.percentile(_mean_f1(np.tensordot(drawn_RC, counts_C2L, axes=1)), [2.5, 97.5])
    return Estimate(value, low=float(low), high=float(high), n=len(numbers))


def _mean_f1(counts_x2L: np.ndarray) -> np.ndarray:
    """Return the mean F1 over labels; a label that neither side has in a draw counts 0, as in scikit-learn."""
    right_xL, all_xL = counts_x2L[..., 0, :], counts_x2L.sum(-2)
    return np.divide(right_xL, all_xL, out=np.zeros_like(right_xL), where=all_xL > 0).mean(-1)


def hint_and_solution(scored: Sequence[tuple[str, float, int]]) -> dict[str, dict[str, Any]]:
    """Return the perplexity of tutors' turns by action, exp(sum of NLL / sum of tokens).

    A tutor that guides gives a low perplexity to hints (1 and 4) and a high one to solutions (2 and 5).

    Args:
        scored: for each turn its action, the sum of the negative log-likelihoods of its tokens, and their number.

    Returns:
        {action or pool: {"perplexity", "turns", "tokens"}}; perplexity is None where there is no such turn.
    """
    found = {}
    for name, actions in POOLED.items():
        nll, tokens, turns = 0.0, 0, 0
        for action, nll_of_turn, tokens_of_turn in scored:
            if action in actions:
                nll, tokens, turns = nll + nll_of_turn, tokens + tokens_of_turn, turns + 1
        perplexity = None
        if tokens:
            perplexity = math.exp(min(nll / tokens, 700.0))
        found[name] = {"perplexity": perplexity, "turns": turns, "tokens": tokens}
    return found


def metric_table(fields: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    """Return rows of name, accuracy and macro-F1 with their intervals, for people."""
    rows = []
    for name, metrics in fields.items():
        row = [name]
        for metric in ("accuracy", "macro_f1"):
            value = metrics[metric]
            shown = "-"
            if value["value"] is not None:
                shown = f"{value['value']:.4f}"
            if value["low"] is not None:
                shown += f" [{value['low']:.4f}, {value['high']:.4f}]"
            row.append(shown)
        rows.append(row)
    return rows
