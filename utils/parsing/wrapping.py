"""What models write around a text: announcements before it, remarks on the changes after it."""

from __future__ import annotations

import re

from utils.parsing.base import Unparsed

# An announcement is a first line, or a line up to its colon, of these words alone, one of them of _NEW: "Sure! Here's a
# more concise version of the answer:". A single other word makes the line part of the text.
_ANNOUNCING_WORDS = """sure thing certainly of course absolutely okay ok great got it understood gladly happy to help
    thanks thank you for your the feedback comment comments pointing that this out i i've have i'll apologize
    apologies sorry oversight confusion mistake error here here's is are below following as follows my a an and
    more is it based on reviewer reviewer's suggestion suggestions which with in response answer summary reply
    version text incorporates incorporating addresses addressing address takes into account account reflects
    reflecting by better concise clear clearer short shorter longer simpler friendlier helpful polished complete
    detailed accurate would be natürlich gerne gern klar hier kommt ist die eine meine der antwort fassung
    zusammenfassung auf grundlage kommentars bien sûr certainement d'accord voici la une ma le un réponse résumé
    de claro que sí por supuesto aquí está tienes tiene va la el una mi respuesta versión resumen"""
_NEW_WORDS = """revised improved rewritten rewrote updated corrected refined edited modified reworked enhanced
    shortened rewrite revision new more better concise clearer shorter longer simpler friendlier polished
    überarbeitete verbesserte neue korrigierte bessere révisé révisée amélioré améliorée corrigé corrigée réécrite
    nouvelle nouveau revisada revisado mejorada mejorado corregida corregido"""
_NAMES_WORDS = """answer response summary reply version rewrite revision revised rewritten improved antwort
    fassung zusammenfassung réponse résumé respuesta versión resumen"""
_ANNOUNCING, _NEW, _NAMES = (frozenset(words.split()) for words in (_ANNOUNCING_WORDS, _NEW_WORDS, _NAMES_WORDS))
_FIRST_LINE = re.compile(r"\s*[#*_ ]{0,8}([^\n:：]{1,300})(?:([:：])[*_ ]{0,4}|(?=\n)|\Z)")
_CHINESE = re.compile(
    r"\s*[*_]{0,3}(?:(?:好的|当然)[！!，,。]\s*)?(?:以下是|这是)?(?:修改|改进|修订|改写|优化)后的(?:回答|版本|答案|摘要)"
    r"[*_]{0,3}\s*[:：][*_]{0,3}"
)
_HERE = re.compile(
    r"\s*(?:(?:sure|certainly|of course)[!,.] )?here (?:you go|it is) ?[:!.]?[ \t]*(?=\n)", re.IGNORECASE
)
_LINE_OF_DASHES = re.compile(r"\s*(?:-{3,}|\*{3,}|_{3,})[ \t]*(?:\n|\Z)")
_QUESTION = re.compile(r"\s*Human:[^\n]*(?:\n(?![ \t]*\n)[^\n]*)*")

_EDITED = r"changed|removed|revised|rewrote|rewritten|reworded|rephrased|shortened|replaced"
_TEXT = r"(?:answer|response|summary|reply|version|text)"
_ASKED = r"(?=[^\n]{0,300}\b(?:comments?|reviewer|feedback|you asked|requested)\b)"
_RULE = re.compile(r"\n[ \t]*(?:-{3,}|\*{3,}|_{3,})\s*\Z")
_PARAGRAPH = re.compile(r"(?:\A|\n(?:[ \t]*\n|-{3,}[ \t]*\n|\*{3,}[ \t]*\n|_{3,}[ \t]*\n)+)(?=[ \t]*\S)")
_TURN = re.compile(r"^(?:Human:|Comment:|Revised answer:|To provide more cont)", re.MULTILINE)
_DEFINITION = re.compile(r"Human: an? [a-z]")
_REMARK = re.compile(
    r"[#*_ (\[]{0,8}(?:note:[*_ ]{0,4})?(?:(?:summary of |explanation of )(?:the |my )?(?:changes|edits)\b"
    r"|(?:key |main )?(?:changes|improvements|edits) (?:i )?made\b|what (?:i|was|has been) changed\b"
    rf"|(?:the|this) (?:revised|improved|rewritten) {_TEXT}\b|why (?:this|it) is better\b"
    r"|let me know if you[^\n]{0,40}\b(?:changes|revisions|revise|adjust\w*|edits|modif\w+|tweak\w*)"
    rf"|(?:this (?:revision|rewrite|version)|i(?:['’]ve| have)? (?:{_EDITED}|added|kept|made))\b{_ASKED})",
    re.IGNORECASE,
)
_UNCLEAR = re.compile(
    r"[#*_ (\[]{0,8}(?:note:[*_ ]{0,4})?(?:(?:explanation|(?:key |main )?(?:changes|improvements|edits))[*_]*\s*:"
    rf"|(?:the|this) (?:new|updated) {_TEXT}\b|this is better\b|why (?:this|it) works\b"
    rf"|i(?:['’]ve| have)? (?:{_EDITED})\b)",
    re.IGNORECASE,
)
_SPEAKS_OF_IT = re.compile(r"\bthe (?:original|revised) (?:answer|response|summary)\b", re.IGNORECASE)


def without_announcement(text: str) -> str:
    """Return a text without the announcement that it begins with ("Sure! Here's the revised answer:") and without a
    first paragraph that repeats the question."""
    at = 0
    while (end := _end_of_opening(text, at)) > at:
        at = end
    return text[at:].strip()


def _end_of_opening(text: str, at: int) -> int:
    """Return the end of the announcement or the question that begins at a place, or the place itself."""
    hit = _QUESTION.match(text, at) or _CHINESE.match(text, at) or _HERE.match(text, at)
    if not hit:
        hit = _FIRST_LINE.match(text, at)
        if not hit:
            return at
        words = re.findall(r"[^\W\d_]+(?:['’][^\W\d_]+)?", hit[1].lower().replace("’", "'"))
        known = all(word in _ANNOUNCING or word in _NEW for word in words) and not re.search(r"\d", hit[1])
        if not known or not _NEW.intersection(words) or not _NAMES.intersection(words):
            return at
    dashes = _LINE_OF_DASHES.match(text, hit.end())
    return dashes.end() if dashes else hit.end()


def without_remarks(text: str) -> str:
    """Return a text up to the first paragraph that speaks of the changes, or to another turn. Raises Unparsed for a
    paragraph of which it is not clear whether it belongs to the text."""
    kept = text.strip()
    turn = _TURN.search(kept)
    if turn:
        if _DEFINITION.match(kept, turn.start()):
            raise Unparsed("text or remark")
        kept = kept[: turn.start()].rstrip()
    for start in _PARAGRAPH.finditer(kept):
        if _REMARK.match(kept, start.end()):
            kept = kept[: start.start()].rstrip()
            break
        if start.end() > 0 and _UNCLEAR.match(kept, start.end()):
            raise Unparsed("text or remark")
    if len(kept) < len(text.strip()):
        kept = _RULE.sub("", kept).rstrip()
    if _SPEAKS_OF_IT.search(kept):
        raise Unparsed("text or remark")
    return kept
