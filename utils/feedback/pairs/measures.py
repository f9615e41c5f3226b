"""What stands in a set of pairs: lengths, and whether the longer answer wins; who wins; where the pairs contradict
one another."""

from __future__ import annotations

import graphlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from utils.feedback.pairs.pairing import Pair, PromptKey
from utils.statistics import mean_interval, wilson_interval


def measured(pairs: Sequence[Pair], said: Sequence[Pair]) -> dict[str, Any]:
    """Every number of a set, for JSON; `said` are its pairs before duplicates were taken out, which contradictions are
    counted over. Shares and means come with 95 % intervals."""
    return {
        "pairs": len(pairs),
        "prompts": len({pair.prompt_key for pair in pairs}),
        "kinds": dict(Counter(pair.kind for pair in pairs)),
        "words": {name: _spread(counts) for name, counts in _words(pairs).items()},
        "length": length_bias(pairs),
        "models": won_by_model(pairs),
        **contradictions(said),
    }


def _words(pairs: Sequence[Pair]) -> dict[str, list[int]]:
    prompts = {pair.prompt_key: sum(len(m.content.split()) for m in pair.prompt) for pair in pairs}
    return {
        "prompt": list(prompts.values()),
        "chosen": [len(pair.chosen.text.split()) for pair in pairs],
        "rejected": [len(pair.rejected.text.split()) for pair in pairs],
    }


def _spread(counts: Sequence[int]) -> dict[str, float | None]:
    if not counts:
        return {"mean": None, "median": None, "95 %": None, "longest": None}
    middle, long = np.percentile(counts, [50, 95])
    return {"mean": float(np.mean(counts)), "median": float(middle), "95 %": float(long), "longest": max(counts)}


def length_bias(pairs: Sequence[Pair]) -> dict[str, Any]:
    """`chosen_longer`: the share of pairs of different length in which the chosen answer has more words; `difference`:
    chosen minus rejected, in words, over all pairs."""
    gaps = [len(pair.chosen.text.split()) - len(pair.rejected.text.split()) for pair in pairs]
    different = [gap for gap in gaps if gap]
    return {
        "chosen_longer": wilson_interval(sum(gap > 0 for gap in different), len(different)).to_json(),
        "same_length": len(gaps) - len(different),
        "difference": mean_interval(gaps).to_json(),
    }


def won_by_model(pairs: Sequence[Pair]) -> dict[str, dict[str, Any]]:
    """Of each model the share of its pairs with another model that it wins."""
    won, lost = Counter(), Counter()
    for pair in pairs:
        models = (pair.chosen.model, pair.rejected.model)
        if None not in models and models[0] != models[1]:
            won[models[0]] += 1
            lost[models[1]] += 1
    share = {model: wilson_interval(won[model], won[model] + lost[model]) for model in sorted(won | lost)}
    return {model: {"won": won[model], "lost": lost[model], "share": share[model].to_json()} for model in share}


def contradictions(pairs: Sequence[Pair]) -> dict[str, Any]:
    """`conflicts`: two texts of a prompt of which each is preferred to the other. `cycles`: prompts where answers beat
    one another in a circle of three or more; of a conflict the direction said more often counts, or none."""
    won: dict[PromptKey, Counter[tuple[str, str]]] = defaultdict(Counter)
    where: dict[PromptKey, str] = {}
    for pair in pairs:
        won[pair.prompt_key][pair.chosen.text, pair.rejected.text] += 1
        where.setdefault(pair.prompt_key, pair.where)
    conflicts = {prompt: [(a, b) for a, b in wins if a < b and (b, a) in wins] for prompt, wins in won.items()}
    conflicting = [prompt for prompt, found in conflicts.items() if found]
    cyclic = [prompt for prompt, wins in won.items() if has_cycle(wins)]
    return {
        "conflicts": {"pairs": sum(map(len, conflicts.values())), **_places(conflicting, where)},
        "cycles": _places(cyclic, where),
    }


def _places(prompts: Sequence[PromptKey], where: dict[PromptKey, str]) -> dict[str, Any]:
    return {"prompts": len(prompts), "first": [where[prompt] for prompt in prompts[:3] if where[prompt]]}


def has_cycle(won: Counter[tuple[str, str]]) -> bool:
    """Do the preferences (winner, loser) -> times go in a circle?"""
    beaten_by: dict[str, set[str]] = defaultdict(set)
    for (winner, loser), times in won.items():
        if times > won[loser, winner]:
            beaten_by[loser].add(winner)
    try:
        graphlib.TopologicalSorter(beaten_by).prepare()
    except graphlib.CycleError:
        return True
    return False
