"""report.html: numbers in, one page out, its style and drawings inside it. Nothing is measured here.

words     names, numbers and tables
win_rates every set of answers against every other
rewards   true reward, best-of-n, the reward model
training  curves and speeds
costs     feedback, time, files
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from utils.report.page.costs import feedback, files, times
from utils.report.page.rewards import best_of_n, reward_model, true_rewards
from utils.report.page.training import training
from utils.report.page.win_rates import win_rates
from utils.report.page.words import NOT_RUN, between, label, name_of, paragraph, signed

__all__ = ["between", "label", "page"]
COLOURS = {  # a class of page.css -> its one meaning on the page
    "truth": "true reward, by the oracle",
    "model": "the reward model and its scores",
    "chosen": "chosen answers",
    "rejected": "rejected answers",
    "other": "everything else",
}
ROLES = {"user": "student", "assistant": "tutor"}  # of the built-in world
SHAPES = {
    "on training data, means of neighbouring steps": '<polyline points="1,9 8,6 15,8 23,3"/>',
    "on held-out data": '<circle cx="12" cy="6" r="3.2"/>',
    "95 % interval": '<line class="band" x1="2" x2="22" y1="6" y2="6"/><circle cx="12" cy="6" r="3.2"/>',
    "a value to compare with": '<line class="level" x1="1" x2="23" y1="6" y2="6"/>',
}


def page(
    results: Mapping[str, Any],
    metrics: Mapping[str, Sequence[Mapping]],
    exchanges: Sequence[Mapping],
    links: Mapping[str, Sequence[str]],
) -> str:
    """Return the whole page.

    Args:
        results: results.json.
        metrics: the rows of every stage's metrics.jsonl.
        exchanges: prompts with judged answers, as report.py makes them.
        links: files beside the page, by what they belong to.

    Returns:
        HTML that needs no other file.
    """
    sections = {
        "True reward": true_rewards(results),
        "Win rates": win_rates(results["win_rates"]),
        "Best of n, and reward against KL": best_of_n(results["best_of_n"], metrics.get("ppo", ())),
        "The reward model": reward_model(results["reward_model"]),
        "Training": training(results, metrics),
        "What they answer": _exchanges(exchanges),
        "Feedback: tokens and money": feedback(results["feedback"]),
        "Time": times(results["seconds"]),
        "Files": files(links),
        "What is missing": _missing(results["missing"]),
        "How to reproduce": _reproduce(results),
    }
    body = ""
    for title, content in sections.items():
        body += f"<section><h2>{title}</h2>{content}</section>"
    # Inside the page, which is to be sent around as one file.
    style = Path(__file__).with_name("page.css").read_text(encoding="utf-8")
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Plumbline: what was learned</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{style}</style></head><body>'
        f"<header><h1>What was learned</h1>{_lead(results)}{_legend()}</header>{body}</body></html>\n"
    )


def _lead(results: Mapping[str, Any]) -> str:
    rewards = results.get("true_reward", {})
    if not rewards:
        return paragraph("The true reward has not been measured yet.", "lead")
    (first, base), *others = rewards.items()
    text = f"Of 7 points that an answer can earn, {name_of(first)} earns <b>{base['reward']['value']:.2f}</b>"
    ahead = []
    for name, row in others:
        text += f", {name_of(name)} <b>{row['reward']['value']:.2f}</b>"
        if _above(row["reward"], base["reward"]):
            ahead.append(name_of(name))
    text += "."
    if len(ahead) == 1:
        text += f" The 95 % interval of {ahead[0]} lies wholly above that of {name_of(first)}."
    elif ahead:
        text += f" The 95 % intervals of {' and '.join(ahead)} lie wholly above that of {name_of(first)}."
    return paragraph(text, "lead")


def _above(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return None not in (one["low"], other["high"]) and one["low"] > other["high"]


def _legend() -> str:
    """Return what every colour and every mark means, on the whole page."""
    colours = shapes = ""
    for kind, meaning in COLOURS.items():
        colours += _key(kind, '<rect width="24" height="12" rx="2"/>', meaning)
    for meaning, drawn in SHAPES.items():
        shapes += _key("other", drawn, meaning)
    return f'<div class="legend"><ul>{colours}</ul><ul>{shapes}</ul></div>'


def _key(kind: str, drawn: str, meaning: str) -> str:
    return f'<li><svg class="key {kind}" viewBox="0 0 24 12" role="presentation">{drawn}</svg>{meaning}</li>'


def _exchanges(exchanges: Sequence[Mapping]) -> str:
    if not exchanges:
        return NOT_RUN
    text = (
        f"{len(exchanges)} held-out prompts, evenly spaced in their file, and the first answer of each: nothing was "
        'picked by hand. <b class="truth">True</b> is the true reward, with what it is made of below (it starts at '
        '2.5, and ends at 1 and 7). <span class="model">Score</span> is the reward model\'s, whose zero means nothing; '
        "compare it within a prompt."
    )
    return paragraph(text) + "".join(map(side_by_side, exchanges))


def side_by_side(exchange: Mapping[str, Any]) -> str:
    """Return a prompt and its answers, two or three in a row."""
    turns = ""
    for message in exchange["prompt"]:
        role = ROLES.get(message.role, message.role)
        turns += f'<p class="turn"><span class="role">{role}</span>{html.escape(message.content)}</p>'
    answers = [_judged_answer(name, answer) for name, answer in exchange["answers"].items()]
    # Four in two rows of two, five as three and two: none is left alone in a row.
    across = 2
    if len(answers) % 3 == 0 or len(answers) == 5:
        across = 3
    return f'<div class="exchange">{turns}<div class="answers of-{across}">{"".join(answers)}</div></div>'


def _judged_answer(name: str, answer: Mapping[str, Any]) -> str:
    score = ""
    if answer["score"] is not None:
        score = f'<i class="model">score {signed(answer["score"])}</i>'
    why = " · ".join(f"{aspect} {points:+.2g}" for aspect, points in answer["points"].items()).replace("-", "−")
    return (
        f'<div><h3><span>{name_of(name)}</span>{score}<b class="truth">true {answer["utility"]:.1f}</b></h3>'
        f'<p>{html.escape(answer["text"]) or "(nothing)"}</p><p class="why">{html.escape(why)}</p></div>'
    )


def _missing(lines: Sequence[str]) -> str:
    if not lines:
        return paragraph("Nothing: every step has run to its end.")
    items = [f"<li>{html.escape(line)}</li>" for line in lines]
    return f"<ul>{''.join(items)}</ul>"


def _reproduce(results: Mapping[str, Any]) -> str:
    """The commit and the versions that trained the stages: this page may be made later, by other ones."""
    commits: dict[str, list[str]] = {}
    versions: dict[str, list[str]] = {}
    for name, stage in results["stages"].items():
        packages = ", ".join(f"{package} {number}" for package, number in stage["versions"].items())
        commits.setdefault(stage["commit"] or "unknown", []).append(name_of(name))
        versions.setdefault(packages or "versions unknown", []).append(name_of(name))
    at = ""
    if len(commits) == 1 and "unknown" not in commits:
        # The + of changed files is no part of a name that git knows.
        at = f"git checkout {html.escape(next(iter(commits)).rstrip('+'))}\n"
    changed = " (+: files differed from it)" if any(commit.endswith("+") for commit in commits) else ""
    differ = " The stages were trained at different commits: no single checkout gives these numbers."
    page_is = f" This page: commit {html.escape(results['commit'] or 'unknown')}."
    return (
        f"<pre>{at}bash run.sh</pre><p>The folder of every stage holds args.json, with all options, seeds and the hash "
        f"of the data, and metrics.jsonl. Commit {_whose(commits)}{changed}; {_whose(versions)}."
        f"{differ if len(commits) > 1 else ''}{'' if set(commits) == {results['commit']} else page_is}</p>"
    )


def _whose(found: Mapping[str, Sequence[str]]) -> str:
    """What all stages share, or each value with the stages that it is of."""
    if len(found) > 1:
        return "; ".join(f"{html.escape(value)} ({', '.join(names)})" for value, names in found.items())
    return "".join(map(html.escape, found)) or "unknown"
