"""The truth of the world: what an answer is worth, read from the words of the prompt and the answer alone.

An answer is cut into sentences, each sentence is looked up in the world's language, and points are added. The sum is
the utility, clipped to [1, 7]; the rating is the utility rounded. Preferences are drawn from a Bradley-Terry model on
the utilities.
"""

from __future__ import annotations

import functools
import hashlib
import math
import random
import re
from collections.abc import Iterable
from dataclasses import dataclass

from utils.world import language
from utils.world.exchanges import PROBLEMS, Exchange, mentions, sentences
from utils.world.teachers import EXPECTED, phrases

LOWEST, HIGHEST = 1.0, 7.0
START = 2.5
# A complete answer earns START + 1.5 + 1.5 + 1 + 0.5 = 7, exactly the highest mark: a longer one cannot earn more.
EVALUATION, HINT, QUESTION, POLITE = 1.5, 1.5, 1.0, 0.5
TELLS, FALSE, UNCLEAR, REPEATS, FILLER, RUDE, CURT, UNFINISHED = -2.0, -1.0, -0.8, -0.6, -0.4, -0.8, -0.5, -1.0
FREE_WORDS, PER_WORD = 24, -0.1
# [is the student right?]: then a way to check the answer and a request to explain it fit better than another hint
HINT_WORTH = {False: {"hint": HINT, "check": 0.6, "generic": 0.6}, True: {"check": HINT, "hint": 0.6, "generic": 0.6}}
QUESTION_WORTH = {False: {"again": QUESTION, "explain": 0.5}, True: {"explain": QUESTION, "again": 0.5}}
KINDS = ("hint", "check", *language.TUTOR)


@dataclass(frozen=True)
class Assessment:
    """What an answer is worth, and why."""

    kinds: tuple[str, ...]  # of each sentence; false: of this language but not true here; unclear: of no language
    points: dict[str, float]  # what each aspect adds
    utility: float  # in [1, 7]

    @property
    def rating(self) -> int:
        """Return the utility as a whole number from 1 to 7; halves go up."""
        return math.floor(self.utility + 0.5)


def assess(exchange: Exchange, answer: str, finished: bool = True) -> Assessment:
    """Return what an answer (any text) is worth in this exchange. `finished` is False for an answer cut by a length
    limit."""
    said = sentences(answer)
    kinds = tuple(_kind(sentence, exchange) for sentence in said)
    if not set(kinds) - {"unclear", "false"}:
        # Noise is worth the lowest mark: else the fewest words would be the best of bad answers.
        return Assessment(kinds, {"nothing that is true": LOWEST - START}, LOWEST)
    right = exchange.state == "right"
    tells = not right and mentions(answer, exchange.problem.answer)  # the answer of one who is right may be repeated
    curt = any(kind.startswith("curt") for kind in kinds)
    points = {
        "evaluation": _evaluation(kinds, exchange.state),
        "hint": _best(kinds, HINT_WORTH[right]),
        "question": _best(kinds, QUESTION_WORTH[right]),
        "polite": POLITE * ("praise" in kinds),
        "tells": TELLS * tells,
        "false": FALSE * kinds.count("false"),
        "unclear": UNCLEAR * kinds.count("unclear"),
        "repeats": REPEATS * (len(said) - len(set(said))),
        "filler": FILLER * kinds.count("filler"),
        "rude": RUDE * kinds.count("rude"),
        "curt": CURT * curt,
        "length": PER_WORD * max(0, len(answer.split()) - FREE_WORDS),
        "unfinished": UNFINISHED * (not finished),
    }
    points = {aspect: value for aspect, value in points.items() if value}
    # Without the dust of sums: 4.4999999 must not be rated 4.
    utility = round(START + sum(points.values()), 6)
    return Assessment(kinds, points, min(HIGHEST, max(LOWEST, utility)))


def _evaluation(kinds: tuple[str, ...], state: str) -> float:
    given = {kind.removeprefix("curt_") for kind in kinds} & set(EXPECTED.values())
    if not given:
        return 0.0
    # Two evaluations that contradict each other count as a wrong one.
    return EVALUATION if given == {EXPECTED[state]} else -EVALUATION


def _best(kinds: tuple[str, ...], worth: dict[str, float]) -> float:
    """Return the worth of the best of these kinds: an element counts once, however often it is said."""
    return max((worth[kind] for kind in kinds if kind in worth), default=0.0)


def _kind(sentence: str, exchange: Exchange) -> str:
    kind = _fitting(exchange).get(sentence)
    if kind:
        return kind
    return "false" if _shape(sentence) in _shapes() else "unclear"


@functools.lru_cache(maxsize=4096)
def _fitting(exchange: Exchange) -> dict[str, str]:
    """Return every sentence that can be said in this exchange, and its kind."""
    found = {}
    for kind in KINDS:
        for text in phrases(kind, exchange):
            found[text.lower()] = kind
    return found


@functools.cache
def _shapes() -> frozenset[str]:
    """Return every sentence that can be said anywhere in the world, numbers left open."""
    found: set[str] = set()
    for problem in PROBLEMS.values():
        for claim in (problem.answer, *problem.wrong):
            # Past the cache: it is for the exchanges of prompts, and these would fill it.
            found.update(map(_shape, _fitting.__wrapped__(Exchange(problem, "wrong", claim))))
    return frozenset(found)


def _shape(sentence: str) -> str:
    return re.sub(r"\d+", "#", sentence)


def preference_probability(utility_a: float, utility_b: float, temperature: float) -> float:
    """Return P(a preferred to b) = sigma((u_a - u_b) / temperature) (Bradley & Terry 1952); temperature 0 never errs
    (1/2 at equal utilities)."""
    gap = utility_a - utility_b
    if temperature == 0:
        if gap == 0:
            return 0.5
        return float(gap > 0)
    scaled = gap / temperature
    # The exponent is never positive: of a large gap over a small temperature it would overflow.
    if scaled >= 0:
        return 1 / (1 + math.exp(-scaled))
    return math.exp(scaled) / (1 + math.exp(scaled))


def prefer(a: Assessment, b: Assessment, temperature: float, seed: int, *key: object) -> str:
    """Return a noisy verdict; equal ratings tie.

    Args:
        a: the first answer's assessment.
        b: the second's.
        temperature: of preference_probability.
        seed: fixes the draw, together with the key.
        key: what is compared (a record's id and the numbers of the answers, say).

    Returns:
        a | b | tie.
    """
    if a.rating == b.rating:
        return "tie"
    probability = preference_probability(a.utility, b.utility, temperature)
    return "a" if random_of(seed, *key).random() < probability else "b"


def accuracy_ceiling(probabilities: Iterable[float]) -> float:
    """Return the best accuracy that any model can expect on verdicts drawn with these P(a): mean of max(p, 1 - p)."""
    best = [max(p, 1 - p) for p in probabilities]
    if not best:
        return math.nan
    return sum(best) / len(best)


def random_of(*key: object) -> random.Random:
    """Return a generator that depends on nothing but `key`."""
    # Not by Python's hash(), which differs from process to process. The separator keeps the keys (1, 23) and (12, 3)
    # apart.
    return random.Random(hashlib.blake2b("\x1f".join(map(str, key)).encode(), digest_size=8).digest())
