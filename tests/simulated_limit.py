"""A rate-limited server and the requests to it in simulated time: the real throttle, the real bucket, no waiting."""

from __future__ import annotations

import heapq
import itertools
import math
import random
from dataclasses import dataclass

from utils.llm.asking.limits import WAITING
from utils.llm.asking.throttle import Throttle
from utils.world.serving.faults import RateLimit


@dataclass
class Case:
    """`bucket`: requests that the limit takes at once, 0: one second's; `trip`: seconds until a refusal is back;
    `random`: share that is refused whatever the pace; `at_once`: requests that the server works on, others refused."""

    per_minute: float
    latency: float
    concurrency: int
    rows: int
    header: str = "none"
    bucket: float = 0.0
    trip: float = 0.005
    random: float = 0.0
    at_once: float = math.inf

    @property
    def ideal(self):
        """Seconds that nothing can go below: the server's rate, or the answers' time."""
        rate = self.per_minute / 60 or math.inf
        return max(self.rows / rate, self.rows * self.latency / self.concurrency)


@dataclass
class Course:
    seconds: float
    sent: int
    refused: int


def simulate(case, seed=0):
    """Ask `case.rows` rows, as utils.llm.asking does: a refused row waits as the header says and goes out again."""
    rng, limit, numbers = random.Random(seed), RateLimit(case.per_minute, case.bucket, case.header), itertools.count()
    now, throttle, events = 0.0, Throttle(case.concurrency, 0.0), []
    ready = min(case.concurrency + WAITING, case.rows)  # rows that a worker has taken and that wait for their turn
    rows, flying, working, done, course = case.rows - ready, 0, 0, 0, Course(0.0, 0, 0)
    while done < case.rows:
        wait = math.inf
        while ready and (wait := throttle.wait(now, flying)) <= 1e-9:
            release, ready, flying, course.sent = throttle.release(now), ready - 1, flying + 1, course.sent + 1
            again = 0.0
            if rng.random() < case.random or working >= case.at_once:
                again = 1e-9
            else:
                again = limit.take(now)
            if again:
                told = limit.headers(again) if again > 1e-9 else {}
                event = (now + case.trip, next(numbers), "refused", release, _seconds(told))
            else:
                working += 1
                event = (now + max(case.trip, case.latency * rng.uniform(0.9, 1.1)), next(numbers), "answered", None, 0)
            heapq.heappush(events, event)
        if not events or (ready and now + wait < events[0][0]):
            assert wait < math.inf, "nothing will ever happen"
            now += wait
            continue
        now, _, what, release, again = heapq.heappop(events)
        flying -= what != "waited"
        if what == "answered":
            working, done = working - 1, done + 1
            if rows:
                rows, ready = rows - 1, ready + 1
        elif what == "refused":
            course.refused += 1
            throttle.refuse(release, now)
            heapq.heappush(events, (now + again * rng.uniform(1.05, 1.1), next(numbers), "waited", None, 0))
        else:
            ready += 1
    course.seconds = now
    return course


def _seconds(headers):
    if "retry-after-ms" in headers:
        return float(headers["retry-after-ms"]) / 1000
    return float(headers.get("Retry-After", 0))
