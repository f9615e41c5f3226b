"""Clauses of a reply, and the verdict of those that hold one.

A reply is cut into lines, sentences and clauses. Questions, conditions, quotations and reasons are left out. A parser
says of each other clause whether it is a verdict; `settle` finds the value that the verdicts agree on.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from utils.parsing.base import Unparsed, missing, refuse_echo
from utils.parsing.parts import FIRST_MARK, LAST_MARK, LONGEST, TIE_MARK
from utils.parsing.words import ASPECTS, BECAUSE, CONDITIONS

_WRAPPED = re.compile(
    r"\\boxed\{(?:\\text\{)?([^{}\n]{1,80})\}\}?\$?"
    r"|<(?:final_)?(?:answer|rating|score|verdict|choice|preference|order|ranking)>\s*([^<\n]{1,80}?)\s*</\w+>"
    r"|\[\[([^\[\]\n]{1,80})\]\]|\[RESULT\]\s*(\S+)",
    re.IGNORECASE,
)
_QUOTED = re.compile(r"[\"“«「]([^\"“”«»「」\n]*)[\"”»」]")
_BULLET = re.compile(r"(?:[-•+>]\s+|#+\s*|\d{1,2}[.)]\s+(?=[^\W\d]))+")
_ROW = re.compile(r"\|\s*([^|\n]+?)\s*\|\s*([^|\n]+?)\s*\|")
_SENTENCE = re.compile(r"(?<=[.!?;])\s+|(?<=[。;])")
_NEXT_CLAUSE = re.compile(
    r",\s*(?=[^\W\d][^,:\d]{0,30}:)"
    r"|,\s*(?:(?:but|however|so|and|therefore|hence|thus|aber|also|und|mais|et|pero|y)\b|但是|但|所以|因此)\s*"
)
_TAKEN_BACK = re.compile(
    r"\W*(?:(?:hmm|oh|no|but|however),?\s+)*"
    r"(?:(?:no|hmm|wait|actually|hold on|scratch that|correction|korrektur|corrección|更正|等等)\s*[,.!:–—-]"
    r"|actually i\b|on (?:second thought|reflection|closer)|let me (?:correct|revise|reconsider)"
    r"|i (?:have to|must|need to) correct|i (?:take (?:that|it) back|change my mind)|make (?:it|that)\b)[\s,.:;!–—-]*",
    re.IGNORECASE,
)
# A remark in parentheses; "(A)", "(6)" and "(out of 7)" are none.
_REMARK = re.compile(rf"\((?!\s*(?:/|out of|[^\s(){TIE_MARK}]{{1,3}}\s*\)))[^()]*\)(?!\s*:)")
# "Answer: A, Answer: B or Answer: C" repeats the choice; "A is better, but only for experts" is a condition.
_SIGN = rf"\d{FIRST_MARK}-{LAST_MARK}"
_OPEN = re.compile(
    rf"(?:\b(?:or|oder|ou|o)\b|或|还是)[^,;.{_SIGN}]{{0,20}}[{_SIGN}]|\bonly (?:for|if|when|in|with|where)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Clause:
    """A clause of a reply.

    Args:
        text: its words, without bullets, parentheses and reasons.
        first: whether the reply begins with it.
        alone: whether it is a whole line.
        last: whether it is the whole last line.
        aspects: the number of headings so far that name an aspect, if it is under one; else 0.
    """

    text: str
    first: bool
    alone: bool
    last: bool
    aspects: int = 0


@dataclass(frozen=True)
class Statement:
    """What a clause says.

    Args:
        value: the value.
        final: whether it calls itself the last word ("Overall: 3"): it replaces those before it.
        bare: whether it is a value without any word that makes it a verdict.
        edge: whether the reply begins or ends with it; bare ones count only if one of them does.
    """

    value: Any
    final: bool = False
    bare: bool = False
    edge: bool = False


Reader = Callable[[Clause], Statement | None]
Announces = Callable[[str, str], bool]


def plain(text: str) -> str:
    """Return a verdict's text without emphasis, fences and bullets, wide letters as ordinary ones, and each verdict
    that is marked by LaTeX, tags or double brackets as a line `verdict: 6`."""
    text = unicodedata.normalize("NFKC", text).replace("\u2212", "-").replace("’", "'")
    refuse_echo(text)
    # A turn of the conversation belongs to no verdict.
    if re.search(r"^Human:", text, re.MULTILINE):
        raise Unparsed("prompt echoed")
    text = re.sub(f"[{FIRST_MARK}-{LAST_MARK}]", "", text)
    text = _WRAPPED.sub(lambda hit: f"\nverdict: {next(filter(None, hit.groups()))}\n", text)
    text = re.sub(r"[*`$]|\b_|_\b|\A#+\s*Reply\s*\n", "", text).strip()
    # The patterns of the parsers would take cubic time on long runs of spaces.
    return re.sub(r"\s*\n\s*", "\n", re.sub(r"[^\S\n]+", " ", text))


def verdicts_in(text: str, read: Reader, announces: Announces) -> list[Statement]:
    """Return the verdicts of a text that `plain` has cleaned. Raises Unparsed where the last is taken back.

    Args:
        text: the reply.
        read: returns the verdict of a clause, or None.
        announces: tells whether a line is the heading of the verdict on the next.

    Returns:
        Verdicts in their order, without those that the reply corrects.
    """
    found: list[Statement] = []
    of_aspects: list[tuple[Clause, Statement]] = []
    taken_back = False
    for clause in _clauses(_lines(text, announces)):
        if clause is None:
            taken_back, found = bool(found) or taken_back, []
            continue
        verdict = read(clause)
        if verdict is None:
            continue
        if clause.aspects and not verdict.final:
            of_aspects.append((clause, verdict))
        else:
            found.append(verdict)
    # The last line of a reply that goes through aspects is about all of them, if no other line is a verdict.
    if not found and len(of_aspects) == 1:
        (clause, verdict), *_ = of_aspects
        if clause.aspects > 1 and clause.last:
            found.append(verdict)
    if taken_back and not found:
        raise Unparsed("verdict taken back")
    if any(verdict.bare and verdict.edge for verdict in found):
        return found
    return [verdict for verdict in found if not verdict.bare]


def settle(found: list[Statement], text: str, what: str) -> Any:
    """Return the one value of the verdicts from the first final one on, or of all. Raises Unparsed."""
    if not found:
        raise missing(text, what)
    finals = [place for place, verdict in enumerate(found) if verdict.final]
    if finals:
        found = found[finals[0] :]
    first, *others = found
    if any(other.value != first.value for other in others):
        raise Unparsed(f"different {what}s")
    return first.value


def _lines(text: str, announces: Announces) -> list[str]:
    """Return the lines; a heading that announces a verdict and the line after it are one."""
    found: list[str] = []
    for raw in text.splitlines():
        line = raw.strip()
        bullet = _BULLET.match(line)
        if bullet:
            line = line[bullet.end() :]
        row = _ROW.fullmatch(line)
        if row:
            line = f"{row[1]}: {row[2]}"
        if not line:
            continue
        if found and len(found[-1]) < LONGEST and len(line) < LONGEST and announces(found[-1], line):
            found[-1] = f"{found[-1].rstrip(':. ')}: {line}"
        else:
            found.append(line)
    return found


def _clauses(lines: list[str]) -> Iterator[Clause | None]:
    """Yield the clauses that can hold a verdict, and None where the reply takes back what it said."""
    aspects, under_aspect = 0, False
    for number, line in enumerate(lines):
        words = re.findall(r"[^\W\d_]+", line[:LONGEST].lower())
        if len(words) <= 4 and not re.search(rf"[.!?]\Z|[{_SIGN}]", line):
            under_aspect = not ASPECTS.isdisjoint(words)
            aspects += under_aspect
        whole = _QUOTED.fullmatch(line)
        if whole:
            line = whole[1]
        line = _QUOTED.sub(_quotation, line)
        sentences = [each for each in _SENTENCE.split(line) if each.strip()]
        for place, sentence in enumerate(sentences):
            back = _TAKEN_BACK.match(sentence)
            if back:
                yield None
                sentence = sentence[back.end() :]
            yield from _of_sentence(
                sentence,
                first=number == 0 and place == 0,
                alone=len(sentences) == 1,
                last=number == len(lines) - 1,
                aspects=aspects * under_aspect,
            )


def _quotation(hit: re.Match) -> str:
    """Return a quoted letter or number as it is; the words of another are a word that no verdict has."""
    if " " in hit[1].strip():
        return " \N{REPLACEMENT CHARACTER} "
    return hit[1]


def _of_sentence(sentence: str, first: bool, alone: bool, last: bool, aspects: int) -> Iterator[Clause]:
    core = without_reason(_REMARK.sub("", sentence))
    if core.rstrip().endswith("?") or CONDITIONS & _words(core) or _OPEN.search(core):
        return
    for place, clause in enumerate(_NEXT_CLAUSE.split(core)):
        whole = alone and clause == core
        yield Clause(clause.strip(), first=first and place == 0, alone=whole, last=last and whole, aspects=aspects)


def without_reason(text: str) -> str:
    """Return the text up to the first word such as "because"."""
    for hit in re.finditer(r"[^\W\d_]+", text):
        # A sentence that begins with its reason has the verdict after it.
        if hit[0].lower() in BECAUSE and text[: hit.start()].strip():
            return text[: hit.start()]
    chinese = re.search("因为|由于", text)
    if chinese:
        return text[: chinese.start()]
    return text


def _words(text: str) -> set[str]:
    words = set(re.findall(r"[^\W\d_]+", text.lower()))
    return words | {each for each in CONDITIONS if not each.isascii() and each in text}
