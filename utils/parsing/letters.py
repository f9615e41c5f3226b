"""Verdicts in letters: a preference, a choice, an order."""

from __future__ import annotations

import re
import string
from collections.abc import Sequence
from typing import Any

from utils.parsing.base import Unparsed, named, only, parser, plain, take_objects

_NOUN = r"(?:answer|output|response|summary|option|choice)"
_SAYS = rf"(?:{_NOUN}|verdict|preference|preferred|winner|decision|judge?ment)"
_OPEN, _CLOSE = r"[\s(\[{<\"']*", r"[\s)\]}>\"'.:,;!]*"
_NEGATIVE = re.compile(
    r"\b(?:worse|worst|weaker|reject\w*|losing|loser|wrong|bad|least|inferior|not|never|neither|nor|hardly)\b|n['’]t\b",
    re.IGNORECASE,
)
_EQUAL = (
    r"(?:(?:it['’]?s |it is |this is )?(?:a )?(?:tie|draw|tied|equal)\b|(?:both|they|the two)?(?: (?:answers|outputs"
    r"|responses|summaries))?(?: are)? ?equally (?:good or bad|good/bad|good|bad|helpful)\b)"
)
_TIE = re.compile(_EQUAL, re.IGNORECASE)
_TIE_MARK = re.compile(rf"\b{_SAYS}\s*(?:is\s*:?|[:=])\s*{_OPEN}{_EQUAL}", re.IGNORECASE)


class _Letters:
    """The forms in which a reply can name one of `labels`, the clearest first."""

    def __init__(self, labels: Sequence[str]) -> None:
        one = "|".join([re.escape(label.upper()) for label in labels])
        ends = r"(?=\s*$|[)\]}>\"'.:,;!]|\s+(?:is|was|because|since|as|wins?|over|for)\b|\s+[-–—(])"
        better = r"(?:better|best|preferable|preferred|superior|stronger)"
        forms = {
            "mark": rf"\b{_SAYS}\s*(?:is\s*:?|[:=])\s*(?:the\s+)?(?:{_NOUN}\b\s*:?)?{_OPEN}({one}){ends}"
            rf"|\[\[({one})\]\]",
            "bare": rf"{_OPEN}({one}){_CLOSE}",
            "noun": rf"{_OPEN}(?:the )?{_NOUN}{_OPEN}({one}){_CLOSE}",
            "opening": rf"(?:\(({one})\)|({one})\)|(?-i:({one}))\s[-–—])[\s:,–-]+\S",
            "sentence": rf"\bI (?:would |['’]d )?(?:prefer|choose|pick|select)\s+(?:the )?(?:{_NOUN}\s*)?\(?({one})\)?"
            rf"(?=[\s.,!]|$)|\b{_NOUN}\s*\(?({one})\)? is (?:\w+ ){{0,2}}{better}\b",
            "mention": rf"(?<![\w'’])(?-i:({one}))(?![\w'’])|[(\[]({one})[)\]]|\b{_NOUN}\s+\(?({one})\b",
        }
        flags = re.IGNORECASE | re.MULTILINE
        self._forms = {name: re.compile(pattern, flags) for name, pattern in forms.items()}
        self.strict = re.compile(rf"Answer: ({one})")

    def verdicts(self, text: str) -> list[str]:
        """Return all labels that a text gives as its verdict. Raises Unparsed."""
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        bare = []
        for line in lines:
            hit = self._forms["bare"].fullmatch(line)
            if hit:
                bare.append(_label(hit))
        found = self._marks(text)
        # A letter alone on a line in the middle may be a heading; at either end it is the verdict.
        at_an_end = any(self._forms["bare"].fullmatch(line) for line in lines[:1] + lines[-1:])
        if at_an_end or len(set(bare)) > 1:
            found += bare
        # Weaker forms count only where a single label is mentioned and nothing speaks against it.
        if found or len(self._mentioned(text)) != 1 or _NEGATIVE.search(text):
            return found
        said = self._forms["noun"].fullmatch(lines[0]) or self._forms["opening"].match(text)
        said = said or self._forms["sentence"].search(text)
        if not said:
            return []
        return [_label(said)]

    def _marks(self, text: str) -> list[str]:
        """Return the labels after words that announce a verdict."""
        found = []
        for mark in self._forms["mark"].finditer(text):
            before = text[: mark.start()].rsplit("\n", 1)[-1]
            after = text[mark.end() :].split("\n", 1)[0]
            # "The worse answer is B" names the loser.
            if _NEGATIVE.search(before):
                continue
            # "Answer: A or B" names both.
            if self._mentioned(after) - {_label(mark)}:
                raise Unparsed("different verdicts")
            found.append(_label(mark))
        return found

    def _mentioned(self, text: str) -> set[str]:
        return {_label(hit) for hit in self._forms["mention"].finditer(text)}


def _label(hit: re.Match) -> str:
    return next(filter(None, hit.groups())).upper()


def _letter(text: str, labels: Sequence[str], tie: str | None, names: tuple[str, ...]) -> str:
    """Return the label in a reply. `tie` is the label for replies such as "equally good"; `names` are the keys of a
    JSON reply."""
    text, letters = plain(text), _Letters(labels)
    strict = letters.strict.fullmatch(text)
    if strict:
        return strict[1]
    objects, rest = take_objects(text)
    found = []
    for value in named(objects, names):
        if not isinstance(value, str):
            raise Unparsed("no verdict")
        value = plain(value)
        said = letters.verdicts(value)
        if not said and tie and _TIE.fullmatch(value.strip(" .!")):
            said = [tie]
        if not said:
            raise Unparsed("no verdict")
        found += said
    found += letters.verdicts(rest)
    if tie and (_TIE_MARK.search(rest) or _TIE.fullmatch(rest.strip(" .!"))):
        found.append(tie)
    return only(found, text, "verdict")


@parser("preference", version=1)
def preference(text: str, labels: Sequence[str] = ("A", "B", "C")) -> str:
    """Read a | b | tie: `Answer: A`, {"preference": "A"}. `labels` name the first, the second and, if given, a tie."""
    verdict_of = {label.upper(): verdict for label, verdict in zip(labels, ("a", "b", "tie"), strict=False)}
    tie = None
    if len(labels) > 2:
        tie = labels[2].upper()
    names = ("preference", "preferred", "answer", "verdict", "choice", "winner")
    return verdict_of[_letter(text, labels, tie, names)]


@parser("explain", version=1)
def explain(text: str, labels: Sequence[str] = ("A", "B", "C")) -> str:
    """Read one of the labels of a multiple choice: `Answer: B`."""
    return _letter(text, labels, tie=None, names=("answer", "choice", "aspect", "explain"))


@parser("order", version=1)
def order(text: str, count: int) -> list[list[int]]:
    """Read answers from best to worst as groups of equals: `Order: B > A = D > C` is [[1], [0, 3], [2]]."""
    text = plain(text)
    objects, rest = take_objects(text)
    chains = [_as_chain(value) for value in named(objects, ("order", "ranking"))]
    labelled = re.findall(r"\b(?:order|ranking)\b\s*(?:is)?\s*[:=]\s*(.+)", rest, re.IGNORECASE)
    chains += labelled or [line for line in rest.splitlines() if ">" in line]
    found = [_chain(chain, count) for chain in chains]
    return only(found or _listed(rest, count), text, "order")


def _as_chain(value: Any) -> str:
    """Return a JSON value of an order as a chain."""
    if not isinstance(value, list):
        return str(value)
    groups = []
    for group in value:
        if isinstance(group, list):
            group = " = ".join(map(str, group))
        groups.append(str(group))
    return " > ".join(groups)


def _chain(text: str, count: int) -> list[list[int]]:
    """Read a chain such as `B > A = C`. Raises Unparsed unless it holds each of the `count` letters once."""
    text = re.sub(rf"\b{_NOUN}\b|[\s()\[\]\"']", "", text, flags=re.IGNORECASE).rstrip(".!")
    if "," in text and not re.search("[>=]", text):
        text = text.replace(",", ">")
    if not re.fullmatch(r"[A-Za-z](?:[>=][A-Za-z])*", text):
        raise Unparsed("no order")
    groups, flat = [], []
    for group in text.split(">"):
        numbers = [string.ascii_uppercase.index(letter.upper()) for letter in group.split("=")]
        groups.append(sorted(numbers))
        flat += numbers
    if max(flat) >= count:
        raise Unparsed("unknown letter")
    if len(set(flat)) < len(flat):
        raise Unparsed("letter repeated")
    if len(flat) < count:
        raise Unparsed("letter missing")
    return groups


def _listed(text: str, count: int) -> list[list[list[int]]]:
    """Return the order of a numbered list with nothing else in it, or nothing."""
    letters = []
    for line in filter(str.strip, text.splitlines()):
        item = re.fullmatch(rf"\s*(\d+)[.):]\s*(?i:{_NOUN}\s*)?\(?([A-Za-z])\)?\W*", line)
        if not item or int(item[1]) != len(letters) + 1:
            return []
        letters.append(item[2])
    if len(letters) != count:
        return []
    return [_chain(" > ".join(letters), count)]
