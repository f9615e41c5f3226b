"""Parser of ratings: the number that a judge gave, and no other number of its reply."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from utils.parsing.base import Unparsed, named, parser, take_objects
from utils.parsing.clauses import Clause, Statement, plain, settle, verdicts_in
from utils.parsing.parts import FIRST_MARK, HEDGE, LONGEST, VALUE, is_final, parts, pieces
from utils.parsing.words import FINAL, IS, LABEL, NEUTRAL, RATING_WORDS, VERB

WORDS = {"one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10}
_NUMBER = r"[-+]?\d+(?:\.\d+)?"
_OF = r"\s*(?:points?|stars?|punkten?|puntos)?\s*(?:/|\(?out of|of|von|sur|de|sobre)\s*"
_VALUE = re.compile(
    rf"(?<![A-Za-z0-9.,])(?:(?P<n>{_NUMBER}|[-+]?\d+,\d+){_OF}(?P<of>{_NUMBER})|(?P<bare>{_NUMBER}|{'|'.join(WORDS)}))"
    r"(?![A-Za-z0-9]|[.,]\d)",
    re.IGNORECASE,
)
_RESULTS = frozenset({"answer", "result", "output", "ergebnis", "答案"})
_ARTICLES = frozenset({"a", "an", "eine", "un", "une"})
_KEYS = ("rating", "ratings", "score", "overall", "overall_rating", "overall_score", "final_rating", "final_score")


@parser("rating", version=2)
def rating(text: str, low: float, high: float) -> float | int:
    """Read a number from low to high: `Rating: 6`, {"rating": 6}, a number as the first line; 6/7 where 7 is `high`."""
    text = plain(text)
    strict = re.fullmatch(rf"Rating: ({_NUMBER})", text)
    if strict:
        return _in_range(strict[1], None, low, high)
    objects, rest = take_objects(text)
    found = [Statement(_from_json(value, low, high), final=True) for value in named(objects, _KEYS)]
    scale = _Scale(low, high)
    found += verdicts_in(scale.cleaned(rest), scale.verdict, _announces)
    return settle(found, text, "rating")


@dataclass(frozen=True)
class _Scale:
    low: float
    high: float

    def cleaned(self, text: str) -> str:
        """Return a text without the words of the scale itself, with stars as a number and, of 100, without percent."""
        # A judge that repeats the scale ("from 1 to 7") does not rate with it.
        ends = rf"{self.low:g}\s*(?:[-–]|to|bis|à|a|到|至)\s*{self.high:g}\b"
        where = rf"(?:,?\s+where\s[^.\n]{{0,80}}?\b{self.high:g}\b[^,.\n]{{0,80}},?)?"
        named = rf"\b(?:on|auf|sur|en) (?:an?|the|einer|der|une|una) (?:{ends} )?(?:scale|skala|échelle|escala)"
        text = re.sub(
            rf"{named}(?: (?:of|from|von|de))?(?: {ends})?{where}", " scaleofrating ", text, flags=re.IGNORECASE
        )
        text = re.sub(rf"\(?\b{ends}\)?|\((?:out of|von|sur|de|/|满分)\s*{self.high:g}分?\)(?=\s*[:=]|\s*$)", "", text)
        if self.high == 100:
            text = text.replace("%", "")
        text = re.sub(rf"(\d)\s*\((?:{'|'.join(WORDS)})\)", r"\1", text, flags=re.IGNORECASE)
        return re.sub("(★+)(☆*)", lambda stars: f"{len(stars[1])}/{len(stars[0])}", text)

    def verdict(self, clause: Clause) -> Statement | None:
        """Return the rating of a clause that has one number, a word of rating, and no word that is not understood."""
        if len(clause.text) > LONGEST:
            return None
        head, rest = pieces(_VALUE.sub(FIRST_MARK, clause.text), RATING_WORDS)
        said = parts(head, RATING_WORDS)
        kinds = [part for part, _ in said]
        # "Rating: 5, 6" has two numbers; "Rating: 5, with 6 sources" has one rating and a remark.
        if kinds.count(VALUE) != 1 or any(HEDGE.match(piece) or piece.startswith(FIRST_MARK) for piece in rest):
            return None
        if not {*kinds} <= {VALUE, NEUTRAL, IS, FINAL, LABEL, VERB}:
            return None
        # "The answer is 6" may speak of the exercise; "this answer is a 6" does not.
        words = {word for _, word in said}
        if not {LABEL, VERB} & {*kinds} and words & _RESULTS and not words & _ARTICLES:
            return None
        hit = _VALUE.search(clause.text)
        if {LABEL, VERB} & {*kinds} or {FINAL, IS} <= {*kinds}:
            return Statement(self._value(hit), final=is_final(said))
        # A number alone: "6", "4/5 stars", "5/7. It is correct."
        if kinds[0] != VALUE or IS in kinds or FINAL in kinds or not (clause.alone or (clause.first and hit["of"])):
            return None
        if not clause.first and float(_number(hit)) > self.high:
            return None
        return Statement(self._value(hit), bare=True, edge=clause.first)

    def _value(self, hit: re.Match) -> float | int:
        return _in_range(_number(hit), hit["of"], self.low, self.high)


def _number(hit: re.Match) -> str:
    said = (hit["n"] or hit["bare"]).lower().replace(",", ".")
    return str(WORDS.get(said, said))


def _announces(line: str, following: str) -> bool:
    """Tell whether a line such as `Final rating` is the heading of a number on the next."""
    kinds = {part for part, _ in parts(line, RATING_WORDS)}
    if not kinds <= {NEUTRAL, IS, FINAL, LABEL} or not {FINAL, LABEL} & kinds:
        return False
    head, _ = pieces(_VALUE.sub(FIRST_MARK, following), RATING_WORDS)
    return head.strip("[]()\"'. ") == FIRST_MARK


def _from_json(value: Any, low: float, high: float) -> float | int:
    if isinstance(value, str):
        bare = _VALUE.fullmatch(plain(value).strip("[]()\"'. "))
        if bare:
            return _in_range(_number(bare), bare["of"], low, high)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Unparsed("not a number")
    return _in_range(value, None, low, high)


def _in_range(number: float | str, of: str | None, low: float, high: float) -> float | int:
    if of is not None and float(of) != high:
        raise Unparsed("another scale")
    if isinstance(number, str):
        number = float(number)
    # A whole number of JSON may be too large for a float.
    if not low <= number <= high:
        raise Unparsed("out of range")
    if float(number).is_integer():
        return int(number)
    return number
