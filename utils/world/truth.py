"""Records of the built-in world against its oracle: what answers are worth, what noise leaves of verdicts."""

from __future__ import annotations

from collections.abc import Iterable

from utils.records import Record
from utils.world.exchanges import read_prompt
from utils.world.oracle import accuracy_ceiling, assess, preference_probability


def utilities(record: Record) -> list[float]:
    """1 to 7 for every answer: a reward for --reward_fn, or the truth for --true_reward_fn. Raises UserError for a
    prompt of another world."""
    exchange = read_prompt(record.prompt, record.where)
    return [assess(exchange, answer.text, answer.finished).utility for answer in record.answers]


def verdict_ceiling(records: Iterable[Record], noise_temperature: float) -> float:
    """The best accuracy that can be expected on the decided verdicts of an oracle that errs at this temperature; NaN
    without any."""
    probabilities = []
    for record in records:
        exchange = read_prompt(record.prompt, record.where)
        worth = [assess(exchange, answer.text).utility for answer in record.answers]  # a judge reads words alone
        decided = [v for v in record.verdicts if v.preferred in ("a", "b")]
        probabilities += [preference_probability(worth[v.a], worth[v.b], noise_temperature) for v in decided]
    return accuracy_ceiling(probabilities)
