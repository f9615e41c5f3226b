"""Parser of orders: answers from best to worst, `B > A = D > C`."""

from __future__ import annotations

import re
import string
from dataclasses import dataclass, field
from typing import Any

from utils.parsing.base import Unparsed, named, parser, take_objects
from utils.parsing.clauses import Clause, Statement, plain, settle, verdicts_in
from utils.parsing.parts import LONGEST, is_final, parts
from utils.parsing.words import FINAL, LABEL, ORDER_WORDS

_NOUN = r"(?:answer|response|output|summary|option|assistant|antwort|réponse|respuesta|opción|回答|答案)"
_ONE = r"[\s(\[\"']*[A-Za-z](?![A-Za-z])[\s)\]\"']*"
_CHAIN = re.compile(rf"(?<![A-Za-z]){_ONE}(?:(?:>+|=|≻|→){_ONE})+")
_COMMAS = re.compile(rf"(?<![^:=\s]){_ONE}(?:,{_ONE})+")
_AFTER = re.compile(r"\s*(?:\Z|[,;.:]|[-–—])")
_ITEM = re.compile(
    rf"\|?\s*(?:rank|place|platz|rang|puesto)?\s*(?P<place>\d{{1,2}})(?:st|nd|rd|th)?\s*[.):|]\s*(?:{_NOUN}\s*)?\(?(?P<letter>[A-Z])\b\)?\s*(?P<why>\|?\Z|[-–—:.(,|].*)",
    re.IGNORECASE,
)
_UPWARDS = re.compile(r"\b(?:worst|least)\b[^.\n]{0,30}\b(?:to|first)\b|ascending", re.IGNORECASE)


@parser("order", version=2)
def order(text: str, count: int) -> list[list[int]]:
    """Read answers from best to worst as groups of equals: `Order: B > A = D > C` is [[1], [0, 3], [2]]."""
    text = plain(text)
    objects, rest = take_objects(text)
    chains = _Chains(count)
    found = [Statement(chains.groups(_as_chain(value)), final=True) for value in named(objects, ("order", "ranking"))]
    found += verdicts_in(rest, chains.verdict, _announces) or _listed(rest, chains)
    if not found and chains.failures:
        raise chains.failures[0]
    return settle(found, text, "order")


@dataclass(frozen=True)
class _Chains:
    """The reader of clauses that hold an order of `count` letters; `failures` are the reasons of those that do not."""

    count: int
    failures: list[Unparsed] = field(default_factory=list)

    def verdict(self, clause: Clause) -> Statement | None:
        """Return the order in a clause: a chain, with nothing before it but words such as "final ranking"."""
        if len(clause.text) > LONGEST:
            return None
        text = re.sub(rf"\b{_NOUN}(?=\W)", "", clause.text, flags=re.IGNORECASE)
        chain = _CHAIN.search(text) or _COMMAS.search(text)
        if not chain:
            return None
        before = parts(text[: chain.start()].replace(",", " "), ORDER_WORDS)
        if any(part == "?" for part, _ in before) or not _AFTER.match(text, chain.end()):
            return None
        # A chain of equals, or letters with commas between them, is an order only if it is called one.
        whole = clause.first and clause.last and chain[0].count(",")
        if not re.search("[>≻→]", chain[0]) and not whole and not {LABEL, FINAL} & {part for part, _ in before}:
            return None
        try:
            return Statement(self.groups(chain[0]), final=is_final(before))
        except Unparsed as failed:
            self.failures.append(failed)
            return None

    def groups(self, chain: str) -> list[list[int]]:
        """Return the groups of a chain such as `B > A = C`. Raises Unparsed unless it holds each letter once."""
        text = re.sub(rf"\b{_NOUN}\b|[\s()\[\]\"'.!]", "", chain, flags=re.IGNORECASE)
        text = re.sub("[≻→]|>+", ">", text)
        if ">" not in text and "=" not in text:
            text = text.replace(",", ">")
        if not re.fullmatch(r"[A-Za-z](?:[>=][A-Za-z])*", text):
            raise Unparsed("no order")
        groups, flat = [], []
        for group in text.split(">"):
            numbers = [string.ascii_uppercase.index(letter.upper()) for letter in group.split("=")]
            groups.append(sorted(numbers))
            flat += numbers
        if len(set(flat)) < len(flat):
            raise Unparsed("letter repeated")
        if max(flat) >= self.count:
            raise Unparsed("unknown letter")
        if len(flat) < self.count:
            raise Unparsed("letter missing")
        return groups


def _announces(line: str, following: str) -> bool:
    """Tell whether a line such as `Ranking` is the heading of a chain on the next."""
    kinds = {part for part, _ in parts(line, ORDER_WORDS)}
    return "?" not in kinds and bool({LABEL, FINAL} & kinds) and bool(_CHAIN.match(following))


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


def _listed(text: str, chains: _Chains) -> list[Statement]:
    """Return the order of a numbered list or table, the best first, or nothing."""
    lines = [line for line in text.splitlines() if line.strip()]
    items = [_ITEM.fullmatch(line.strip()) for line in lines]
    found = [item for item in items if item]
    letters = [item["letter"].upper() for item in found]
    if [int(item["place"]) for item in found] != list(range(1, chains.count + 1)) or _UPWARDS.search(text):
        return []
    # "1. A: gives a hint, 2. B: asks a question" goes through the answers as they were shown.
    if letters == sorted(letters) and any(item["why"].strip("|") for item in found):
        return []
    return [Statement(chains.groups(" > ".join(letters)))]
