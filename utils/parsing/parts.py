"""The parts of a clause: each word and sign of it by what it does in a verdict (utils/parsing/words.py)."""

from __future__ import annotations

import re

from utils.parsing.words import FINAL

# A verdict is short; what is longer is not looked at word by word.
LONGEST = 400
# Signs of Unicode's private use area that are put for the values of a text, such as the letters of answers.
FIRST_MARK, LAST_MARK = "\ue000", "\ue0ff"
TIE_MARK = LAST_MARK
VALUE = "V"
_PIECE = re.compile(r",|\s[-–—]+\s|[–—]")
# "I'd rate it 5, maybe 6" leaves it open.
HEDGE = re.compile(
    r"(?:maybe|perhaps|possibly|almost|nearly|closer|leaning|borderline|bordering|arguably|not sure|vielleicht"
    r"|eventuell|fast|peut-être|presque|quizás?|tal vez|casi)\b|也许|可能|或许",
    re.IGNORECASE,
)
# What may come before a verdict and its comma: "Given all this, …".
_LEAD = re.compile(
    r"(?:because|since|given|considering|taking|having|based on|weighing|despite|although|even though|while"
    r"|between the two|of the two|compared (?:to|with)|after (?:careful|weigh|consider|review|read|compar|check|analy)"
    r"|weil|da|nach (?:sorgfältig|abwäg)|puisque|comme|après|porque|ya que|tras)\b",
    re.IGNORECASE,
)
_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*['’]?")
_CHINESE = re.compile(r"[\u4e00-\u9fff]")


def parts(text: str, part_of: dict[str, str]) -> list[tuple[str, str]]:
    """Return (part, word) of each word and sign of a short text.

    The part of a word that is not listed is "?"; that of a sign that was put for a value is "V"."""
    found, at, text = [], 0, text.lower()
    while at < len(text):
        if text[at].isspace() or text[at] in "\"'.!;。()[]{}":
            at += 1
            continue
        if text[at] >= FIRST_MARK and text[at] <= LAST_MARK:
            found.append((VALUE, text[at]))
            at += 1
            continue
        word = _longest(text, at, part_of)
        found.append((part_of.get(word, "?"), word))
        at += len(word)
    return found


def _longest(text: str, at: int, part_of: dict[str, str]) -> str:
    """Return the longest listed phrase at a place, else the word or sign there."""
    if _CHINESE.match(text[at]):
        for length in (6, 5, 4, 3, 2, 1):
            if text[at : at + length] in part_of:
                return text[at : at + length]
        return text[at]
    word = _WORD.match(text, at)
    if not word:
        return text[at]
    end = word.end()
    longest = word[0]
    for _ in range(3):
        more = _WORD.match(text, end + 1)
        if not more or text[end] != " ":
            break
        end = more.end()
        if text[at:end] in part_of:
            longest = text[at:end]
    return longest


def pieces(clause: str, part_of: dict[str, str]) -> tuple[str, list[str]]:
    """Return the words of a clause that can be its verdict, with the lead before it, and the pieces after it.

    "Overall, I rate it 5, a fair number" is ("Overall I rate it 5", ["a fair number"])."""
    lead = ""
    rest = [piece.strip() for piece in _PIECE.split(clause)]
    while len(rest) > 1:
        if _LEAD.match(rest[0]):
            del rest[0]
            continue
        known = [part for part, _ in parts(rest[0][:LONGEST], part_of)]
        if not set(known) <= set(part_of.values()):
            break
        lead += f" {rest.pop(0)}"
    return f"{lead} {rest[0]}".strip(), rest[1:]


def is_final(found: list[tuple[str, str]]) -> bool:
    """Tell whether a clause calls itself the last word: "final", "overall"."""
    return any(part == FINAL for part, _ in found)
