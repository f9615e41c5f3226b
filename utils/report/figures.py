"""Figures as PNG files, and for notebooks."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from utils.errors import UserError, write_failure
from utils.evaluation.bandit import BanditOutcome
from utils.provenance import move


def bandit_policies(outcome: BanditOutcome) -> Figure:
    """Draw every policy's probability of each action (left axis), and the learned and the true reward (right axis). The
    learned reward is known up to a constant and is shifted to start at 0; the true one is scaled to its range."""
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    mass = figure.subplots()
    mass.plot(outcome.setting.teacher, "--", color="tab:green", label="teacher")
    mass.plot(outcome.setting.student, "--", color="tab:gray", label="student")
    mass.plot(outcome.rlaif_I, color="tab:red", label="RLAIF")
    mass.plot(outcome.sft_I, color="tab:blue", label="SFT")
    mass.set(xlabel="action", ylabel="probability", ylim=(0, None))
    reward = mass.twinx()
    learned_I, true_I = outcome.reward_I - outcome.reward_I.min(), outcome.setting.true_reward
    reward.plot(learned_I, ":", color="tab:orange", label="learned reward")
    reward.plot(true_I * learned_I.max() / true_I.max(), ":", color="black", label="true reward, scaled")
    reward.set(ylabel="reward", ylim=(0, None))
    figure.legend(loc="outside upper center", ncols=6, fontsize="small")
    return figure


def bandit_samples(outcome: BanditOutcome, seed: int, samples: int = 1500) -> Figure:
    """Draw a histogram of the student's actions, which is all that the learned reward is fitted on, with the policies
    of student and teacher.

    Args:
        outcome: gives the policies.
        seed: of the actions drawn.
        samples: how many actions are drawn.
    """
    setting = outcome.setting
    drawn = np.random.default_rng(seed).choice(setting.actions, size=samples, p=setting.student)
    figure = Figure(figsize=(8, 3.5), layout="constrained")
    axes = figure.subplots()
    # Bars one action wide, so that their heights are shares of actions as the curves are.
    edges = np.arange(setting.actions + 1) - 0.5
    axes.hist(drawn, bins=edges, density=True, color="lightgray", label=f"{samples:,} actions of the student")
    axes.plot(setting.teacher, "--", color="tab:green", label="teacher")
    axes.plot(setting.student, "--", color="tab:gray", label="student")
    axes.set(xlabel="action", ylabel="probability")
    axes.legend()
    return figure


def reward_scores(found: dict[str, Any]) -> Figure:
    """Draw a reward model's reliability, and its accuracy by quarters of the margin and of the gap in length.

    Args:
        found: the metrics that rw_eval.py writes.
    """
    figure = Figure(figsize=(12, 4), layout="constrained")
    reliability, *quarters = figure.subplots(1, 3)
    reliability.plot([0.5, 1], [0.5, 1], "--", color="tab:gray", label="calibrated")
    _with_intervals(reliability, [b["predicted"] for b in found["calibration"]],
                    [b["observed"] for b in found["calibration"]])  # fmt: skip
    reliability.set(xlabel="how sure of the winner, σ(|margin|)", ylabel="accuracy", title=f"ECE {found['ece']:.3f}")
    reliability.legend()
    tables = found["by_margin"], found["by_length"]["quarters"]
    words = ("score margin of the pair", "characters of the better answer less the worse")
    for axes, table, label in zip(quarters, tables, words, strict=True):
        middles = [(quarter["from"] + quarter["to"]) / 2 for quarter in table]
        _with_intervals(axes, middles, [quarter["accuracy"] for quarter in table])
        axes.axhline(0.5, linestyle="--", color="tab:gray")
        axes.set(xlabel=label, ylabel="accuracy", ylim=(0, 1.02))
    return figure


def _with_intervals(axes: Axes, x: list[float], estimates: list[dict[str, float]]) -> None:
    """Draw values with their 95 % intervals."""
    values = [estimate["value"] for estimate in estimates]
    # rounding may put an end of an interval on the wrong side of its value
    lows = [max(0.0, estimate["value"] - estimate["low"]) for estimate in estimates]
    highs = [max(0.0, estimate["high"] - estimate["value"]) for estimate in estimates]
    axes.errorbar(x, values, yerr=[lows, highs], marker="o", capsize=3, color="tab:blue")


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG beside `path` and rename. Raises UserError."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Without matplotlib's version in it: the same figure gives the same bytes, by which outputs.py knows its own.
        figure.savefig(partial, format="png", dpi=120, metadata={"Software": None})
        move(partial, path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {write_failure(error)}") from error
    finally:
        if path.parent.is_dir():
            partial.unlink(missing_ok=True)
