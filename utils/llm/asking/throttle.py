"""An adaptive limit of requests: how fast they may go out is learned from the server's refusals (HTTP 429).

The number in flight starts small and doubles while the server takes everything. Refusals turn it into a pace, in
requests a second: multiplied down to what the server accepts, and up again while nothing is refused.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

# Requests in flight at the start, and seconds after which they are doubled: until the first refusals arrive, all that
# is sent is sent blindly.
FIRST, DOUBLE = 8, 0.2
# Seconds between two starts until then: answers to a burst would come back as a burst.
SPACE = 0.002
# A period of observation has at least this many seconds and requests: fewer tell nothing about a rate.
SECONDS, REQUESTS = 1.0, 8
# It ends sooner when at least MANY, and the share SEVERE of REQUESTS or the share MOST of fewer, were refused: the pace
# is far too high.
MANY, SEVERE, MOST = 4, 0.25, 0.75
# A share of refusals up to this is the price of knowing the limit; above it the pace falls.
FEW = 0.05
# The pace after refusals, as a share of what the server accepted, and as a share of the former one where it accepted
# nothing.
BELOW, LEAST = 0.95, 0.5
# Growth of the pace in a period: within a factor NEAR of the limit found last, and elsewhere.
NEAR, GROWTH_NEAR, GROWTH = 1.15, 1.05, 1.2
CLEAN = 4  # periods of slow growth near a limit, after which it was none
USED = 0.8  # share of the pace that must have been used before it grows
# After a refusal the next request goes out in this part of its turn, after a second one in twice that, and so on.
SOON = 0.1
SLOWEST, FASTEST = 1 / 60, 1000.0  # requests a second; beyond FASTEST the pace is no limit


@dataclass
class Period:
    """Requests of one period of observation: from when to when, how many went out, how many of them were refused."""

    began: float
    ended: float | None = None
    released: int = 0
    refused: int = 0

    @property
    def share(self) -> float:
        """Return the share that was refused."""
        return self.refused / max(1, self.released)

    @property
    def accepted(self) -> int:
        """Return the number that was accepted."""
        return self.released - self.refused

    @property
    def seconds(self) -> float:
        """Return how long it was observed."""
        return max(self.ended - self.began, 1e-3)

    @property
    def sent_a_second(self) -> float:
        """Return the requests a second that went out."""
        return self.released / self.seconds

    @property
    def severe(self) -> bool:
        """Return whether far too many were refused."""
        enough = self.released >= REQUESTS or self.share >= MOST
        return enough and self.refused >= MANY and self.share >= SEVERE


@dataclass(frozen=True)
class Release:
    """One request that went out."""

    serial: int
    period: Period
    counted: bool  # whether it counts in the period
    at: float


class Throttle:
    """The adaptive limit: multiplicative increase and decrease of a pace, as TCP and BBR do it with packets. Times are
    seconds of one clock; nothing here waits.

    Args:
        ceiling: the most requests that may be in flight.
        now: the time of the start.
    """

    def __init__(self, ceiling: int, now: float) -> None:
        self.ceiling, self.window = ceiling, min(FIRST, ceiling)
        self.pace = math.inf
        self._period = Period(now)
        self._sent = now  # when the last request went out
        self._last = -math.inf  # the same, moved to where the next one's turn is counted from
        self._doubled = now  # when the window was doubled last
        self._delay = 0.0  # seconds that a refusal takes to arrive
        self._serial, self._refused = 0, -1  # numbers of the last request that went out, and that was refused
        self._refused_in_a_row = 0
        self._limit = 0.0  # the requests a second that the server was last found to accept
        self._clean = 0  # periods in a row in which the pace has grown
        self._before: Period | None = None  # of the period before, if it had too many refusals

    def wait(self, now: float, in_flight: int) -> float:
        """Return the seconds until the next request may go out, as far as is known now; 0: at once."""
        self._observe(now)
        if in_flight >= self.ceiling:
            return math.inf
        # The refusals on their way come first: they tell the pace.
        if self._period.ended is not None and self._period.severe:
            return self._period.ended + self._settling() - now
        if in_flight >= self.window and now - self._doubled >= DOUBLE:
            self.window, self._doubled = min(2 * self.window, self.ceiling), now
        if in_flight >= self.window:
            return self._doubled + DOUBLE - now
        space = 1 / self.pace
        if self.window < self.ceiling:
            space = max(space, SPACE)
        return max(0.0, self._last + space - now)

    def release(self, now: float) -> Release:
        """Note that a request goes out. Returns what `refuse` has to know of it."""
        self._last, self._sent, self._serial = now, now, self._serial + 1
        if self._period.ended is None:
            self._period.released += 1
        return Release(self._serial, self._period, counted=self._period.ended is None, at=now)

    def refuse(self, release: Release, now: float) -> None:
        """Note that a request was refused because there are too many."""
        self._delay = max(0.9 * self._delay, now - release.at)
        self._refused_in_a_row += 1
        if release.serial != self._refused + 1:
            self._refused_in_a_row = 1
        self._refused = release.serial
        # One that went out before the pace was changed says nothing about the pace of now.
        if release.counted and release.period is self._period:
            self._period.refused += 1
        if self.pace == math.inf and (self._period.share >= SEVERE or self._period.released <= 2 * REQUESTS):
            # More refusals may be on their way, of what was sent at the same time.
            self._last = max(self._last, now + self._settling())
        elif self.pace < math.inf and release.serial == self._serial:
            # The server counts a refusal as nothing, so that the next request need not wait for a whole turn.
            self._last -= max(0.0, 1 - SOON * 2 ** (self._refused_in_a_row - 1)) / self.pace
        self._observe(now)

    def _settling(self) -> float:
        """Return the seconds in which the refusals of a period arrive after its end."""
        return 1.5 * self._delay

    def _observe(self, now: float) -> None:
        """End the period when it has enough requests, and change the pace when their refusals have arrived."""
        period = self._period
        if period.ended is None:
            emptied = self.pace == math.inf and self._refused_in_a_row >= MANY
            if not (emptied or period.severe) and (period.released < REQUESTS or now - period.began < SECONDS):
                return
            period.ended = now
        if now < period.ended + self._settling():
            return
        if period.share <= FEW:
            self._before = None
            self._speed_up(period)
        else:
            self._slow_down(period)
            self.window = self.ceiling  # from now on the pace is the limit
        if self.pace > FASTEST:
            self.pace = math.inf
        self._period = Period(min(now, self._sent))

    def _speed_up(self, period: Period) -> None:
        """Raise the pace, as far as it was used up."""
        if period.sent_a_second < USED * self.pace:
            return
        self._clean += 1
        growth = GROWTH
        if self._limit / NEAR < self.pace < self._limit * NEAR and self._clean <= CLEAN:
            growth = GROWTH_NEAR
        self.pace *= growth

    def _slow_down(self, period: Period) -> None:
        """Set the pace to what the server accepts, unless its refusals turn out not to depend on the pace."""
        if self.pace == math.inf:
            # Of a burst that a server takes at once, no more is known than that it may be the limit of a second.
            period.ended = max(period.ended, period.began + SECONDS)
        before, self._clean = self._before, 0
        if self._refusals_stay(period):
            # Slower sending was refused as often: to go on would end in sending nothing.
            self.pace = 2 * max(period.sent_a_second, before.sent_a_second)
        elif period.accepted:
            # A pace that was not used up, because answers were awaited, is known by its share of refusals alone.
            self._limit = period.accepted / period.seconds
            if self.pace < math.inf:
                self._limit = max(self._limit, self.pace * (1 - period.share))
            self.pace = max(BELOW * self._limit, SLOWEST)
        else:
            self.pace = max(LEAST * min(self.pace, period.sent_a_second), SLOWEST)

    def _refusals_stay(self, period: Period) -> bool:
        """Return whether the share of refusals has stayed the same at a clearly different pace, so that they do not
        come from the pace."""
        before = self._before
        if before is None or not before.accepted or not period.accepted:
            self._before = period
            return False
        sent = math.log(period.sent_a_second / before.sent_a_second)
        accepted = math.log((1 - period.share) / (1 - before.share))
        # The standard deviation of `accepted` where each request is refused at random.
        noise = math.sqrt(period.share / period.accepted + before.share / before.accepted)
        if abs(accepted) > 2 * noise:
            self._before = period
            return False
        stays = abs(sent) > max(1.5 * noise, 0.1)
        if stays:
            self._before = period
        return stays
