"""The curves of training, stage by stage, and how fast each stage was."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from utils.report.axes import Axis, short
from utils.report.charts import Chart, Level, Point, Series, binned
from utils.report.page.words import NOT_RUN, charts, name_of, paragraph, table

Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Curve:
    """A chart of one or two columns of a stage's metrics.jsonl over its steps."""

    stage: str
    names: tuple[str, ...]  # columns of metrics.jsonl; eval/NAME has the held-out numbers
    title: str
    unit: str
    look: str
    colours: tuple[str, ...] = ("other",)
    log: bool = False


CURVES = [
    Curve(
        stage="sft",
        names=("loss",),
        title="Supervised fine-tuning: loss",
        unit="nats per token",
        look="It should fall and level off. Dots that rise while the line falls mean that the model memorises its "
        "data.",
        log=True,
    ),
    Curve(
        stage="reward",
        names=("loss",),
        title="Reward model: loss",
        unit="nats per comparison",
        look="A model that guesses has log 2 = 0.693. Dots that rise again mean that it learns the noise of its "
        "verdicts.",
        colours=("model",),
    ),
    Curve(
        stage="reward",
        names=("accuracy",),
        title="Reward model: accuracy",
        unit="share of verdicts it agrees with",
        look="The dots should come near the ceiling, the best that noisy verdicts allow; a line far above the dots"
        " is overfitting.",
        colours=("model",),
    ),
    Curve(
        stage="dpo",
        names=("loss",),
        title="DPO: loss",
        unit="nats per comparison",
        look="The default loss starts at log 2 = 0.693 and falls slowly. The dots should follow the line.",
    ),
    Curve(
        stage="dpo",
        names=("accuracy",),
        title="DPO: accuracy",
        unit="share of pairs ranked as the verdict",
        look="The share of pairs in which DPO raised the chosen answer more than the rejected one. It should rise "
        "well above one half.",
    ),
    Curve(
        stage="dpo",
        names=("margin",),
        title="DPO: margin of the implicit rewards",
        unit="nats, times beta",
        look="It should grow. A margin that grows while the held-out loss rises is overfitting.",
    ),
    Curve(
        stage="dpo",
        names=("chosen_logprob", "rejected_logprob"),
        title="DPO: log-probability of the answers",
        unit="nats per answer",
        look="The gap should widen because the rejected answers become unlikely. The chosen ones often fall a "
        "little too; when they fall as fast, the model drifts away from both.",
        colours=("chosen", "rejected"),
    ),
    Curve(
        stage="ppo",
        names=("score",),
        title="PPO: score",
        unit="score of the reward model",
        look="What PPO maximises, so it should rise. Whether the answers are better is in the next chart.",
        colours=("model",),
    ),
    Curve(
        stage="ppo",
        names=("true_score",),
        title="PPO: true reward",
        unit="points, 1 to 7",
        look="It should rise with the score. If it falls while the score rises, PPO exploits errors of the reward "
        "model.",
        colours=("truth",),
    ),
    Curve(
        stage="ppo",
        names=("kl",),
        title="PPO: KL divergence from the SFT model",
        unit="nats per answer",
        look="How far the policy has moved. A sudden rise, or no end to it, calls for a larger --kl_coef.",
    ),
]


def training(results: Mapping[str, Any], metrics: Mapping[str, Rows]) -> str:
    """Return the section of training: every chart that has data, then the stages' speeds."""
    ceiling = results["reward_model"].get("ceiling")
    figures = []
    for curve in CURVES:
        chart = _chart(curve, metrics.get(curve.stage, ()), ceiling)
        if chart:
            figures.append(chart.figure())
    if not figures:
        return NOT_RUN
    return charts(figures) + _two_samplings(results, metrics) + _speeds(results["stages"])


def _chart(curve: Curve, rows: Rows, ceiling: float | None) -> Chart | None:
    series = []
    for name, colour in zip(curve.names, curve.colours, strict=True):
        if (curve.stage, name) == ("dpo", "accuracy"):
            # Before the first update every margin of DPO is 0, and every pair counts half: nothing is measured there.
            rows = [row for row in rows if row["step"] > 1]
        trained, held_out = binned(_over_steps(rows, name)), _over_steps(rows, f"eval/{name}")
        what = ""
        # Two lines in one chart are told apart by the first word of their columns.
        if len(curve.names) > 1:
            what = f"{name.split('_')[0]} "
        last = [points[-1].y for points in (held_out, trained) if points]
        if trained:
            label = "" if held_out else what + short(last[0])  # written once: at the dots, if there are any
            series.append(Series(trained, colour, line=True, label=label))
        if held_out:
            series.append(Series(held_out, colour, label=what + short(last[0])))
    if not any(one.line for one in series):
        return None
    level = None
    if ceiling and (curve.stage, curve.names) == ("reward", ("accuracy",)):
        level = Level(ceiling, "ceiling")
    return Chart(
        title=curve.title,
        x=Axis("steps"),
        y=Axis(curve.unit, log=curve.log),
        series=series,
        look=curve.look,
        level=level,
    )


def _over_steps(rows: Rows, column: str) -> list[Point]:
    return [Point(row["step"], row[column]) for row in rows if column in row]


def _two_samplings(results: Mapping[str, Any], metrics: Mapping[str, Rows]) -> str:
    """Explain why PPO's last dot is not the number of the table."""
    measured = results.get("true_reward", {}).get("ppo")
    dots = [row["eval/true_score"] for row in metrics.get("ppo", ()) if "eval/true_score" in row]
    if not (measured and dots):
        return ""
    each = measured["answers"] / measured["reward"]["n"]
    return paragraph(
        f"Two samplings of the same model: PPO's last dot, a true reward of {dots[-1]:.2f}, is the mean over one "
        f"answer to each held-out prompt, sampled during training. The {measured['reward']['value']:.2f} of the table "
        f"above is over {each:g} answers to each, sampled afterwards. They differ by chance; the table is the more "
        "exact.",
        "aside",
    )  # fmt: skip


def _speeds(stages: Mapping[str, Any]) -> str:
    rows = []
    for name, stage in stages.items():
        speed = share = "–"
        if stage["median_tokens_per_second"] is not None:
            speed = f"{stage['median_tokens_per_second']:,.0f}"
        if stage["median_gemm_share"] is not None:
            share = f"{stage['median_gemm_share']:.0%}"
        rows.append((name_of(name), f"{stage['steps']:,}", speed, share, html.escape(str(stage["commit"]))))
    text = (
        "Medians over steps. Compute used: the arithmetic of training as a share of the fastest matrix multiplication "
        "measured on this machine; small models reach little of it."
    )
    if "ppo" in stages:
        text += (
            " PPO does not measure it (–), and its tokens are those of sampled answers over whole steps: sampling, "
            "scoring and training."
        )
    return table(("", "steps", "tokens/s", "compute used", "commit"), rows, optional=(4,)) + paragraph(text, "aside")
