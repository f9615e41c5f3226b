"""Verdicts in letters: a preference, a choice.

Each answer's letter in a clause becomes a sign, each word the character of its part (utils/parsing/words.py). A clause
is a verdict if the characters match one of the forms below: "Response B is clearly better than Response A" is NVinbtNV.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from utils.parsing.base import Unparsed, named, parser, take_objects
from utils.parsing.clauses import Clause, Statement, plain, settle, verdicts_in
from utils.parsing.parts import FIRST_MARK, HEDGE, LAST_MARK, LONGEST, TIE_MARK, VALUE, is_final, parts, pieces
from utils.parsing.words import LETTER_WORDS

# "Answer: B", "the better response is Response B"; "I prefer A over B".
_NAMED = re.compile(r"(?=[nif]*[Nlbfv])[nifNlbv]*i[nif]*N?V(?:t[nf]*N?V)?[nf]*")
_PREFERRED = re.compile(r"[nifl]*v[nf]*N?V(?:t[nf]*N?V)?[nf]*")
# "A is better than B", "B is the winner", "A 比 B 好"; "A beats B"; "A > B". The first of two is the better one.
_BETTER = re.compile(
    r"[nifl]*(?:N[nf]*i[nf]*)?N?V(?:[nf]*i[nf]*[bl][nNlf]*|[nf]*b)(?:t[nf]*N?V)?[nf]*|[nifl]*N?Vn*t[nf]*N?V[nf]*b[nf]*"
    r"|[nifl]*N?V[nf]*W(?:[nf]*N?V)?[nf]*|[nifNlb]*V>+N?V"
)
# "A is worse than B".
_WORSE = re.compile(r"[nifl]*N?V[nf]*i[nf]*w[nN]*t[nf]*N?V[nf]*")
_REASON = re.compile(r":\s+(?!(?:no|not|yes|true|false|wrong|ja|nein|oui|non|sí)\b)(?=\w)", re.IGNORECASE)
_EQUALS = re.compile(r"[nifNlb]*Vi+N?V")
_TIED = re.compile(r"[nifNlbv]*V[nf]*")

_NOUN = r"(?:answer|response|output|summary|option|assistant|candidate|completion|antwort|réponse|respuesta|opción)"
_ORDINAL = r"\b(?:the |die |der |la |las )?(?:{0}) (?:{1}|one)\b|\bthe (?:{2})\b(?!\s*\w)|第{3}个?(?:回答|答案)?"
_FIRST = _ORDINAL.format("first|erste[nr]?|première|primera", _NOUN, "first", "一")
_SECOND = _ORDINAL.format("second|zweite[nr]?|deuxième|seconde|segunda", _NOUN, "second", "二")
_EQUAL = re.compile(
    r"\b(?:both|they|the two|the|(?:\w+ )?[A-Z] and (?:\w+ )?[A-Z])\b"
    r"(?: (?:answers|responses|outputs|summaries|assistants|options))?(?: are)?(?: about| roughly| both)? "
    r"(?:equally (?:good or bad|good/bad|good|bad|helpful|strong)|(?:of )?equal(?: (?:quality|in worth|worth))?"
    r"|equivalent|tied)\b"
    r"|\bequally (?:good or bad|good/bad|good|bad|helpful|strong)\b|\bequal in worth\b"
    r"|\b(?:tie|draw|tied|unentschieden|gleichstand|égalité|ex æquo|empate)\b"
    r"|\bneither (?:\w+ )?is better(?: than the other)?\b"
    r"|\b(?:beide|die beiden)(?: antworten)? sind (?:gleich gut|gleich schlecht|gleichwertig)\b"
    r"|\b(?:les deux réponses|elles) (?:se valent|sont équivalentes|sont de qualité égale)\b"
    r"|\b(?:ambas|las dos)(?: respuestas)? son (?:igual de buenas|igualmente buenas|equivalentes)\b"
    r"|(?:两个|两者|两种)?(?:回答|答案)?(?:都)?(?:一样好|同样好|不相上下)|平局",
    re.IGNORECASE,
)
# "They are equally good, but B is shorter" leaves open what weighs more.
_BUT = re.compile(r"\s*,?\s*(?:(?:in|at|on|but|though|although|however|except|yet|aber|mais|pero)\b|但)", re.IGNORECASE)


@dataclass(frozen=True)
class _Choice:
    """The reader of clauses that choose one of `labels`.

    Args:
        labels: the labels, in capitals; the first two name answers, the third, if there is one, a tie.
        compares: whether "A is better than B" chooses; if not, the labels name no answers.
    """

    labels: tuple[str, ...]
    compares: bool

    def marked(self, text: str) -> str:
        """Return a text with a sign for each label, for each ordinal ("the second response") and for a tie."""
        if self.compares:
            for sign, ordinal in ((self.sign(0), _FIRST), (self.sign(1), _SECOND)):
                text = re.sub(ordinal, f"answer {sign}", text, flags=re.IGNORECASE)
            text = re.sub(rf"\b({_NOUN}) ([12])\b", self._numbered, text, flags=re.IGNORECASE)
            text = _EQUAL.sub(lambda hit: hit[0] if _BUT.match(text, hit.end()) else TIE_MARK, text)
        one = "|".join(sorted(map(re.escape, self.labels), key=len, reverse=True))
        text = re.sub(rf"(?<![\w'])({one})(?![\w'])", self._sign_of, text, flags=re.ASCII)
        # A small letter is a label only in brackets, after a colon, or alone: "a" is also a word.
        small = rf"(?<=[(\[])({one})(?=[)\]])"
        small += rf"|(?<=[:=])\s*[(\[\"']*({one})(?=\s*(?:$|[.,;)\]\"']))|^[^\w\n]*({one})(?=[^\w\n]*$)"
        text = re.sub(small, self._sign_of, text, flags=re.IGNORECASE | re.MULTILINE)
        text = re.sub(rf"([:=]\s*[{FIRST_MARK}-{LAST_MARK}])\s*\)\s+(?=\w)", r"\1. ", text)
        # "B) it asks" and "(C) both are equally good" begin with a choice and go on with a reason.
        after = rf"(?=[^\W{FIRST_MARK}-{LAST_MARK}]|{TIE_MARK})"
        return re.sub(rf"\A\W*([{FIRST_MARK}-{LAST_MARK}])\s*\)\s+{after}", r"\1. ", text)

    def _numbered(self, hit: re.Match) -> str:
        return f"{hit[1]} {self.sign(int(hit[2]) - 1)}"

    def _sign_of(self, hit: re.Match) -> str:
        return " " + self.sign(self.labels.index(next(filter(None, hit.groups())).upper())) + " "

    @property
    def signs(self) -> tuple[str, ...]:
        """The signs of all labels."""
        return tuple(self.sign(number) for number in range(len(self.labels)))

    @staticmethod
    def sign(number: int) -> str:
        return chr(ord(FIRST_MARK) + number)

    def verdict(self, clause: Clause) -> Statement | None:
        """Return the label that a clause chooses, or None."""
        if len(clause.text) > LONGEST:
            return None
        head, rest = pieces(clause.text, LETTER_WORDS)
        if any(HEDGE.match(piece) or piece[:1] in self.signs for piece in rest):
            return None
        said = parts(head, LETTER_WORDS)
        form, signs = _form(said), [word for part, word in said if part == VALUE]
        bare = re.fullmatch(r"[nf]*(N?)V", form)
        chosen = self._chosen(form, signs, equals=any(word == "=" for _, word in said))
        reason = _REASON.search(head)
        if chosen is None and reason:
            # "A is better than B: it asks a question."
            said = parts(head[: reason.start()], LETTER_WORDS)
            if _BETTER.fullmatch(_form(said)) or _WORSE.fullmatch(_form(said)):
                chosen = self._chosen(_form(said), [word for part, word in said if part == VALUE], equals=False)
        if chosen is None and bare and (clause.alone or clause.first):
            # A line "Response A" is more likely a heading than a verdict, unless the reply ends with it.
            edge = clause.last or (clause.first and not (bare[1] and clause.alone))
            chosen = self._label(signs[0], lone=not bare[1])
            return chosen and Statement(chosen, bare=True, edge=edge)
        return chosen and Statement(chosen, final=is_final(said))

    def _chosen(self, form: str, signs: list[str], equals: bool) -> str | None:
        """Return the label that a clause of this form chooses; `signs` are its labels, `equals` whether it has a =."""
        if _NAMED.fullmatch(form) or _PREFERRED.fullmatch(form):
            return self._label(signs[0], lone="NV" not in form and len(signs) == 1)
        if not self.compares or not signs:
            return None
        if signs == [TIE_MARK] and _TIED.fullmatch(form):
            return self._label(TIE_MARK, lone=True)
        if not set(signs) <= {self.sign(0), self.sign(1)} or len(signs) > 2 or len(set(signs)) < len(signs):
            return None
        if _BETTER.fullmatch(form):
            return self._label(signs[0], lone=False)
        if _WORSE.fullmatch(form):
            return self._label(signs[1], lone=False)
        if equals and _EQUALS.fullmatch(form):
            return self._label(TIE_MARK, lone=True)
        return None

    def _label(self, sign: str, lone: bool) -> str | None:
        """Return the label of a sign. A tie is no answer: its label counts only alone, as in "Answer: C"."""
        number = ord(sign) - ord(FIRST_MARK)
        if sign == TIE_MARK:
            number = 2
        if number >= len(self.labels) or (self.compares and number == 2 and not lone):
            return None
        return self.labels[number]

    def announces(self, line: str, following: str) -> bool:
        """Tell whether a line such as `Final verdict` is the heading of a label on the next."""
        words = _form(parts(line, LETTER_WORDS))
        head = _form(parts(pieces(following, LETTER_WORDS)[0], LETTER_WORDS))
        return bool(re.fullmatch(r"[nifNlb]*[lNbf][nifNlb]*", words) and re.fullmatch("N?V", head))


def _form(said: list[tuple[str, str]]) -> str:
    return "".join(part for part, _ in said)


def _letter(text: str, choice: _Choice, names: tuple[str, ...]) -> str:
    """Return the label in a reply; `names` are the keys of a JSON reply."""
    text = plain(text)
    strict = re.fullmatch(rf"Answer: ({'|'.join(map(re.escape, choice.labels))})", text)
    if strict:
        return strict[1]
    objects, rest = take_objects(text)
    found = []
    for value in named(objects, names):
        said = None
        if isinstance(value, str):
            said = choice.verdict(Clause(choice.marked(plain(value)), first=True, alone=True, last=True))
        if said is None:
            raise Unparsed("no verdict")
        found.append(Statement(said.value, final=True))
    found += verdicts_in(choice.marked(rest), choice.verdict, choice.announces)
    if not found and not choice.compares:
        # One line with the words of an aspect, "B: it is more correct"; more of them repeat the prompt.
        options = re.findall(rf"^[^\w\n]*?([{FIRST_MARK}-{LAST_MARK}]) *:", choice.marked(rest), re.MULTILINE)
        if len(options) == 1 and choice.marked(rest).strip().startswith(options[0]):
            found = [Statement(choice.labels[ord(options[0]) - ord(FIRST_MARK)])]
    return settle(found, text, "verdict")


@parser("preference", version=2)
def preference(text: str, labels: Sequence[str] = ("A", "B", "C")) -> str:
    """Read a | b | tie: `Answer: A`, {"preference": "A"}. `labels` name the first, the second and, if given, a tie."""
    choice = _Choice(tuple(label.upper() for label in labels), compares=True)
    verdict_of: dict[str, Any] = dict(zip(choice.labels, ("a", "b", "tie"), strict=False))
    names = ("preference", "preferred", "answer", "verdict", "choice", "winner")
    return verdict_of[_letter(text, choice, names)]


@parser("explain", version=2)
def explain(text: str, labels: Sequence[str] = ("A", "B", "C")) -> str:
    """Read one of the labels of a multiple choice: `Answer: B`."""
    choice = _Choice(tuple(label.upper() for label in labels), compares=False)
    return _letter(text, choice, names=("answer", "choice", "aspect", "explain"))
