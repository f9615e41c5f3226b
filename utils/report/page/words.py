"""Names, numbers and tables as the page writes them."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

NOT_RUN = '<p class="aside">Not measured yet.</p>'


def label(name: str) -> str:
    """best_of_16 -> best of 16, dpo_answers -> DPO answers."""
    return " ".join(word.upper() if word in ("sft", "dpo", "ppo") else word for word in name.split("_"))


def name_of(name: str) -> str:
    """label() as HTML."""
    return html.escape(label(name))


def between(estimate: Mapping[str, Any]) -> str:
    """0.732 [0.708, 0.755], the interval left out where it is not known."""
    known = f"{estimate['value']:.3f}"
    return known if estimate["low"] is None else f"{known} [{estimate['low']:.3f}, {estimate['high']:.3f}]"


def with_interval(estimate: Mapping[str, Any], kind: str = "bounds") -> str:
    """between() as HTML, the interval in a softer colour."""
    value, _, bounds = between(estimate).partition(" ")
    return f'{value} <span class="{kind}">{bounds}</span>'


def signed(value: float, places: int = 2) -> str:
    """+1.28, −0.30."""
    return f"{value:+.{places}f}".replace("-", "−")


def table(head: Sequence[str], rows: Iterable[Sequence[str]], optional: Sequence[int] = ()) -> str:
    """Cells are HTML. Columns in `optional` are left out on a narrow screen."""
    kind = lambda i: ' class="optional"' if i in optional else ""  # noqa: E731
    line = lambda tag, row: f"<tr>{''.join(f'<{tag}{kind(i)}>{cell}</{tag}>' for i, cell in enumerate(row))}</tr>"  # noqa: E731
    return f'<div class="scroll"><table>{line("th", head)}{"".join(line("td", row) for row in rows)}</table></div>'


def paragraph(text: str, kind: str = "") -> str:
    """HTML text in a paragraph of a class of page.css."""
    return f'<p class="{kind}">{text}</p>' if kind else f"<p>{text}</p>"
