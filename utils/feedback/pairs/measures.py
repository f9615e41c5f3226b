"""Statistics of a set of pairs: lengths and length bias, wins by model, and contradictions."""

from __future__ import annotations

import graphlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from utils.feedback.pairs.pairing import Pair, PromptKey
from utils.statistics import mean_interval, wilson_interval


def measured(pairs: Sequence[Pair], with_duplicates: Sequence[Pair]) -> dict[str, Any]:
    """Return every number of a set, for JSON. Contradictions are counted with duplicates: of two opposite preferences
    the one given more often counts. Shares and means come with 95 % intervals."""
    return {
        "pairs": len(pairs),
        "prompts": len({pair.prompt_key for pair in pairs}),
        "kinds": dict(Counter(pair.kind for pair in pairs)),
        "words": _words(pairs),
        "length": length_bias(pairs),
        "models": won_by_model(pairs),
        **contradictions(with_duplicates),
    }


def _words(pairs: Sequence[Pair]) -> dict[str, dict[str, float | None]]:
    """Measure lengths in words: of the prompts, each once, and of the answers."""
    prompts, chosen, rejected = {}, [], []
    for pair in pairs:
        prompts[pair.prompt_key] = sum([len(message.content.split()) for message in pair.prompt])
        chosen.append(len(pair.chosen.text.split()))
        rejected.append(len(pair.rejected.text.split()))
    return {"prompt": _spread(list(prompts.values())), "chosen": _spread(chosen), "rejected": _spread(rejected)}


def _spread(counts: Sequence[int]) -> dict[str, float | None]:
    if not counts:
        return {"mean": None, "median": None, "95 %": None, "longest": None}
    middle, long = np.percentile(counts, [50, 95])
    return {"mean": float(np.mean(counts)), "median": float(middle), "95 %": float(long), "longest": max(counts)}


def length_bias(pairs: Sequence[Pair]) -> dict[str, Any]:
    """Measure the bias to length. `chosen_longer`: the share of pairs of different length in which the chosen answer
    has more words; `difference`: chosen minus rejected, in words, over all pairs."""
    gaps, longer = [], 0
    for pair in pairs:
        gap = len(pair.chosen.text.split()) - len(pair.rejected.text.split())
        gaps.append(gap)
        longer += gap > 0
    # Pairs of one length say nothing of a bias.
    same = gaps.count(0)
    return {
        "chosen_longer": wilson_interval(longer, len(gaps) - same).to_json(),
        "same_length": same,
        "difference": mean_interval(gaps).to_json(),
    }


def won_by_model(pairs: Sequence[Pair]) -> dict[str, dict[str, Any]]:
    """Return for each model the share of its pairs with another model that it wins."""
    won, lost = Counter(), Counter()
    for pair in pairs:
        winner, loser = pair.chosen.model, pair.rejected.model
        if winner is not None and loser is not None and winner != loser:
            won[winner] += 1
            lost[loser] += 1
    found = {}
    for model in sorted(won | lost):
        share = wilson_interval(won[model], won[model] + lost[model])
        found[model] = {"won": won[model], "lost": lost[model], "share": share.to_json()}
    return found


def contradictions(pairs: Sequence[Pair]) -> dict[str, Any]:
    """Count contradictions. `conflicts`: two texts of a prompt of which each is preferred to the other. `cycles`:
    prompts where answers beat one another in a circle of three or more; of a conflict the direction that is more
    frequent counts, or none."""
    won: dict[PromptKey, Counter[tuple[str, str]]] = defaultdict(Counter)
    where: dict[PromptKey, str] = {}
    for pair in pairs:
        won[pair.prompt_key][pair.chosen.text, pair.rejected.text] += 1
        where.setdefault(pair.prompt_key, pair.where)
    conflicts, conflicting, cyclic = 0, [], []
    for prompt, wins in won.items():
        opposite = 0
        for a, b in wins:
            # Each conflict is in `wins` in both directions, and counts once.
            opposite += a < b and (b, a) in wins
        conflicts += opposite
        if opposite:
            conflicting.append(prompt)
        if has_cycle(wins):
            cyclic.append(prompt)
    return {"conflicts": {"pairs": conflicts, **_places(conflicting, where)}, "cycles": _places(cyclic, where)}


def _places(prompts: Sequence[PromptKey], where: dict[PromptKey, str]) -> dict[str, Any]:
    return {"prompts": len(prompts), "first": [where[prompt] for prompt in prompts[:3] if where[prompt]]}


def has_cycle(won: Counter[tuple[str, str]]) -> bool:
    """Return whether the preferences {(winner, loser): times} go in a circle."""
    beaten_by: dict[str, set[str]] = defaultdict(set)
    for (winner, loser), times in won.items():
        # Of a conflict the more frequent direction counts; at equal numbers neither does.
        if times > won[loser, winner]:
            beaten_by[loser].add(winner)
    try:
        graphlib.TopologicalSorter(beaten_by).prepare()
    except graphlib.CycleError:
        return True
    return False
