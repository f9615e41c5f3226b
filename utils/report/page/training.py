"""The curves of training, stage by stage, and how fast each stage was."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from utils.report.charts import Axis, Chart, Series, binned, short
from utils.report.page.words import NOT_RUN, name_of, paragraph, table

Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Curve:
    """A chart of one or two numbers of a stage's metrics.jsonl over its steps."""

    stage: str
    names: tuple[str, ...]  # columns of metrics.jsonl; eval/NAME has the held-out numbers
    title: str
    unit: str
    look: str
    colours: tuple[str, ...] = ("other",)
    log: bool = False


CURVES = [
    Curve("sft", ("loss",), "Supervised fine-tuning: loss", "nats per token",
          "It should fall and level off. Dots that rise while the line falls mean that the model memorises its data.",
          log=True),
    Curve("reward", ("loss",), "Reward model: loss", "nats per comparison",
          "A model that guesses has log 2 = 0.693. Dots that rise again mean that it learns the noise of its verdicts.",
          ("model",)),
    Curve("reward", ("accuracy",), "Reward model: accuracy", "share of verdicts it agrees with",
          "The dots should come near the ceiling, the best that noisy verdicts allow; a line far above the dots is "
          "overfitting.", ("model",)),
    Curve("dpo", ("loss",), "DPO: loss", "nats per comparison",
          "The default loss starts at log 2 = 0.693 and falls slowly. The dots should follow the line."),
    Curve("dpo", ("accuracy",), "DPO: accuracy", "share of pairs ranked as the verdict",
          "The share of pairs in which DPO raised the chosen answer more than the rejected one. It should rise well "
          "above one half."),
    Curve("dpo", ("margin",), "DPO: margin of the implicit rewards", "nats, times beta",
          "It should grow. A margin that grows while the held-out loss rises is overfitting."),
    Curve("dpo", ("chosen_logprob", "rejected_logprob"), "DPO: log-probability of the answers", "nats per answer",
          "The gap should widen because the rejected answers become unlikely. The chosen ones often fall a little too; "
          "when they fall as fast, the model drifts away from both.", ("chosen", "rejected")),
    Curve("ppo", ("score",), "PPO: score", "score of the reward model",
          "What PPO maximises, so it should rise. Whether the answers are better is in the next chart.", ("model",)),
    Curve("ppo", ("true_score",), "PPO: true reward", "points, 1 to 7",
          "It should rise with the score. If it falls while the score rises, PPO exploits errors of the reward model.",
          ("truth",)),
    Curve("ppo", ("kl",), "PPO: KL divergence from the SFT model", "nats per answer",
          "How far the policy has moved. A sudden rise, or no end to it, calls for a larger --kl_coef."),
]  # fmt: skip


def training(results: Mapping[str, Any], metrics: Mapping[str, Rows]) -> str:
    """The section: every chart that has data, then the stages' speeds."""
    ceiling = results["reward_model"].get("ceiling")
    charts = [chart for curve in CURVES if (chart := _chart(curve, metrics.get(curve.stage, ()), ceiling))]
    if not charts:
        return NOT_RUN
    figures = "".join(chart.figure() for chart in charts)
    return f'<div class="curves">{figures}</div>{_two_samplings(results, metrics)}{_speeds(results["stages"])}'


def _chart(curve: Curve, rows: Rows, ceiling: float | None) -> Chart | None:
    series = []
    for name, colour in zip(curve.names, curve.colours, strict=True):
        # before the first update every margin of DPO is 0, and no pair counts as right
        seen = [row for row in rows if row["step"] > 1] if (curve.stage, name) == ("dpo", "accuracy") else rows
        trained = binned([(row["step"], row[name]) for row in seen if name in row])
        held_out = [(row["step"], row[f"eval/{name}"]) for row in seen if f"eval/{name}" in row]
        what = f"{name.split('_')[0]} " if len(curve.names) > 1 else ""
        ends = [points[-1][1] for points in (held_out, trained) if points]
        if trained:
            series.append(Series(trained, colour, line=True, label="" if held_out else what + short(ends[0])))
        if held_out:
            series.append(Series(held_out, colour, label=what + short(ends[0])))
    if not any(one.line for one in series):
        return None
    level = (ceiling, "ceiling") if ceiling and (curve.stage, curve.names) == ("reward", ("accuracy",)) else None
    return Chart(curve.title, Axis("steps"), Axis(curve.unit, log=curve.log), series, curve.look, level)


def _two_samplings(results: Mapping[str, Any], metrics: Mapping[str, Rows]) -> str:
    """Why PPO's last dot is not the number of the table."""
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
        speed, share = stage["median_tokens_per_second"], stage["median_gemm_share"]
        rows.append((
            name_of(name), f"{stage['steps']:,}", "–" if speed is None else f"{speed:,.0f}",
            "–" if share is None else f"{share:.0%}", html.escape(str(stage["commit"])),
        ))  # fmt: skip
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
