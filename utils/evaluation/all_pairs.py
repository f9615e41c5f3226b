"""Win rates of several sets of answers against one another, by a number that each answer has."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from statistics import fmean

from utils.statistics import Estimate, mean_interval

Worth = Mapping[str, Sequence[float]]  # a prompt's id -> the worth of each of its answers


def win_rates(worth_of: Mapping[str, Worth]) -> dict[str, dict[str, Estimate]]:
    """Return the win rate of every set of answers against every other, as {model: {reference: rate}}.

    A model's answer wins when it is worth more than the reference's to the same prompt; equal counts half. A prompt's
    rate is the mean over all pairs of its answers, and the 95 % interval is over prompts, which are paired: how hard a
    prompt is falls out of the comparison. Two sets that share no prompt have no rate.

    Args:
        worth_of: by the name of a set of answers, what they are worth.
    """
    found: dict[str, dict[str, Estimate]] = {}
    for model, reference in itertools.permutations(worth_of, 2):
        base = worth_of[reference]
        shares = []
        for prompt, values in worth_of[model].items():
            if prompt in base:
                shares.append(win_share(values, base[prompt]))
        if shares:
            found.setdefault(model, {})[reference] = mean_interval(shares)
    return found


def win_share(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Return the share of pairs of answers in which the first is worth more; equal counts half."""
    return fmean((one > other) + 0.5 * (one == other) for one, other in itertools.product(ours, theirs))
