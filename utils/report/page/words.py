"""Names, numbers and tables as the page writes them."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

NOT_RUN = '<p class="aside">Not measured yet.</p>'


def label(name: str) -> str:
    """Return a name for people: best_of_16 -> best of 16, dpo_answers -> DPO answers."""
    words = name.split("_")
    for place, word in enumerate(words):
        if word in ("sft", "dpo", "ppo"):
            words[place] = word.upper()
    return " ".join(words)


def name_of(name: str) -> str:
    """Return label() as HTML."""
    return html.escape(label(name))


def between(estimate: Mapping[str, Any]) -> str:
    """Return 0.732 [0.708, 0.755], the interval left out where it is not known."""
    known = f"{estimate['value']:.3f}"
    if estimate["low"] is None:
        return known
    return f"{known} [{estimate['low']:.3f}, {estimate['high']:.3f}]"


def with_interval(estimate: Mapping[str, Any], kind: str = "bounds") -> str:
    """Return between() as HTML, the interval in a softer colour."""
    value, _, bounds = between(estimate).partition(" ")
    return f'{value} <span class="{kind}">{bounds}</span>'


def signed(value: float, places: int = 2) -> str:
    """Return +1.28 or −0.30."""
    return f"{value:+.{places}f}".replace("-", "−")


def table(head: Sequence[str], rows: Iterable[Sequence[str]], optional: Sequence[int] = ()) -> str:
    """Return a table of cells that are HTML. Columns in `optional` are left out on a narrow screen."""
    lines = [_line("th", head, optional)]
    lines += [_line("td", row, optional) for row in rows]
    return f'<div class="scroll"><table>{"".join(lines)}</table></div>'


def _line(tag: str, cells: Sequence[str], optional: Sequence[int]) -> str:
    written = ""
    for column, cell in enumerate(cells):
        kind = ""
        if column in optional:
            kind = ' class="optional"'
        written += f"<{tag}{kind}>{cell}</{tag}>"
    return f"<tr>{written}</tr>"


def paragraph(text: str, kind: str = "") -> str:
    """Return HTML text as a paragraph, of a class of page.css if one is given."""
    if kind:
        return f'<p class="{kind}">{text}</p>'
    return f"<p>{text}</p>"


def charts(figures: Iterable[str]) -> str:
    """Return figures side by side."""
    return f'<div class="curves">{"".join(figures)}</div>'
