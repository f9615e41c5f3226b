"""The numbers of an evaluation as one JSON object and as printed lines; two evaluations compared prompt by prompt."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from utils.errors import UserError
from utils.evaluation.comparisons import Comparisons
from utils.evaluation.length_control import length_controlled
from utils.evaluation.manifest import refuse_mismatch, unknown_facts
from utils.evaluation.win_rate import difference_seen, prompts_needed, sign_test, simple_win_rate, win_rate
from utils.statistics import cluster_bootstrap


def numbers(compared: Comparisons, seed: int, points: float) -> dict[str, Any]:
    """Return win_rate and ci95 in per cent, and everything else by prompt.

    Args:
        compared: the judgements.
        seed: of the bootstrap over prompts.
        points: a difference from 50 % in percentage points, of which the prompts needed to see it are returned.
    """
    outcomes, judged = list(compared.outcomes.values()), compared.manifest["protocol"] == "judged"
    simple = simple_win_rate(outcomes, independent=not judged)
    by_prompt = win_rate(outcomes, seed)
    equal_length = length_controlled(outcomes, list(compared.differences.values()))
    # From one prompt alone nothing is known of the spread between prompts.
    difference, needed, planned, seen = abs(by_prompt.rate.value - 0.5), None, None, None
    if by_prompt.rate.n > 1:
        planned = prompts_needed(by_prompt.spread, points / 100)
        seen = 100 * difference_seen(by_prompt.spread, by_prompt.rate.n)
        if difference:
            needed = prompts_needed(by_prompt.spread, difference)
    return {
        "win_rate": simple.percent,
        "ci95": simple.half_width,
        "n": simple.n,
        "wins": simple.wins,
        "ties": simple.ties,
        "losses": simple.losses,
        "refused": compared.refused,
        "failed": compared.failed,
        "prompts": by_prompt.rate.to_json(),
        "sign_test": by_prompt.sign_test,
        "prompts_needed": needed,
        "power": {"difference": points, "prompts_needed": planned, "difference_seen": seen},
        "length_controlled": equal_length.to_json(),
        "first_shown": cluster_bootstrap(list(compared.first_shown.values()), seed).to_json(),
        "sizes": compared.sizes,
        "manifest": compared.manifest,
        "outcomes": {prompt: fmean(each) for prompt, each in compared.outcomes.items()},
    }


def lines(found: dict[str, Any]) -> Iterator[str]:
    """Yield what numbers() returned, for people."""
    for name, size in found["sizes"].items():
        yield f"{name}: {size:,}"
    undecided = f"{found['refused']} refused, {found['failed']} without a verdict"
    yield f"judged: {found['n']:,} ({found['wins']} wins, {found['ties']} ties, {found['losses']} losses; {undecided})"
    error, rate = "unknown of one judgement", found["prompts"]
    if found["ci95"] is not None:
        error = f"{found['ci95']:.2f}"
    unit = "1.96 standard errors"
    if rate["n"] < found["n"]:
        unit += {"judged": ", by prompt"}.get(found["manifest"]["protocol"], ", every row taken as independent")
    yield f"win rate: {found['win_rate']:.2f} % +- {error} ({unit})"
    yield f"over {rate['n']:,} prompts: {interval(rate)}, sign test p = {found['sign_test']:.3g}"
    if found["prompts_needed"]:
        yield f"prompts that show this difference from 50 % in 80 % of the experiments: {found['prompts_needed']:,}"
    power = found["power"]
    if power["prompts_needed"]:
        yield (
            f"prompts that show {power['difference']:g} points: {power['prompts_needed']:,}; "
            f"these {rate['n']:,} show {power['difference_seen']:.1f} points"
        )
    controlled = found["length_controlled"]
    yield (
        f"at equal answer lengths: {interval(controlled)}; the model's answer is the longer one on "
        f"{100 * controlled['longer']:.0f} % (fitted to these verdicts alone)"
    )
    if found["first_shown"]["n"]:
        yield f"position: the answer shown first is preferred in {interval(found['first_shown'])} of the judgements"


def interval(estimate: dict[str, Any]) -> str:
    """Return a share and its interval in per cent."""
    if estimate["low"] is None:
        return f"{100 * estimate['value']:.2f} %"
    return f"{100 * estimate['value']:.2f} % [{100 * estimate['low']:.2f}, {100 * estimate['high']:.2f}]"


def compare(first: tuple[Path, dict], second: tuple[Path, dict], seed: int) -> dict[str, Any]:
    """Return the difference of two evaluations over the prompts that both have.

    Args:
        first: path and content of an evaluation's JSON file.
        second: the other one; the difference is the second's win rate - the first's.
        seed: of the bootstrap over prompts.

    Returns:
        The difference of the win rates in percentage points with its interval, paired by prompt; and counts of prompts.

    Raises:
        UserError: no prompt is in both, or their manifests differ.
    """
    (path, one), (other_path, other) = first, second
    common = [prompt for prompt in one["outcomes"] if prompt in other["outcomes"]]
    if not common:
        sizes = f"{len(one['outcomes'])} and {len(other['outcomes'])}"
        raise UserError(f"{path} and {other_path} share no prompt of {sizes}; evaluate both models on the same prompts")
    refuse_mismatch((path, one["manifest"]), (other_path, other["manifest"]))
    differences_P = np.array([other["outcomes"][prompt] - one["outcomes"][prompt] for prompt in common])
    better, worse = int((differences_P > 0).sum()), int((differences_P < 0).sum())
    estimate, needed = cluster_bootstrap(differences_P[:, None], seed), None
    if len(common) > 1 and estimate.value:
        needed = prompts_needed(float(differences_P.std(ddof=1)), abs(estimate.value))
    points = {name: value if name == "n" else _percent(value) for name, value in estimate._asdict().items()}
    return {
        "difference": points,
        "better": better,
        "equal": len(common) - better - worse,
        "worse": worse,
        "sign_test": sign_test(better, worse),
        "prompts_needed": needed,
        "only_first": len(one["outcomes"]) - len(common),
        "only_second": len(other["outcomes"]) - len(common),
        "unknown": unknown_facts(one["manifest"]),
    }


def _percent(value: float) -> float | None:
    return None if math.isnan(value) else 100 * value


def comparison_lines(found: dict[str, Any]) -> Iterator[str]:
    """Yield what compare() returned, for people."""
    difference = found["difference"]
    between = ""
    if difference["low"] is not None:
        between = f" [{difference['low']:+.2f}, {difference['high']:+.2f}]"
    yield f"{difference['n']:,} prompts in both; {found['only_first']} and {found['only_second']} in one alone"
    yield f"second - first: {difference['value']:+.2f} percentage points{between}"
    yield (
        f"second better on {found['better']}, equal on {found['equal']}, worse on {found['worse']}; "
        f"sign test p = {found['sign_test']:.3g}"
    )
    if found["prompts_needed"]:
        yield f"prompts that show this difference in 80 % of the experiments: {found['prompts_needed']:,}"
    if found["unknown"]:
        yield f"not recorded, and so not checked to be equal: {', '.join(found['unknown'])}"
