"""Small drawings for report.html, as inline SVG: no library, no script. page.css gives them their colours."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

Point = tuple[float, float]
Bounds = tuple[float, float]
MOST_POINTS = 60
WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 360, 210, 46, 26, 40  # of a chart, and the margins around what it plots
LETTER = 6.0  # width of a letter of the labels, to leave them room
LINE = 13  # height of a label, to keep them apart
INSET = 8  # between an axis and the outermost points, so that no dot is cut or covers the axis


def interval(value: float, low: float | None, high: float | None, scale: tuple[float, float], width: int = 240) -> str:
    """A dot with its interval on a scale (lowest, highest) that all rows of a table share."""
    at = lambda x: 6 + (width - 12) * (x - scale[0]) / (scale[1] - scale[0])  # noqa: E731
    drawn = f'<line class="faint" x1="6" x2="{width - 6}" y1="9" y2="9"/>'
    if low is not None and high is not None:
        drawn += f'<line class="band" x1="{at(low):.1f}" x2="{at(high):.1f}" y1="9" y2="9"/>'
    drawn += f'<circle cx="{at(value):.1f}" cy="9" r="3.6"/>'
    return f'<svg class="interval truth" viewBox="0 0 {width} 18" role="img" aria-label="{value:.3f}">{drawn}</svg>'


def ticks(scale: tuple[float, float], width: int = 240) -> str:
    """The whole numbers of the scale, to stand under the intervals."""
    at = lambda x: 6 + (width - 12) * (x - scale[0]) / (scale[1] - scale[0])  # noqa: E731
    numbers = range(math.ceil(scale[0]), math.floor(scale[1]) + 1)
    marks = "".join(f'<text x="{at(n):.1f}" y="12" text-anchor="middle">{n}</text>' for n in numbers)
    return f'<svg class="interval" viewBox="0 0 {width} 16" role="presentation">{marks}</svg>'


@dataclass(frozen=True)
class Series:
    """Points of one colour: a line (training data) or dots (held-out data), with 95 % intervals if they are known."""

    points: Sequence[Point]
    colour: str = "other"  # truth | model | chosen | rejected | other: a class of page.css
    line: bool = False
    label: str = ""  # stands at the last point
    names: Sequence[str] = ()  # one stands above each point
    bounds: Sequence[Bounds] = ()  # 95 % interval of each point


@dataclass(frozen=True)
class Axis:
    title: str  # with its unit
    log: bool = False
    ticks: Sequence[float] = ()  # where the numbers stand; none: chosen from the range


@dataclass(frozen=True)
class Chart:
    """Series over two titled axes, with a sentence on what to look for."""

    title: str
    x: Axis
    y: Axis
    series: Sequence[Series]
    look: str = ""
    level: tuple[float, str] | None = None  # a dashed line to compare with: (value, its name)
    diagonal: bool = False  # a dashed line where y = x

    def figure(self) -> str:
        """The drawing under its title, above its sentence."""
        look = f'<p class="look">{html.escape(self.look)}</p>' if self.look else ""
        return f"<figure><figcaption>{html.escape(self.title)}</figcaption>{self.svg()}{look}</figure>"

    def svg(self) -> str:
        points = [point for one in self.series for point in one.points]
        heights = [y for _, y in points] + [y for one in self.series for bound in one.bounds for y in bound]
        heights += [self.level[0]] if self.level else []
        right = WIDTH - max(12, *(10 + LETTER * len(one.label) for one in self.series))
        xs, ys = [x for x, _ in points], heights
        if self.diagonal:
            xs = ys = [min(xs + ys), max(xs + ys)]
        across = Scale(self.x, min(xs), max(xs), LEFT + INSET, right - INSET)
        up = Scale(self.y, min(ys), max(ys), HEIGHT - BOTTOM - INSET, TOP + INSET)
        parts = [self._axes(across, up, right)]
        if self.diagonal:
            parts.append(_dashed(across.at(xs[0]), up.at(ys[0]), across.at(xs[1]), up.at(ys[1])))
        if self.level:
            y = up.at(self.level[0])
            name = html.escape(f"{self.level[1]} {short(self.level[0])}")
            parts += [_dashed(LEFT, y, right, y), _text(right, y - 4, name, "end")]
        parts += [_marks(one, across, up) for one in self.series]
        parts += _labels(self.series, across, up)
        spoken = "; ".join([self.title, *(one.label for one in self.series if one.label)])
        return (
            f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{html.escape(spoken)}">{"".join(parts)}</svg>'
        )

    def _axes(self, across: Scale, up: Scale, right: float) -> str:
        drawn = []
        for value in up.ticks():
            y = up.at(value)
            drawn.append(f'<line class="faint" x1="{LEFT}" x2="{right:.1f}" y1="{y}" y2="{y}"/>')
            drawn.append(_text(LEFT - 7, y + 4, tick(value), "end"))
        floor = HEIGHT - BOTTOM
        drawn.append(f'<line class="axis" x1="{LEFT}" x2="{right:.1f}" y1="{floor}" y2="{floor}"/>')
        for value in across.ticks():
            x = across.at(value)
            drawn.append(f'<line class="axis" x1="{x}" x2="{x}" y1="{floor}" y2="{floor + 4}"/>')
            drawn.append(_text(x, floor + 17, tick(value), "middle"))
        drawn.append(_text((LEFT + right) / 2, HEIGHT - 6, html.escape(_with_log(self.x)), "middle", "title"))
        drawn.append(_text(0, 11, html.escape(_with_log(self.y)), "start", "title"))
        return "".join(drawn)


@dataclass(frozen=True)
class Scale:
    """An axis over [low, high], from one place of the drawing to another."""

    axis: Axis
    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        bend = math.log if self.log else float
        span = bend(self.high) - bend(self.low)
        share = (bend(value) - bend(self.low)) / span if span else 0.5
        return round(self.start + (self.end - self.start) * share, 1)

    @property
    def log(self) -> bool:
        return self.axis.log and self.low > 0

    def ticks(self) -> list[float]:
        """The axis's own ticks, or else about five round numbers in the range."""
        if self.axis.ticks or self.low == self.high:
            return list(self.axis.ticks) or [self.low]
        if self.log:
            powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)))
            found = [m * 10.0**k for k in powers for m in (1, 2, 5) if self.low <= m * 10.0**k <= self.high]
            if len(found) > 1:
                return found[:: -(-len(found) // 6)]
        rough = (self.high - self.low) / 5
        size = 10.0 ** math.floor(math.log10(rough))
        step = next(m * size for m in (1, 2, 2.5, 5, 10) if m * size >= rough * 0.85)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [round(n * step, 12) for n in range(first, last + 1)]


def _marks(one: Series, across: Scale, up: Scale) -> str:
    places = [(across.at(x), up.at(y)) for x, y in one.points]
    drawn = []
    if one.line:
        drawn.append(f'<polyline points="{" ".join(f"{x},{y}" for x, y in places)}"/>')
    for (x, _), (low, high) in zip(places, one.bounds, strict=False):
        drawn.append(f'<line class="band" x1="{x}" x2="{x}" y1="{up.at(low)}" y2="{up.at(high)}"/>')
    for (x, y), (at, value) in zip(places if not one.line else (), one.points, strict=False):
        drawn.append(f'<circle cx="{x}" cy="{y}" r="3.2"><title>{tick(round(at, 3))}: {short(value)}</title></circle>')
    for (x, y), name in zip(places, one.names, strict=False):
        left = x - 6 - LETTER * len(name) > LEFT  # else it would cover the numbers of the axis
        drawn.append(_text(x - 6 if left else x + 6, y - 6, html.escape(name), "end" if left else "start", "value"))
    return f'<g class="{one.colour}">{"".join(drawn)}</g>'


def _labels(series: Sequence[Series], across: Scale, up: Scale) -> list[str]:
    """Every series' label beside its last point, moved down where it would cover another."""
    labelled = sorted((one for one in series if one.label), key=lambda one: up.at(one.points[-1][1]))
    drawn, lowest = [], -math.inf
    for one in labelled:
        x, y = one.points[-1]
        lowest = max(up.at(y) + 4, lowest + LINE)
        drawn.append(_text(across.at(x) + 7, lowest, html.escape(one.label), "start", f"value {one.colour}"))
    return drawn


def _text(x: float, y: float, words: str, anchor: str, kind: str = "tick") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{words}</text>'


def _dashed(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line class="level" x1="{x1:.1f}" x2="{x2:.1f}" y1="{y1:.1f}" y2="{y2:.1f}"/>'


def _with_log(axis: Axis) -> str:
    return f"{axis.title}, log scale" if axis.log else axis.title


def binned(points: Sequence[Point], most: int = MOST_POINTS) -> list[Point]:
    """At most `most` points, each the mean of its neighbours: a long run is no larger a file than a short one."""
    size = -(-len(points) // most) or 1
    groups = [points[i : i + size] for i in range(0, len(points), size)]
    return [(sum(x for x, _ in g) / len(g), sum(y for _, y in g) / len(g)) for g in groups]


def short(value: float) -> str:
    """Three digits that matter, four decimals at most: 1,067, 6.97, 0.384, −0.0012, 0."""
    places = 0 if abs(value) < 5e-5 else min(4, max(0, 2 - math.floor(math.log10(abs(value)))))
    return f"{round(value, places) + 0.0:,.{places}f}".replace("-", "−")  # + 0.0: no minus before a zero


def tick(value: float) -> str:
    """A number of an axis, without needless zeros: 0, 0.5, 2,000, −7.5."""
    return f"{value:,.10g}".replace("-", "−")
