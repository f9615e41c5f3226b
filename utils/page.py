"""report.html: numbers in, one page out, its style and drawings inside it. Nothing is measured here."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from utils.charts import Curve, interval, short, ticks

CURVES = [
    ("sft", "loss", "Supervised fine-tuning: −log P of a token"),
    ("reward", "loss", "Reward model: −log σ(margin)"),
    ("reward", "accuracy", "Reward model: agrees with the verdict"),
    ("dpo", "loss", "DPO: loss"),
    ("dpo", "accuracy", "DPO: prefers what the verdict prefers"),
    ("dpo", "margin", "DPO: margin of the implicit rewards"),
    ("ppo", "score", "PPO: score of an answer"),
    ("ppo", "true_score", "PPO: true reward of an answer"),
    ("ppo", "kl", "PPO: KL to the SFT model, in nats of an answer"),
]
STATES = {  # of the student
    "right": "is right",
    "wrong": "is wrong",
    "partial": "is partly right",
    "open": "has no idea",
    "off": "is off topic",
}
NOT_RUN = '<p class="aside">Not measured yet.</p>'


def label(name: str) -> str:
    """best_of_16 -> best of 16, dpo -> DPO."""
    return name.upper() if name in ("sft", "dpo", "ppo") else name.replace("_", " ")


def name_of(name: str) -> str:
    return html.escape(label(name))


def between(estimate: Mapping[str, Any]) -> str:
    """0.732 [0.708, 0.755], the interval left out where it is not known."""
    known = f"{estimate['value']:.3f}"
    return known if estimate["low"] is None else f"{known} [{estimate['low']:.3f}, {estimate['high']:.3f}]"


def _with_interval(estimate: Mapping[str, Any]) -> str:
    value, _, bounds = between(estimate).partition(" ")
    return f'{value} <span class="bounds">{bounds}</span>'


def page(results: Mapping[str, Any], metrics: Mapping[str, Sequence[Mapping]], exchanges: Sequence[Mapping]) -> str:
    """The whole page. results: results.json; metrics: the rows of every stage; exchanges: as report.py makes them."""
    sections = {
        "True reward": _rewards(results),
        "The reward model": _reward_model(results["reward_model"]),
        "Training": _training(results, metrics),
        "What they answer": _exchanges(exchanges),
        "Time": _times(results["seconds"]),
        "What is missing": _missing(results["missing"]),
        "How to reproduce": _reproduce(results),
    }
    body = "".join(f"<section><h2>{title}</h2>{content}</section>" for title, content in sections.items())
    style = Path(__file__).with_name("page.css").read_text(encoding="utf-8")
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Plumbline: what was learned</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{style}</style></head><body>'
        f"<header><h1>What was learned</h1>{_lead(results)}</header>{body}</body></html>\n"
    )


def _lead(results: Mapping[str, Any]) -> str:
    rewards = results.get("true_reward", {})
    if not rewards:
        return '<p class="lead">The true reward has not been measured yet.</p>'
    (first, base), *others = rewards.items()
    text = f"Of 7 points that an answer can earn, {name_of(first)} earns <b>{base['reward']['value']:.2f}</b>"
    text += "".join(f", {name_of(name)} <b>{row['reward']['value']:.2f}</b>" for name, row in others) + "."
    ahead = [name_of(name) for name, row in others if _above(row["reward"], base["reward"])]
    if ahead:
        whose = f"intervals of {' and '.join(ahead)} lie" if len(ahead) > 1 else f"interval of {ahead[0]} lies"
        text += f" The 95 % {whose} wholly above that of {name_of(first)}."
    return f'<p class="lead">{text}</p>'


def _above(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return None not in (one["low"], other["high"]) and one["low"] > other["high"]


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], optional: Sequence[int] = ()) -> str:
    """Cells are HTML. Columns in `optional` are left out on a narrow screen."""
    kind = lambda i: ' class="optional"' if i in optional else ""  # noqa: E731
    line = lambda tag, row: f"<tr>{''.join(f'<{tag}{kind(i)}>{cell}</{tag}>' for i, cell in enumerate(row))}</tr>"  # noqa: E731
    return f'<div class="scroll"><table>{line("th", head)}{"".join(line("td", row) for row in rows)}</table></div>'


def _rewards(results: Mapping[str, Any]) -> str:
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
            name_of(name), interval(reward["value"], reward["low"], reward["high"], scale), _with_interval(reward),
            f"{won['value']:.0%}" if won else "", f"{row['mean_words']:.1f}", f"{row['finished']['value']:.1%}",
            f"{row['answers']:,}",
        ))  # fmt: skip
    rows.append(("", ticks(scale), "", "", "", "", ""))
    first, base = next(iter(rewards.items()))
    head = ("", "", "mean and 95 % interval", f"beats {name_of(first)}", "words", "finished", "answers")
    said = (
        "<p>The built-in world has an oracle that knows what an answer is worth, from 1 to 7, and reads it from the "
        f"words alone. Means over {base['reward']['n']} held-out prompts; 95 % intervals from a bootstrap of the "
        f'prompts. <span class="optional">An answer beats {name_of(first)} when it is worth more than one of '
        f"{name_of(first)} to the same prompt; equal counts half.</span></p>"
    )
    return said + _table(head, rows, optional=(3, 4, 5, 6)) + _by_state(rewards)


def _by_state(rewards: Mapping[str, Any]) -> str:
    states = [state for state in STATES if any(state in row["states"] for row in rewards.values())]
    cell = lambda row, state: _with_interval(row["states"][state]) if state in row["states"] else ""  # noqa: E731
    rows = [[STATES[state], *(cell(row, state) for row in rewards.values())] for state in states]
    return _table(("the student …", *map(name_of, rewards)), rows)


def _reward_model(found: Mapping[str, Any]) -> str:
    if not found:
        return NOT_RUN
    accuracy = found["accuracy"]
    pairs = f"{accuracy['n']:,} held-out verdicts" if accuracy["n"] else "the held-out verdicts"
    text = f"<p>It agrees with <b>{accuracy['value']:.1%}</b> of {pairs}"
    text += f" [{accuracy['low']:.1%}, {accuracy['high']:.1%}]" if accuracy["low"] is not None else ""
    if "ceiling" in found:
        text += (
            f". Verdicts are noisy: one who knew the truth would agree with {found['ceiling']:.1%} of them on average. "
            f"The model reaches <b>{found['share_of_ceiling']:.1%}</b> of that ceiling"
        )
    names = {"margin": "mean margin", "brier": "Brier score", "ece": "calibration error"}
    numbers = ", ".join(f"{said} {short(found[key])}" for key, said in names.items() if found[key] is not None)
    return f"{text}.</p><p>On the same verdicts: {numbers}.</p>"


def _training(results: Mapping[str, Any], metrics: Mapping[str, Sequence[Mapping]]) -> str:
    drawn = []
    for stage, name, title in CURVES:
        rows = metrics.get(stage, ())
        if (stage, name) == ("dpo", "accuracy"):
            rows = [row for row in rows if row["step"] > 1]  # before the first update every margin is 0
        points = [(row["step"], row[name]) for row in rows if name in row]
        held_out = [(row["step"], row[f"eval/{name}"]) for row in rows if f"eval/{name}" in row]
        ceiling = results["reward_model"].get("ceiling") if (stage, name) == ("reward", "accuracy") else None
        if points:
            level = (ceiling, "ceiling") if ceiling else None
            drawn.append(Curve(title, points, held_out, level, log=(stage, name) == ("sft", "loss")).svg())
    if not drawn:
        return NOT_RUN
    table = []
    for name, stage in results["stages"].items():
        speed, share = stage["median_tokens_per_second"] or 0, stage["median_gemm_share"] or 0
        row = (f"{stage['steps']:,}", f"{speed:,.0f}", f"{share:.0%}", html.escape(str(stage["commit"])))
        table.append((name_of(name), *row))
    head = ("", "steps", "tokens/s", "of the GEMM limit", "commit")
    said = '<p class="aside">Lines: training, means of neighbouring steps. Dots: held-out rows.</p>'
    return f'<div class="curves">{"".join(drawn)}</div>{said}{_table(head, table, optional=(4,))}'


def _exchanges(exchanges: Sequence[Mapping]) -> str:
    if not exchanges:
        return NOT_RUN
    said = (
        f"<p>{len(exchanges)} held-out prompts, evenly spaced in their file, and the first answer of each: nothing was "
        "picked by hand. Red: the true reward, with what it is made of below (it starts at 2.5, and ends at 1 and 7). "
        "Grey: the reward model's score, whose zero means nothing; compare it within a prompt.</p>"
    )
    return said + "".join(_exchange(exchange) for exchange in exchanges)


def _exchange(exchange: Mapping[str, Any]) -> str:
    role = {"user": "student", "assistant": "tutor"}
    turns = "".join(
        f'<p class="turn"><span class="role">{role.get(m.role, m.role)}</span>{html.escape(m.content)}</p>'
        for m in exchange["prompt"]
    )
    answers = []
    for name, answer in exchange["answers"].items():
        score = "" if answer["score"] is None else f"{answer['score']:+.2f}".replace("-", "−")
        why = " · ".join(f"{aspect} {points:+.2g}" for aspect, points in answer["points"].items()).replace("-", "−")
        answers.append(
            f"<div><h3><span>{name_of(name)}</span>{score}<b>{answer['utility']:.1f}</b></h3>"
            f'<p>{html.escape(answer["text"]) or "(nothing)"}</p><p class="why">{html.escape(why)}</p></div>'
        )
    return f'<div class="exchange">{turns}<div class="answers">{"".join(answers)}</div></div>'


def _times(seconds: Mapping[str, int]) -> str:
    if not seconds:
        return NOT_RUN
    longest, total = max(seconds.values()) or 1, sum(seconds.values())
    bar = lambda s: f'<span class="bar" style="width:{14 * s / longest:.2f}rem"></span>'  # noqa: E731
    rows = [(name_of(name), f"{s} s", bar(s)) for name, s in seconds.items()]
    rows.append(("in all", f"{total // 60} min {total % 60} s", ""))
    return "<p>Wall time. Nothing was paid for: the oracle is free.</p>" + _table(("step", "", ""), rows)


def _missing(lines: Sequence[str]) -> str:
    if not lines:
        return "<p>Nothing: every step has run to its end.</p>"
    return "<ul>" + "".join(f"<li>{html.escape(line)}</li>" for line in lines) + "</ul>"


def _reproduce(results: Mapping[str, Any]) -> str:
    versions = html.escape(", ".join(f"{name} {number}" for name, number in results["versions"].items()))
    commit = html.escape(results["commit"] or "")
    at = f"git checkout {commit.rstrip('+')}\n" if commit else ""
    changed = " (+: files differed from it)" if commit.endswith("+") else ""
    return (
        f"<pre>{at}bash run.sh</pre><p>The folder of every stage holds args.json, with all options, seeds and the hash "
        f"of the data, and metrics.jsonl. Commit {commit or 'unknown'}{changed}; {versions}.</p>"
    )
