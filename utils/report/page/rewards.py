"""True reward, best-of-n, the reward model: what the answers are worth and how well the reward model knows it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from utils.report.charts import Axis, Chart, Series, binned, interval, short, ticks
from utils.report.page.words import NOT_RUN, name_of, paragraph, table, with_interval

STATES = {  # of the student
    "right": "is right",
    "wrong": "is wrong",
    "partial": "is partly right",
    "open": "has no idea",
    "off": "is off topic",
}
JUDGES = {  # column of PPO's metrics.jsonl, key of results["best_of_n"] -> colour, axis
    ("score", "score"): ("model", "score of the reward model"),
    ("true_score", "reward"): ("truth", "true reward, points"),
}


def true_rewards(results: Mapping[str, Any]) -> str:
    """The section: a row a name, then the means by the student's state."""
    rewards = results.get("true_reward", {})
    if not rewards:
        return NOT_RUN
    ends = [row["reward"][end] for row in rewards.values() for end in ("low", "value", "high")]
    ends = [end for end in ends if end is not None]
    scale = (math.floor(min(ends)), math.floor(max(ends)) + 1)
    wins = results["against_first"].get("win_rate", {})
    rows = []
    for name, row in rewards.items():
        reward, won = row["reward"], wins.get(name)
        rows.append((
            name_of(name), interval(reward["value"], reward["low"], reward["high"], scale), with_interval(reward),
            f"{won['value']:.0%}" if won else "", f"{row['mean_words']:.1f}", f"{row['finished']['value']:.1%}",
            f"{row['answers']:,}",
        ))  # fmt: skip
    rows.append(("", ticks(scale), "", "", "", "", ""))
    first, base = next(iter(rewards.items()))
    head = ("", "points", "mean and 95 % interval", f"beats {name_of(first)}", "words", "finished", "answers")
    said = (
        "The built-in world has an oracle that knows what an answer is worth, from 1 to 7 points, and reads it from "
        f"the words alone. Means over {base['reward']['n']} held-out prompts; 95 % intervals from a bootstrap of the "
        f'prompts. <span class="optional">An answer beats {name_of(first)} when it is worth more than one of '
        f"{name_of(first)} to the same prompt; equal counts half.</span>"
    )
    return paragraph(said) + table(head, rows, optional=(3, 4, 5, 6)) + _by_state(rewards)


def _by_state(rewards: Mapping[str, Any]) -> str:
    states = [state for state in STATES if any(state in row["states"] for row in rewards.values())]
    kind = "bounds optional"  # on a narrow screen four intervals side by side have no room
    cell = lambda row, state: with_interval(row["states"][state], kind) if state in row["states"] else ""  # noqa: E731
    rows = [[STATES[state], *(cell(row, state) for row in rewards.values())] for state in states]
    return table(("the student …", *map(name_of, rewards)), rows)


def best_of_n(found: Mapping[str, Any], ppo: Sequence[Mapping[str, Any]]) -> str:
    """The section: score and true reward over n, and both against KL beside PPO's path."""
    charts = [chart for of_ppo, of_best in JUDGES for chart in _over_n(found, of_ppo, of_best)]
    charts += [chart for of_ppo, of_best in JUDGES for chart in _against_kl(found, ppo, of_ppo, of_best)]
    if not charts:
        return NOT_RUN
    of = f" of {name_of(found['of'])}" if found["of"] else ""
    said = (
        f"Best-of-n samples n answers{of} and keeps the one with the highest score. Every n is estimated from the same "
        "sampled answers, as the mean over all their subsets of size n. The KL divergence says how far a policy is "
        "from the SFT model: for best-of-n its bound log n − (n − 1)/n, for PPO the mean over the sampled answers."
    )
    return paragraph(said) + f'<div class="curves">{"".join(chart.figure() for chart in charts)}</div>'


def _over_n(found: Mapping[str, Any], of_ppo: str, of_best: str) -> list[Chart]:
    estimates = found[of_best]
    if not estimates:
        return []
    colour, unit = JUDGES[of_ppo, of_best]
    numbers = [int(n) for n in estimates]
    dots = _dots([*zip(numbers, estimates.values(), strict=True)], colour)
    look = {
        "score": "Each doubling of n should gain less than the one before.",
        "reward": "It should rise with the score. Where it turns down, a higher score no longer means a better answer "
        "(over-optimisation).",
    }[of_best]
    title = {"score": "Best of n: score", "reward": "Best of n: true reward"}[of_best]
    return [Chart(title, Axis("n, answers to choose from", log=True, ticks=numbers), Axis(unit), [dots], look)]


def _against_kl(found: Mapping[str, Any], ppo: Sequence[Mapping[str, Any]], of_ppo: str, of_best: str) -> list[Chart]:
    colour, unit = JUDGES[of_ppo, of_best]
    trained = [(row["kl"], row[of_ppo]) for row in ppo if "kl" in row and of_ppo in row]
    held_out = [(row["eval/kl"], row[f"eval/{of_ppo}"]) for row in ppo if f"eval/{of_ppo}" in row and "eval/kl" in row]
    best = [(found["kl_bound"][n], value) for n, value in found[of_best].items() if n in found["kl_bound"]]
    series = [Series(binned(trained), colour, line=True, label="" if held_out else "PPO")] if trained else []
    series += [Series(held_out, colour, label="PPO")] if held_out else []
    if best:
        names = [n for n in found[of_best] if n in found["kl_bound"]]
        series.append(_dots(best, colour, names=names, label="best of n"))
    if not series:
        return []
    look = {
        "score": "Higher at the same KL is better: more score for the same distance from the SFT model.",
        "reward": "Compare with the chart of the score: where the score still rises and the true reward does not, a "
        "policy has gone too far.",
    }[of_best]
    title = {"score": "Score against KL", "reward": "True reward against KL"}[of_best]
    return [Chart(title, Axis("KL divergence from the SFT model, nats"), Axis(unit), series, look)]


def _dots(points: Sequence[tuple[float, Mapping[str, Any]]], colour: str, **more: Any) -> Series:
    """Estimates with their intervals, where they are known."""
    bounds = [(e["low"], e["high"]) for _, e in points] if all(e["low"] is not None for _, e in points) else []
    return Series([(x, e["value"]) for x, e in points], colour, bounds=bounds, **more)


def reward_model(found: Mapping[str, Any]) -> str:
    """The section: accuracy beside its ceiling, and the reliability diagram."""
    if not found:
        return NOT_RUN
    accuracy = found["accuracy"]
    pairs = f"{accuracy['n']:,} held-out verdicts" if accuracy["n"] else "the held-out verdicts"
    text = f"It agrees with <b>{accuracy['value']:.1%}</b> of {pairs}"
    text += f" [{accuracy['low']:.1%}, {accuracy['high']:.1%}]" if accuracy["low"] is not None else ""
    if "ceiling" in found:
        text += (
            f". Verdicts are noisy: one who knew the truth would agree with {found['ceiling']:.1%} of them on average. "
            f"The model reaches <b>{found['share_of_ceiling']:.1%}</b> of that ceiling"
        )
    names = {"margin": "mean margin", "brier": "Brier score", "ece": "calibration error"}
    numbers = ", ".join(f"{said} {short(found[key])}" for key, said in names.items() if found[key] is not None)
    return paragraph(f"{text}.") + paragraph(f"On the same verdicts: {numbers}.") + _calibration(found["calibration"])


def _calibration(found: Mapping[str, Any]) -> str:
    if not found.get("bins"):
        return ""
    bins = [(b["predicted"], b["observed"]) for b in found["bins"]]
    pairs = [f"{b['n']:,}" for b in found["bins"]]
    chart = Chart(
        "Calibration on held-out verdicts", Axis("predicted probability of its winner"),
        Axis("observed share of verdicts for it"), [_dots(bins, "model", names=pairs)],
        f"Dots on the dashed line: the probability σ(margin) can be trusted. Below it the model is too sure of itself. "
        f"The number at a dot is how many verdicts it stands for; step {found['step']:,}.", diagonal=True,
    )  # fmt: skip
    return f'<div class="curves">{chart.figure()}</div>'
