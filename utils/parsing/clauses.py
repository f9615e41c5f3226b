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
from utils.parsing.words import BECAUSE, CONDITIONS, FINAL

# A verdict is short; what is longer is not looked at word by word.
LONGEST = 400
# Signs of Unicode's private use area that are put for the values of a text, such as the letters of answers.
FIRST_MARK, LAST_MARK = "\ue000", "\ue0ff"
TIE_MARK = LAST_MARK
VALUE = "V"
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
_LABEL_AHEAD = re.compile(r",\s*(?=[^\W\d][^,:\d]{0,30}:)|,\s*(?:but|however|so|and|therefore|hence|thus|aber|also|und|mais|et|pero|y|但是|但|所以|因此)\s*(?=\W|\b)")
_PIECE = re.compile(r",|\s[-–—]+\s|[–—]")
_TAKEN_BACK = re.compile(
    r"\W*(?:(?:hmm|oh|no|but|however),?\s+)*(?:(?:no|hmm|wait|actually|hold on|scratch that|correction|korrektur|corrección|更正|等等)"
    r"\s*[,.!:–—-]|actually i\b|on (?:second thought|reflection|closer)|let me (?:correct|revise|reconsider)|i (?:have to|must|need to) correct"
    r"|i (?:take (?:that|it) back|change my mind)|make (?:it|that)\b)[\s,.:;!–—-]*",
    re.IGNORECASE,
)
# A remark in parentheses; "(A)", "(6)" and "(out of 7)" are none.
_REMARK = re.compile(rf"\((?!\s*(?:/|out of|[^\s(){TIE_MARK}]{{1,3}}\s*\)))[^()]*\)")
# "Answer: A, Answer: B or Answer: C" repeats the choice.
_ALTERNATIVE = re.compile(rf"\bonly (?:for|if|when|in|with|where)\b|(?:\b(?:or|oder|ou|o)\b|或|还是)[^,;.\d{FIRST_MARK}-{LAST_MARK}]{{0,20}}[\d{FIRST_MARK}-{LAST_MARK}]", re.I)
# "I'd rate it 5, maybe 6" leaves it open.
HEDGE = re.compile(
    r"(?:maybe|perhaps|possibly|almost|nearly|closer|leaning|borderline|bordering|arguably|not sure|vielleicht|eventuell|fast"
    r"|peut-être|presque|quizás?|tal vez|casi)\b|也许|可能|或许",
    re.IGNORECASE,
)
_LEAD = re.compile(
    r"(?:because|since|between the two|of the two|compared (?:to|with)|even though|weil|da|puisque|comme|porque|ya que|after (?:careful|weigh|consider|review|read|compar|check|analy)|given|considering|taking|having|based on|weighing"
    r"|despite|although|while|nach (?:sorgfältig|abwäg)|après|tras)\b",
    re.IGNORECASE,
)
_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*['’]?")
_CHINESE = re.compile(r"[\u4e00-\u9fff]")


@dataclass(frozen=True)
class Clause:
    """A clause of a reply.

    Args:
        text: its words, without bullets, parentheses and reasons.
        first: whether the reply begins with it.
        alone: whether it is a whole line.
        last: whether it is the whole last line.
    """

    text: str
    first: bool
    alone: bool
    last: bool


@dataclass(frozen=True)
class Verdict:
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


Reader = Callable[[Clause], Verdict | None]
Announces = Callable[[str, str], bool]


def plain(text: str) -> str:
    """Return a verdict's text without emphasis, fences and bullets, wide letters as ordinary ones, and each verdict
    that is marked by LaTeX, tags or double brackets as a line `verdict: 6`."""
    text = unicodedata.normalize("NFKC", text).replace("\u2212", "-").replace("’", "'")
    refuse_echo(text)
    if re.search(r"^Human:", text, re.MULTILINE):
        raise Unparsed("prompt echoed")
    text = _WRAPPED.sub(lambda hit: f"\nverdict: {next(filter(None, hit.groups()))}\n", text)
    text = re.sub(r"[*`$]|\b_|_\b|\A#+\s*Reply\s*\n", "", text).strip()
    # The patterns of the parsers would take cubic time on long runs of spaces.
    return re.sub(r"\s*\n\s*", "\n", re.sub(r"[^\S\n]+", " ", text))


def verdicts(text: str, read: Reader, announces: Announces) -> list[Verdict]:
    """Return the verdicts of a text that `plain` has cleaned. Raises Unparsed where the last is taken back.

    Args:
        text: the reply.
        read: returns the verdict of a clause, or None.
        announces: tells whether a line is the heading of the verdict on the next.

    Returns:
        Verdicts in their order, without those that the reply corrects.
    """
    found: list[Verdict] = []
    taken_back = False
    for clause in _clauses(_lines(text, announces)):
        if clause is None:
            taken_back, found = bool(found) or taken_back, []
            continue
        verdict = read(clause)
        if verdict is not None:
            found.append(verdict)
    if taken_back and not found:
        raise Unparsed("verdict taken back")
    if any(verdict.bare and verdict.edge for verdict in found):
        return found
    return [verdict for verdict in found if not verdict.bare]


def settle(found: list[Verdict], text: str, what: str) -> Any:
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


def parts(text: str, part_of: dict[str, str]) -> list[tuple[str, str]]:
    """Return (part, word) of each word and sign of a short text. The part of a word that is not listed is "?"; that of a
    value, for which `marked` has put a sign of its own, is "V"."""
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
    for number, line in enumerate(lines):
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
            )


def _quotation(hit: re.Match) -> str:
    """Return a quoted letter or number as it is; the words of another are a word that no verdict has."""
    if " " in hit[1].strip():
        return " \N{REPLACEMENT CHARACTER} "
    return hit[1]


def _of_sentence(sentence: str, first: bool, alone: bool, last: bool) -> Iterator[Clause]:
    core = without_reason(_REMARK.sub("", sentence))
    if core.rstrip().endswith("?") or CONDITIONS & _words(core) or _ALTERNATIVE.search(core):
        return
    for place, clause in enumerate(_LABEL_AHEAD.split(core)):
        whole = alone and clause == core
        yield Clause(clause.strip(), first=first and place == 0, alone=whole, last=last and whole)


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
    return words | {each for each in CONDITIONS if _CHINESE.match(each) and each in text}


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
