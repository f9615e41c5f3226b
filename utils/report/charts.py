"""Small drawings for report.html, as inline SVG: no library, no script. page.css gives them their colours."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from utils.report.axes import Axis, Scale, short, tick

# Lengths are units of a drawing's viewBox; page.css decides how many pixels one of them is.
# A page of ten charts stays below a megabyte, and more points than pixels show nothing.
MOST_POINTS = 60
WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 360, 210, 46, 26, 40  # of a chart, and the margins around what it plots
LETTER = 6.0  # width of a letter of the labels, to leave them room
LINE = 13  # height of a label, to keep them apart
INSET = 8  # between an axis and the outermost points, so that no dot is cut or covers the axis
INTERVAL_WIDTH, INTERVAL_MARGIN = 240, 6  # of an interval in a table; a dot at an end still has its whole radius


class Point(NamedTuple):
    """A place in a chart, in the units of its axes."""

    x: float
    y: float


class Bounds(NamedTuple):
    """A 95 % interval."""

    low: float
    high: float


class Level(NamedTuple):
    """A value to compare a whole chart with, and its name."""

    value: float
    name: str


def interval(value: float, low: float | None, high: float | None, scale: Bounds) -> str:
    """Draw a dot with its interval.

    Args:
        value: where the dot is.
        low: the interval's lower end; None where it is not known.
        high: its upper end.
        scale: the lowest and the highest value that all rows of a table share.

    Returns:
        One line of SVG.
    """
    right = INTERVAL_WIDTH - INTERVAL_MARGIN
    drawn = f'<line class="faint" x1="{INTERVAL_MARGIN}" x2="{right}" y1="9" y2="9"/>'
    if low is not None and high is not None:
        start, end = _across(low, scale), _across(high, scale)
        drawn += f'<line class="band" x1="{start:.1f}" x2="{end:.1f}" y1="9" y2="9"/>'
    drawn += f'<circle cx="{_across(value, scale):.1f}" cy="9" r="3.6"/>'
    box = f'viewBox="0 0 {INTERVAL_WIDTH} 18"'
    return f'<svg class="interval truth" {box} role="img" aria-label="{value:.3f}">{drawn}</svg>'


def ticks(scale: Bounds) -> str:
    """Draw the whole numbers of the scale, to be put under the intervals."""
    marks = ""
    for number in range(math.ceil(scale.low), math.floor(scale.high) + 1):
        marks += f'<text x="{_across(number, scale):.1f}" y="12" text-anchor="middle">{number}</text>'
    return f'<svg class="interval" viewBox="0 0 {INTERVAL_WIDTH} 16" role="presentation">{marks}</svg>'


def _across(value: float, scale: Bounds) -> float:
    room = INTERVAL_WIDTH - 2 * INTERVAL_MARGIN
    return INTERVAL_MARGIN + room * (value - scale.low) / (scale.high - scale.low)


@dataclass(frozen=True)
class Series:
    """Points of one colour: a line (training data) or dots (held-out data), with 95 % intervals if they are known."""

    points: Sequence[Point]
    colour: str = "other"  # truth | model | chosen | rejected | other: a class of page.css
    line: bool = False
    label: str = ""  # written at the last point
    names: Sequence[str] = ()  # one is written above each point
    bounds: Sequence[Bounds] = ()  # 95 % interval of each point


@dataclass(frozen=True)
class Chart:
    """Series over two titled axes, with a sentence that says what to look for."""

    title: str
    x: Axis
    y: Axis
    series: Sequence[Series]
    look: str = ""
    level: Level | None = None  # a dashed line
    diagonal: bool = False  # a dashed line where y = x

    def figure(self) -> str:
        """Return the drawing under its title, above its sentence."""
        look = ""
        if self.look:
            look = f'<p class="look">{html.escape(self.look)}</p>'
        return f"<figure><figcaption>{html.escape(self.title)}</figcaption>{self.svg()}{look}</figure>"

    def svg(self) -> str:
        """Return the drawing alone."""
        # The labels are written to the right of the last points, so the longest of them sets the margin.
        labels = [one.label for one in self.series]
        right = WIDTH - max(12, *(10 + LETTER * len(label) for label in labels))
        across, up = self._scales(right)
        parts = [self._axes(across, up, right)]
        if self.diagonal:
            low, high = across.low, across.high
            parts.append(_dashed(Point(across.at(low), up.at(low)), Point(across.at(high), up.at(high))))
        if self.level:
            y = up.at(self.level.value)
            name = html.escape(f"{self.level.name} {short(self.level.value)}")
            parts += [_dashed(Point(LEFT, y), Point(right, y)), _text(Point(right, y - 4), name, anchor="end")]
        for one in self.series:
            parts.append(_marks(one, across, up))
        parts += _labels(self.series, across, up)
        spoken = html.escape("; ".join([self.title, *filter(None, labels)]))
        return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{spoken}">{"".join(parts)}</svg>'

    def _scales(self, right: float) -> tuple[Scale, Scale]:
        """Return the horizontal and the vertical scale: wide enough for every point, interval and level."""
        xs: list[float] = []
        ys: list[float] = []
        for one in self.series:
            xs += [x for x, _ in one.points]
            ys += [y for _, y in one.points]
            for bounds in one.bounds:
                ys += bounds
        # The level belongs to the chart: a reward model far below its ceiling must look so.
        if self.level:
            ys.append(self.level.value)
        # Both axes have one range, or the line y = x would not be at 45 degrees.
        if self.diagonal:
            xs = ys = [min(xs + ys), max(xs + ys)]
        across = Scale(self.x, low=min(xs), high=max(xs), start=LEFT + INSET, end=right - INSET)
        up = Scale(self.y, low=min(ys), high=max(ys), start=HEIGHT - BOTTOM - INSET, end=TOP + INSET)
        return across, up

    def _axes(self, across: Scale, up: Scale, right: float) -> str:
        drawn = []
        for value in up.ticks():
            y = up.at(value)
            drawn.append(f'<line class="faint" x1="{LEFT}" x2="{right:.1f}" y1="{y}" y2="{y}"/>')
            drawn.append(_text(Point(LEFT - 7, y + 4), tick(value), anchor="end"))
        floor = HEIGHT - BOTTOM
        drawn.append(f'<line class="axis" x1="{LEFT}" x2="{right:.1f}" y1="{floor}" y2="{floor}"/>')
        for value in across.ticks():
            x = across.at(value)
            drawn.append(f'<line class="axis" x1="{x}" x2="{x}" y1="{floor}" y2="{floor + 4}"/>')
            drawn.append(_text(Point(x, floor + 17), tick(value), anchor="middle"))
        below = Point((LEFT + right) / 2, HEIGHT - 6)
        drawn.append(_text(below, html.escape(self.x.full_title), anchor="middle", kind="title"))
        drawn.append(_text(Point(0, 11), html.escape(self.y.full_title), anchor="start", kind="title"))
        return "".join(drawn)


def _marks(one: Series, across: Scale, up: Scale) -> str:
    places = [Point(across.at(x), up.at(y)) for x, y in one.points]
    drawn = []
    if one.line:
        drawn.append(f'<polyline points="{" ".join(f"{x},{y}" for x, y in places)}"/>')
    for (x, _), (low, high) in zip(places, one.bounds, strict=False):
        drawn.append(f'<line class="band" x1="{x}" x2="{x}" y1="{up.at(low)}" y2="{up.at(high)}"/>')
    if not one.line:
        for (x, y), (at, value) in zip(places, one.points, strict=True):
            # Read by screen readers, and shown when the pointer rests on the dot.
            title = f"<title>{tick(round(at, 3))}: {short(value)}</title>"
            drawn.append(f'<circle cx="{x}" cy="{y}" r="3.2">{title}</circle>')
    for (x, y), name in zip(places, one.names, strict=False):
        if x - 6 - LETTER * len(name) > LEFT:
            place, anchor = Point(x - 6, y - 6), "end"
        else:  # on the left it would cover the numbers of the axis
            # On the left it would cover the numbers of the axis.
            place, anchor = Point(x + 6, y - 6), "start"
        drawn.append(_text(place, html.escape(name), anchor=anchor, kind="value"))
    return f'<g class="{one.colour}">{"".join(drawn)}</g>'


def _labels(series: Sequence[Series], across: Scale, up: Scale) -> list[str]:
    """Return every series' label beside its last point, moved down where it would cover another."""
    ends = [(Point(*one.points[-1]), one) for one in series if one.label]
    # From the highest label down: each is then moved by the one above it alone.
    ends.sort(key=lambda end: up.at(end[0].y))
    drawn, lowest = [], -math.inf
    for point, one in ends:
        lowest = max(up.at(point.y) + 4, lowest + LINE)
        place = Point(across.at(point.x) + 7, lowest)
        drawn.append(_text(place, html.escape(one.label), anchor="start", kind=f"value {one.colour}"))
    return drawn


def _text(place: Point, words: str, *, anchor: str, kind: str = "tick") -> str:
    return f'<text class="{kind}" x="{place.x:.1f}" y="{place.y:.1f}" text-anchor="{anchor}">{words}</text>'


def _dashed(start: Point, end: Point) -> str:
    return f'<line class="level" x1="{start.x:.1f}" x2="{end.x:.1f}" y1="{start.y:.1f}" y2="{end.y:.1f}"/>'


def binned(points: Sequence[tuple[float, float]], most: int = MOST_POINTS) -> list[Point]:
    """Return at most `most` points, each the mean of its neighbours: a long run makes no larger a file than a short
    one."""
    size = -(-len(points) // most) or 1
    means = []
    for start in range(0, len(points), size):
        xs, ys = zip(*points[start : start + size], strict=True)
        means.append(Point(sum(xs) / len(xs), sum(ys) / len(ys)))
    return means
