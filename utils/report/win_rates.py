"""Win rates among the answers of a pipeline, by the oracle and by the reward model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from utils.evaluation import all_pairs
from utils.records import LIKELIHOODS, Record
from utils.world.truth import utilities


def win_rates(answers: Mapping[str, Mapping[str, Record]]) -> dict[str, Any]:
    """Return how often each name's answer beats another's to the same prompt, {judge: {model: {reference: rate}}}.

    The judges are the oracle and, where one reward model has scored every answer of two names or more, that model.

    Args:
        answers: for every name the prompts with their answers, by the prompt's id.
    """
    true_worth: dict[str, dict[str, list[float]]] = {}
    scored: dict[str, dict[str, list[float]]] = {}
    scorer = _scorer(answers.values())
    for name, known in answers.items():
        true_worth[name] = {prompt: utilities(record) for prompt, record in known.items()}
        if all(scorer in answer.scores for record in known.values() for answer in record.answers):
            scored[name] = {}
            for prompt, record in known.items():
                scored[name][prompt] = [answer.scores[scorer] for answer in record.answers]
    found = {}
    for judge, worth_of in (("oracle", true_worth), ("reward_model", scored)):
        rates: dict[str, dict[str, Any]] = {}
        for model, against in all_pairs.win_rates(worth_of).items():
            rates[model] = {reference: rate.to_json() for reference, rate in against.items()}
        if rates:
            found[judge] = rates
    return found


def _scorer(sets: Iterable[Mapping[str, Record]]) -> str | None:
    """Return the name of the scores that the answers of most sets have; None without any."""
    counts: Counter[str] = Counter()
    for known in sets:
        seen: set[str] = set()
        for record in known.values():
            for answer in record.answers:
                seen.update(answer.scores)
        counts.update(seen - set(LIKELIHOODS))
    if not counts:
        return None
    return counts.most_common(1)[0][0]
