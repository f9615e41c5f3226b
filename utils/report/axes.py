"""The axes of a chart: where a value is drawn, which numbers an axis shows, and how they are written."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Axis:
    """An axis as the page asks for it."""

    title: str  # with its unit
    log: bool = False
    ticks: Sequence[float] = ()  # the values that get a number; none: chosen from the range

    @property
    def full_title(self) -> str:
        if self.log:
            return f"{self.title}, log scale"
        return self.title


@dataclass(frozen=True)
class Scale:
    """An axis over the values `low` to `high`, drawn from `start` to `end`."""

    axis: Axis
    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        """Return where a value is drawn."""
        bend = float
        if self.log:
            bend = math.log
        span = bend(self.high) - bend(self.low)
        # A single value has no span, and is drawn in the middle.
        share = 0.5
        if span:
            share = (bend(value) - bend(self.low)) / span
        return round(self.start + (self.end - self.start) * share, 1)

    @property
    def log(self) -> bool:
        # 0 has no logarithm: such an axis becomes linear.
        return self.axis.log and self.low > 0

    def ticks(self) -> list[float]:
        """Return the axis's own ticks, or else about five round numbers in the range."""
        if self.axis.ticks:
            return list(self.axis.ticks)
        if self.low == self.high:
            return [self.low]
        if self.log:
            found = self._round_logs()
            if len(found) > 1:
                return found[:: -(-len(found) // 6)]  # six numbers at most
        # Heckbert, "Nice numbers for graph labels" (Graphics Gems, 1990): the step is 1, 2, 2.5 or 5 times a power of
        # ten. A step may be 15 % too small for five of them: better one number more than half as many.
        rough = (self.high - self.low) / 5
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(multiple * power for multiple in (1, 2, 2.5, 5, 10) if multiple * power >= rough * 0.85)
        # 1e-9: 0.3 / 0.1 is 2.9999999999999996 in floating point, and the number at the end would be lost.
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [round(number * step, 12) for number in range(first, last + 1)]  # 0.3, not 0.30000000000000004

    def _round_logs(self) -> list[float]:
        """Return 1, 2 and 5 times the powers of ten in the range."""
        found = []
        for power in range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))):
            for multiple in (1, 2, 5):
                value = multiple * 10.0**power
                if self.low <= value <= self.high:
                    found.append(value)
        return found


def short(value: float) -> str:
    """Return three digits that matter, four decimals at most: 1,067, 6.97, 0.384, −0.0012, 0."""
    places = 0
    # A smaller value is 0 in four decimals, and 0 itself has no logarithm.
    if abs(value) >= 5e-5:
        places = min(4, max(0, 2 - math.floor(math.log10(abs(value)))))
    return f"{round(value, places) + 0.0:,.{places}f}".replace("-", "−")  # + 0.0: no minus before a zero


def tick(value: float) -> str:
    """Return a number of an axis without needless zeros: 0, 0.5, 2,000, −7.5."""
    return f"{value:,.10g}".replace("-", "−")
