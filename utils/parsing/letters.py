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
    """The ways of naming one of `labels` in a reply, the clearest first."""

    def __init__(self, labels: Sequence[str]) -> None:
        one = "|".join(re.escape(label.upper()) for label in labels)
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
        """All labels that a text gives as its verdict. Raises Unparsed."""
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        bare = [_label(hit) for hit in map(self._forms["bare"].fullmatch, lines) if hit]
        at_an_end = any(self._forms["bare"].fullmatch(line) for line in lines[:1] + lines[-1:])
        found = self._marks(text) + (bare if at_an_end or len(set(bare)) > 1 else [])
        if found or len(self._mentioned(text)) != 1 or _NEGATIVE.search(text):
            return found
        noun, opening, sentence = (self._forms[name] for name in ("noun", "opening", "sentence"))
        said = noun.fullmatch(lines[0]) or opening.match(text) or sentence.search(text)
        return [_label(said)] if said else []

    def _marks(self, text: str) -> list[str]:
        """Labels after words that announce a verdict."""
        found = []
        for mark in self._forms["mark"].finditer(text):
            before = text[: mark.start()].rsplit("\n", 1)[-1]
            after = text[mark.end() :].split("\n", 1)[0]
            if _NEGATIVE.search(before):  # the worse answer is B
                continue
            if self._mentioned(after) - {_label(mark)}:  # Answer: A or B
                raise Unparsed("different verdicts")
            found.append(_label(mark))
        return found

    def _mentioned(self, text: str) -> set[str]:
        return {_label(hit) for hit in self._forms["mention"].finditer(text)}


def _label(hit: re.Match) -> str:
    return next(filter(None, hit.groups())).upper()


def _letter(text: str, labels: Sequence[str], tie: str | None, names: tuple[str, ...]) -> str:
    """The label in a reply; `tie` is the label that words like `equally good` stand for."""
    text, letters = plain(text), _Letters(labels)
    strict = letters.strict.fullmatch(text)
    if strict:
        return strict[1]
    objects, rest = take_objects(text)
    found = []
    for value in named(objects, names):
        value = plain(value) if isinstance(value, str) else ""
        said = letters.verdicts(value) or ([tie] if tie and _TIE.fullmatch(value.strip(" .!")) else [])
        if not said:
            raise Unparsed("no verdict")
        found += said
    found += letters.verdicts(rest)
    if tie and (_TIE_MARK.search(rest) or _TIE.fullmatch(rest.strip(" .!"))):
        found.append(tie)
    return only(found, text, "verdict")


@parser("preference", version=1)
def preference(text: str, labels: Sequence[str] = ("A", "B", "C")) -> str:
    """a | b | tie: `Answer: A`, {"preference": "A"}. `labels` name the first, the second and, if given, a tie."""
    tie = labels[2].upper() if len(labels) > 2 else None
    label = _letter(text, labels, tie, ("preference", "preferred", "answer", "verdict", "choice", "winner"))
    return ("a", "b", "tie")[[each.upper() for each in labels].index(label)]


@parser("explain", version=1)
def explain(text: str, labels: Sequence[str] = ("A", "B", "C")) -> str:
    """One of the labels of a multiple choice: `Answer: B`."""
    return _letter(text, labels, None, ("answer", "choice", "aspect", "explain"))


@parser("order", version=1)
def order(text: str, count: int) -> list[list[int]]:
    """Answers from best to worst as groups of equals: `Order: B > A = D > C` is [[1], [0, 3], [2]]."""
    text = plain(text)
    objects, rest = take_objects(text)
    found = [_chain(value, count) for value in map(_as_chain, named(objects, ("order", "ranking")))]
    labelled = re.findall(r"\b(?:order|ranking)\b\s*(?:is)?\s*[:=]\s*(.+)", rest, re.IGNORECASE)
    chains = labelled or [line for line in rest.splitlines() if ">" in line]
    return only(found + [_chain(each, count) for each in chains] or _listed(rest, count), text, "order")


def _as_chain(value: Any) -> str:
    """A JSON value of an order as a chain."""
    if isinstance(value, list):
        return " > ".join(" = ".join(map(str, each)) if isinstance(each, list) else str(each) for each in value)
    return str(value)


def _chain(text: str, count: int) -> list[list[int]]:
    text = re.sub(rf"\b{_NOUN}\b|[\s()\[\]\"']", "", text, flags=re.IGNORECASE).rstrip(".!")
    if "," in text and not re.search("[>=]", text):
        text = text.replace(",", ">")
    if not re.fullmatch(r"[A-Za-z](?:[>=][A-Za-z])*", text):
        raise Unparsed("no order")
    groups = [[string.ascii_uppercase.index(each.upper()) for each in group.split("=")] for group in text.split(">")]
    flat = sorted(number for group in groups for number in group)
    if flat[-1] >= count:
        raise Unparsed("unknown letter")
    if len(set(flat)) < len(flat):
        raise Unparsed("letter repeated")
    if len(flat) < count:
        raise Unparsed("letter missing")
    return [sorted(group) for group in groups]


def _listed(text: str, count: int) -> list[list[list[int]]]:
    """The order of a numbered list with nothing else in it."""
    lines = [line for line in text.splitlines() if line.strip()]
    items = [re.fullmatch(rf"\s*(\d+)[.):]\s*(?i:{_NOUN}\s*)?\(?([A-Za-z])\)?\W*", line) for line in lines]
    if not all(items) or [int(item[1]) for item in items] != list(range(1, count + 1)):
        return []
    return [_chain(" > ".join(item[2] for item in items), count)]
