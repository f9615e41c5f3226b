"""True reward, best-of-n, the reward model: what the answers are worth and how well the reward model knows it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from utils.report.axes import Axis, short
from utils.report.charts import Bounds, Chart, Point, Series, binned, interval, ticks
from utils.report.page.words import NOT_RUN, charts, name_of, paragraph, table, with_interval

STATES = {  # of the student
    "right": "is right",
    "wrong": "is wrong",
    "partial": "is partly right",
    "open": "has no idea",
    "off": "is off topic",
}


@dataclass(frozen=True)
class Measure:
    """What best-of-n and PPO are measured by, and the words of its charts."""

    column: str  # of PPO's metrics.jsonl; eval/COLUMN has the held-out numbers
    key: str  # in results["best_of_n"]
    colour: str
    unit: str
    name: str
    over_n: str  # what to look for in the chart over n
    against_kl: str


MEASURES = (
    Measure(
        column="score",
        key="score",
        colour="model",
        unit="score of the reward model",
        name="score",
        over_n="Each doubling of n should gain less than the one before.",
        against_kl="Higher at the same KL is better: more score for the same distance from the SFT model.",
    ),
    Measure(
        column="true_score",
        key="reward",
        colour="truth",
        unit="true reward, points",
        name="true reward",
        over_n="It should rise with the score. Where it turns down, a higher score no longer means a better answer "
        "(over-optimisation).",
        against_kl="Compare with the chart of the score: where the score still rises and the true reward does not, a "
        "policy has gone too far.",
    ),
)


def true_rewards(results: Mapping[str, Any]) -> str:
    """Return the section of the true rewards: a row a name, then the means by the student's state."""
    rewards = results.get("true_reward", {})
    if not rewards:
        return NOT_RUN
    ends = []
    for row in rewards.values():
        ends += [row["reward"][end] for end in ("low", "value", "high") if row["reward"][end] is not None]
    # Whole points: they are written under it.
    scale = Bounds(math.floor(min(ends)), math.floor(max(ends)) + 1)
    first, base = next(iter(rewards.items()))
    wins = results["win_rates"].get("oracle", {})
    rows = []
    for name, row in rewards.items():
        reward = row["reward"]
        drawn = interval(reward["value"], low=reward["low"], high=reward["high"], scale=scale)
        won = ""
        if first in wins.get(name, {}):
            won = f"{wins[name][first]['value']:.0%}"
        rows.append((
            name_of(name), drawn, with_interval(reward), won,
            f"{row['mean_words']:.1f}", f"{row['finished']['value']:.1%}", f"{row['answers']:,}",
        ))  # fmt: skip
    # The scale of the intervals, once, as the last row.
    rows.append(("", ticks(scale), "", "", "", "", ""))
    head = ("", "points", "mean and 95 % interval", f"beats {name_of(first)}", "words", "finished", "answers")
    text = (
        "The built-in world has an oracle that knows what an answer is worth, from 1 to 7 points, and reads it from "
        f"the words alone. Means over {base['reward']['n']} held-out prompts; 95 % intervals from a bootstrap of the "
        f'prompts. <span class="optional">An answer beats {name_of(first)} when it is worth more than one of '
        f"{name_of(first)} to the same prompt; equal counts half.</span>"
    )
    return paragraph(text) + table(head, rows, optional=(3, 4, 5, 6)) + _by_state(rewards)


def _by_state(rewards: Mapping[str, Any]) -> str:
    rows = []
    for state, words in STATES.items():
        cells = []
        for row in rewards.values():
            cell = ""
            # On a narrow screen four intervals side by side have no room.
            if state in row["states"]:
                cell = with_interval(row["states"][state], kind="bounds optional")
            cells.append(cell)
        if any(cells):
            rows.append([words, *cells])
    return table(("the student …", *map(name_of, rewards)), rows)


def best_of_n(found: Mapping[str, Any], ppo: Sequence[Mapping[str, Any]]) -> str:
    """Return the section of score and true reward over n, and of both against KL beside PPO's path."""
    drawn = [_over_n(found, measure) for measure in MEASURES]
    drawn += [_against_kl(found, ppo, measure) for measure in MEASURES]
    figures = [chart.figure() for chart in drawn if chart]
    if not figures:
        return NOT_RUN
    of = ""
    if found["of"]:
        of = f" of {name_of(found['of'])}"
    text = (
        f"Best-of-n samples n answers{of} and keeps the one with the highest score. Every n is estimated from the same "
        "sampled answers, as the mean over all their subsets of size n. The KL divergence says how far a policy is "
        "from the SFT model: for best-of-n its bound log n − (n − 1)/n, for PPO the mean over the sampled answers."
    )
    return paragraph(text) + charts(figures)


def _over_n(found: Mapping[str, Any], measure: Measure) -> Chart | None:
    estimates = found[measure.key]
    if not estimates:
        return None
    numbers = [int(number) for number in estimates]
    return Chart(
        title=f"Best of n: {measure.name}",
        x=Axis("n, answers to choose from", log=True, ticks=numbers),  # the numbers double
        y=Axis(measure.unit),
        series=[_dots(numbers, list(estimates.values()), measure.colour)],
        look=measure.over_n,
    )


def _against_kl(found: Mapping[str, Any], ppo: Sequence[Mapping[str, Any]], measure: Measure) -> Chart | None:
    trained, held_out = _path(ppo, "kl", measure.column), _path(ppo, "eval/kl", f"eval/{measure.column}")
    numbers = [number for number in found[measure.key] if number in found["kl_bound"]]
    series = []
    if trained:
        # The label stands once: at the dots, if there are any.
        label = "" if held_out else "PPO"
        series.append(Series(binned(trained), measure.colour, line=True, label=label))
    if held_out:
        series.append(Series(held_out, measure.colour, label="PPO"))
    if numbers:
        bounds = [found["kl_bound"][number] for number in numbers]
        estimates = [found[measure.key][number] for number in numbers]
        series.append(_dots(bounds, estimates, measure.colour, names=numbers, label="best of n"))
    if not series:
        return None
    return Chart(
        title=f"{measure.name.capitalize()} against KL",
        x=Axis("KL divergence from the SFT model, nats"),
        y=Axis(measure.unit),
        series=series,
        look=measure.against_kl,
    )


def _path(rows: Sequence[Mapping[str, Any]], x: str, y: str) -> list[Point]:
    """Return the points of two columns, of the rows that have both."""
    return [Point(row[x], row[y]) for row in rows if x in row and y in row]


def _dots(places: Sequence[float], estimates: Sequence[Mapping[str, Any]], colour: str, **more: Any) -> Series:
    """Return estimates as dots, with their intervals where all are known."""
    points = [Point(place, estimate["value"]) for place, estimate in zip(places, estimates, strict=True)]
    bounds = [Bounds(estimate["low"], estimate["high"]) for estimate in estimates]
    # Some with an interval and some without would look as if those were exact.
    if any(bound.low is None for bound in bounds):
        bounds = []
    return Series(points, colour, bounds=bounds, **more)


def reward_model(found: Mapping[str, Any]) -> str:
    """Return the section of the reward model: accuracy beside its ceiling, and the reliability diagram."""
    if not found:
        return NOT_RUN
    accuracy = found["accuracy"]
    pairs = "the held-out verdicts"
    if accuracy["n"]:
        pairs = f"{accuracy['n']:,} held-out verdicts"
    text = f"It agrees with <b>{accuracy['value']:.1%}</b> of {pairs}"
    if accuracy["low"] is not None:
        text += f" [{accuracy['low']:.1%}, {accuracy['high']:.1%}]"
    if "ceiling" in found:
        text += (
            f". Verdicts are noisy: one who knew the truth would agree with {found['ceiling']:.1%} of them on average. "
            f"The model reaches <b>{found['share_of_ceiling']:.1%}</b> of that ceiling"
        )
    numbers = []
    for key, name in (("margin", "mean margin"), ("brier", "Brier score"), ("ece", "calibration error")):
        if found[key] is not None:
            numbers.append(f"{name} {short(found[key])}")
    same = paragraph(f"On the same verdicts: {', '.join(numbers)}.")
    return paragraph(f"{text}.") + same + _calibration(found["calibration"])


def _calibration(found: Mapping[str, Any]) -> str:
    if not found.get("bins"):
        return ""
    predicted, observed, counts = [], [], []
    for row in found["bins"]:
        predicted.append(row["predicted"])
        observed.append(row["observed"])
        counts.append(f"{row['n']:,}")
    chart = Chart(
        title="Calibration on held-out verdicts",
        x=Axis("predicted probability of its winner"),
        y=Axis("observed share of verdicts for it"),
        series=[_dots(predicted, observed, "model", names=counts)],
        look="Dots on the dashed line: the probability σ(margin) can be trusted. Below it the model is too sure of "
        f"itself. The number at a dot is how many verdicts it stands for; step {found['step']:,}.",
        diagonal=True,
    )
    return charts([chart.figure()])
