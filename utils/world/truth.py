"""Records of the built-in world measured by its oracle: the worth of answers, the best accuracy on noisy verdicts."""

from __future__ import annotations

from collections.abc import Iterable

from utils.records import Record
from utils.world.exchanges import read_prompt
from utils.world.oracle import accuracy_ceiling, assess, preference_probability


def utilities(record: Record) -> list[float]:
    """Return the worth of every answer, 1 to 7: a reward for --reward_fn, or the truth for --true_reward_fn. Raises
    UserError for a prompt of another world."""
    exchange = read_prompt(record.prompt, record.where)
    return [assess(exchange, answer.text, answer.finished).utility for answer in record.answers]


def verdict_ceiling(records: Iterable[Record], noise_temperature: float) -> float:
    """Return the best accuracy that can be expected on the decided verdicts of an oracle that errs at this temperature;
    NaN without any."""
    probabilities = []
    for record in records:
        exchange = read_prompt(record.prompt, record.where)
        # Without `finished`, unlike utilities(): the judge reads the words alone.
        worth = [assess(exchange, answer.text).utility for answer in record.answers]
        for verdict in record.verdicts:
            if verdict.preferred in ("a", "b"):
                a, b = worth[verdict.a], worth[verdict.b]
                probabilities.append(preference_probability(a, b, noise_temperature))
    return accuracy_ceiling(probabilities)
