"""The page of a best-of-n curve, beside the numbers that it shows."""

from __future__ import annotations

import html
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from utils.report.page import rewards


def curve_page(found: Mapping[str, Any]) -> str:
    """Return score, and true reward where it is known, over n and against KL: HTML that needs no other file.

    found: what rerank.py writes, {"scorer", "expected": {n: {"score", "kl_bound"}}, "true_reward": {n: estimate}}.
    """
    rewards_by_n = {str(n): estimate for n, estimate in found["true_reward"].items()}
    shown: dict[str, Any] = {"of": "", "reward": rewards_by_n, "score": {}, "kl_bound": {}}
    for n, point in found["expected"].items():
        shown["score"][str(n)], shown["kl_bound"][str(n)] = point["score"], point["kl_bound"]
    style = (Path(__file__).parent / "page" / "page.css").read_text(encoding="utf-8")
    title = f"Best of n by {html.escape(str(found['scorer']))}"
    head = f'<meta charset="utf-8"><title>{title}</title><style>{style}</style>'
    body = f"<header><h1>{title}</h1></header><section>{rewards.best_of_n(shown, ())}</section>"
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{body}</body></html>\n'
