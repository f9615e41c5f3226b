"""Tables on the screen."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table

from utils import reporting


def aligned(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return lines of aligned columns, the first to the left, the others to the right. A float has three digits, None
    is -."""
    lines = [list(header), *(list(map(_cell, row)) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for place, (first, *others) in enumerate(lines):
        cells = [first.ljust(widths[0]), *map(str.rjust, others, widths[1:])]
        lines[place] = "  ".join(cells).rstrip()
    return "\n".join(lines)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.3f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def show_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table with lines between its rows on rank 0; its cells are plain text, as long as they like."""
    if reporting.launched_rank() == 0:
        drawn = Table(*map(escape, columns), show_lines=True)
        for row in rows:
            drawn.add_row(*map(escape, row))
        reporting.console.print(drawn)
