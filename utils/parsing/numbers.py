"""Parser of ratings: the number that a judge gave, and no other number of its reply."""

from __future__ import annotations

import re
from typing import Any

from utils.parsing.base import Unparsed, named, only, parser, plain, take_objects

WORDS = {"one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10}
_WORD = "|".join(WORDS)
_NUMBER = r"[-+]?\d+(?:\.\d+)?"
# Not 6,5 nor 5-6 nor "5 or 6": none of them is one number.
_ALONE = rf"(?![\w%+]|[.,]\d|\s*[-–~]\s*\d|\s*(?:or|to|and)\s+(?:\d|{_WORD}))"
_VALUE = rf"(?P<n>{_NUMBER}|{_WORD}){_ALONE}(?:\s*\(?\s*(?:/|out of|of)\s*(?P<of>{_NUMBER}))?"
_LABELLED = re.compile(
    rf"\b(?:rating|ratings|score)\b(?:\s*\([^)\n]{{0,20}}\))?\s*(?:is|was|of|would be)?\s*[:=]?\s*[\[(\"']*{_VALUE}",
    re.IGNORECASE,
)
_SPOKEN = re.compile(
    r"\bI(?:['’]d| would| will|['’]ll)?\s+(?:rate|give|score|assign)\b[^.\n\d]{0,60}?(?<![-+\d.])" + _VALUE,
    re.IGNORECASE,
)
_BARE = re.compile(rf"[\s(\[\"'<]*{_VALUE}[\s)\]\"'>.!]*", re.IGNORECASE)


@parser("rating", version=1)
def rating(text: str, low: float, high: float) -> float | int:
    """Read a number from low to high: `Rating: 6`, {"rating": 6}, a number as the first line; 6/7 where 7 is `high`."""
    text = plain(text)
    strict = re.fullmatch(rf"Rating: ({_NUMBER})", text)
    if strict:
        return _in_range(strict[1], None, low, high)
    objects, rest = take_objects(text)
    found = [_from_json(value, low, high) for value in named(objects, ("rating", "ratings", "score"))]
    return only(found + _in_words(rest, low, high), text, "rating")


def _from_json(value: Any, low: float, high: float) -> float | int:
    if isinstance(value, str):
        bare = _BARE.fullmatch(plain(value))
        if bare:
            return _in_range(bare["n"], bare["of"], low, high)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Unparsed("not a number")
    return _in_range(value, None, low, high)


def _in_words(text: str, low: float, high: float) -> list[float | int]:
    """Return the ratings that a text states in words."""
    # A judge that repeats the scale ("from 1 to 7") does not rate with it.
    scale = rf"\(?\b{low:g}\s*(?:[-–]|to)\s*{high:g}\b\)?"
    text = re.sub(scale, "", text)
    found = []
    for mark in [*_LABELLED.finditer(text), *_SPOKEN.finditer(text)]:
        rest = text[mark.end() :].split("\n", 1)[0]
        if re.search(r"\d", rest):
            raise Unparsed("different ratings")
        found.append(_in_range(mark["n"], mark["of"], low, high))
    # Lines that are a number alone count where the first line is one; further down they may number a list.
    lines = [line for line in text.splitlines() if line.strip()]
    if lines and _BARE.fullmatch(lines[0]):
        for line in lines:
            bare = _BARE.fullmatch(line)
            if bare:
                found.append(_in_range(bare["n"], bare["of"], low, high))
    return found


def _in_range(number: float | str, of: str | None, low: float, high: float) -> float | int:
    value = float(WORDS.get(str(number).lower(), number))
    if of is not None and float(of) != high:
        raise Unparsed("another scale")
    if not low <= value <= high:
        raise Unparsed("out of range")
    if value.is_integer():
        return int(value)
    return value
