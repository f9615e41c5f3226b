"""Small drawings for report.html, as inline SVG: no library, no script. report.css gives them their colours."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

Point = tuple[float, float]
MOST_POINTS = 60


def interval(value: float, low: float | None, high: float | None, scale: tuple[float, float], width: int = 240) -> str:
    """A dot with its interval on a scale (lowest, highest) that all rows of a table share."""
    at = lambda x: 6 + (width - 12) * (x - scale[0]) / (scale[1] - scale[0])  # noqa: E731
    drawn = f'<line class="faint" x1="6" x2="{width - 6}" y1="9" y2="9"/>'
    if low is not None and high is not None:
        drawn += f'<line class="band" x1="{at(low):.1f}" x2="{at(high):.1f}" y1="9" y2="9"/>'
    drawn += f'<circle cx="{at(value):.1f}" cy="9" r="3.6"/>'
    return f'<svg class="interval" viewBox="0 0 {width} 18" role="img" aria-label="{value:.3f}">{drawn}</svg>'


def ticks(scale: tuple[float, float], width: int = 240) -> str:
    """The whole numbers of the scale, to stand under the intervals."""
    at = lambda x: 6 + (width - 12) * (x - scale[0]) / (scale[1] - scale[0])  # noqa: E731
    numbers = range(math.ceil(scale[0]), math.floor(scale[1]) + 1)
    marks = "".join(f'<text x="{at(n):.1f}" y="12" text-anchor="middle">{n}</text>' for n in numbers)
    return f'<svg class="interval" viewBox="0 0 {width} 16" role="presentation">{marks}</svg>'


@dataclass(frozen=True)
class Curve:
    """One number over training: its value at every step, its value at evaluations, and a line to compare with."""

    title: str
    training: Sequence[Point]
    held_out: Sequence[Point] = ()
    level: tuple[float, str] | None = None  # (value, its name)
    log: bool = False

    def svg(self, width: int = 320, height: int = 150) -> str:
        """Axes are no more than their two ends."""
        shown = [*binned(self.training), *self.held_out]
        values = [y for _, y in shown] + ([self.level[0]] if self.level else [])
        low, high, last = min(values), max(values), max(x for x, _ in shown) or 1
        log = self.log and low > 0
        bend = math.log if log else float
        span = (bend(high) - bend(low)) or 1
        left, right, top, bottom = 46, width - 46, 12, height - 22
        at_x = lambda x: round(left + (right - left) * x / last, 1)  # noqa: E731
        at_y = lambda y: round(bottom - (bottom - top) * (bend(y) - bend(low)) / span, 1)  # noqa: E731
        line = " ".join(f"{at_x(x)},{at_y(y)}" for x, y in binned(self.training))
        parts = [f'<polyline class="training" points="{line}"/>']
        if self.level:
            y, name = at_y(self.level[0]), html.escape(f"{self.level[1]} {short(self.level[0])}")
            parts.append(f'<line class="level" x1="{left}" x2="{right}" y1="{y}" y2="{y}"/>')
            parts.append(f'<text x="{right}" y="{y - 4}" text-anchor="end">{name}</text>')
        for x, y in self.held_out:
            title = f"<title>held out, step {x:g}: {short(y)}</title>"
            parts.append(f'<circle cx="{at_x(x)}" cy="{at_y(y)}" r="3">{title}</circle>')
        for x, y in self.held_out[-1:]:
            parts.append(f'<text class="held-out" x="{at_x(x) + 7}" y="{at_y(y) + 4}">{short(y)}</text>')
        for y in sorted({low, high}):
            parts.append(f'<text x="{left - 8}" y="{at_y(y) + 4}" text-anchor="end">{short(y)}</text>')
        parts.append(f'<text x="{right}" y="{height - 4}" text-anchor="end">{last:,.0f} steps</text>')
        caption = html.escape(self.title) + (' <span class="aside">log scale</span>' if log else "")
        drawing = f'<svg viewBox="0 0 {width} {height}" role="img">{"".join(parts)}</svg>'
        return f"<figure><figcaption>{caption}</figcaption>{drawing}</figure>"


def binned(points: Sequence[Point], most: int = MOST_POINTS) -> list[Point]:
    """At most `most` points, each the mean of its neighbours: a long run is no larger a file than a short one."""
    size = -(-len(points) // most) or 1
    groups = [points[i : i + size] for i in range(0, len(points), size)]
    return [(sum(x for x, _ in g) / len(g), sum(y for _, y in g) / len(g)) for g in groups]


def short(value: float) -> str:
    """Three digits that matter, four decimals at most: 1,067, 6.97, 0.384, −0.0012, 0."""
    places = 0 if abs(value) < 5e-5 else min(4, max(0, 2 - math.floor(math.log10(abs(value)))))
    return f"{round(value, places) + 0.0:,.{places}f}".replace("-", "−")  # + 0.0: no minus before a zero
