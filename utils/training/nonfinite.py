"""Numbers that are not finite: an optimizer step and how it went, and what ends a run."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from utils.engine.deepspeed_engine import Engine
from utils.errors import UserError
from utils.training.run import Run

# A bad batch is skipped; a model whose every gradient overflows does not recover.
SKIPS = 3


def take_step(engine: Engine, prefix: str = "") -> dict[str, float]:
    """Take the optimizer step and return the learning rate that it used, the gradient norm and `skipped_update`: 1 when
    DeepSpeed skipped the step because its gradient was not finite. Such a step has no gradient norm."""
    rate, applied, norm = engine.learning_rate(), engine.step(), engine.gradient_norm()
    row = {f"{prefix}learning_rate": rate, f"{prefix}skipped_update": float(not applied)}
    if norm is not None and applied:
        row[f"{prefix}gradient_norm"] = norm
    return row


def refuse_nonfinite(
    run: Run, step: int, row: dict[str, float], evidence: Callable[[], dict[str, Any]], remedy: str, skipped: int = 0
) -> None:
    """Refuse to go on with numbers that are not finite.

    Args:
        run: the run, in whose folder nonfinite.json is written.
        step: the step that the numbers belong to.
        row: the numbers by name.
        evidence: returns what the numbers were made from, for nonfinite.json; called only when it is written.
        remedy: what a person can do.
        skipped: updates in a row, up to now, that DeepSpeed skipped because of their gradients.

    Raises:
        UserError: a number is not finite, or too many updates in a row were skipped.
    """
    bad = [f"{name} is {value}" for name, value in row.items() if not math.isfinite(value)]
    if skipped >= SKIPS:
        bad.append(f"the gradients of {skipped} updates in a row were not finite")
    if not bad:
        return
    metrics = {name: str(value) for name, value in row.items()}
    run.report.write_json("nonfinite.json", {"step": step, "metrics": metrics, **evidence()})
    raise UserError(f"step {step}: {bad[0]}, not a finite number; more in {run.folder / 'nonfinite.json'}; {remedy}")
