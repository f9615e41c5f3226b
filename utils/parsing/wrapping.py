"""What models write around a text that they were asked for: announcements before it, remarks on the changes after it."""

from __future__ import annotations

import re

from utils.parsing.base import Unparsed

_YES = (
    r"(?:(?:sure|certainly|of course|absolutely|okay|ok|great|thanks|thank you|understood|natürlich|gerne?|klar|bien sûr"
    r"|certainement|d['’]accord|¡?claro(?: que sí)?|por supuesto|好的|当然)(?: thing)?[ \t]*[!！.,，。]+[ \t]*)?"
)
_NEW = r"(?:revised|improved|rewritten|new|updated|better|corrected|refined|edited|modified|reworked|enhanced|shortened)"
_TEXT = r"(?:answer|response|summary|reply|version|text)"
_ANNOUNCEMENTS = (
    rf"(?:here is|here['’]s|here you go, the|below is|this is|the following is)(?: (?:my|the|a|an))?(?: [\w-]+){{0,2}}? "
    rf"(?:{_NEW}(?: and \w+)?(?: {_TEXT})|rewrite|revision)\b[^:\n.]{{0,120}}(?:[:.]|\Z|(?=\n))",
    rf"(?:(?:my|the) )?{_NEW} {_TEXT}(?:\s*:|\s*(?=\n|\Z))",
    r"hier (?:ist|kommt) (?:die|eine|meine) (?:überarbeitete|verbesserte|neue|korrigierte|bessere) (?:antwort|version|fassung"
    r"|zusammenfassung)[^:\n.]{0,120}:",
    r"(?:überarbeitete|verbesserte|neue) (?:antwort|fassung|zusammenfassung)\s*:",
    r"voici (?:la|une|ma|le|un) (?:nouvelle |nouveau )?(?:réponse|version|résumé) (?:révisée?|améliorée?|corrigée?|réécrite?)"
    r"[^:\n.]{0,120}:",
    r"(?:réponse|version|résumé) (?:révisée?|améliorée?|corrigée?)\s*:",
    r"aquí (?:está|tienes|tiene|va) (?:la|una|mi|el|un) (?:respuesta|versión|resumen) (?:revisad|mejorad|corregid)[oa]"
    r"[^:\n.]{0,120}:",
    r"(?:respuesta|versión|resumen) (?:revisad|mejorad|corregid)[oa]\s*:",
    r"(?:以下是|这是)?(?:修改|改进|修订|改写|优化)后的(?:回答|版本|答案|摘要)\s*[:：]",
)
_EDITED = r"changed|removed|revised|rewrote|rewritten|reworded|rephrased|shortened|replaced"
# Headings and emphasis may surround an announcement: "**Revised answer:**".
_ANNOUNCED = re.compile(
    rf"\s*[#*_ ]{{0,8}}{_YES}[*_]{{0,3}}(?:{'|'.join(_ANNOUNCEMENTS)})[*_]{{0,3}}[ \t]*(?:\n\s*(?:-{{3,}}|\*{{3,}}|_{{3,}})[ \t]*(?:\n|\Z))?",
    re.IGNORECASE,
)
_QUESTION = re.compile(r"\s*Human:[^\n]*(?:\n(?![ \t]*\n)[^\n]*)*")
_RULE = re.compile(r"\n[ \t]*(?:-{3,}|\*{3,}|_{3,})\s*\Z")
_PARAGRAPH = re.compile(r"(?:\A|\n(?:[ \t]*\n|-{3,}[ \t]*\n|\*{3,}[ \t]*\n|_{3,}[ \t]*\n)+)(?=[ \t]*\S)")
# Another turn, or a comment, begins; a definition ("Human: a member of …") goes on in a small letter.
_TURN = re.compile(r"^(?:Human:(?!\s*[a-z])|Comment:|Revised answer:|To provide more cont)", re.MULTILINE)
_ASKED = r"(?=[^\n]{0,300}\b(?:comments?|reviewer|feedback|you asked|requested)\b)"
_REMARK = re.compile(
    r"[#*_ ]{0,8}(?:(?:summary of |explanation of )(?:the )?(?:changes|edits)\b|(?:key |main )?(?:changes|improvements|edits)"
    rf" made\b|what (?:i|was|has been) changed\b|(?:the|this) (?:revised|improved|rewritten) {_TEXT}\b"
    rf"|(?:this (?:revision|rewrite|version)|i(?:['’]ve| have)? (?:{_EDITED}|added|kept|made))\b{_ASKED})",
    re.IGNORECASE,
)
_UNCLEAR = re.compile(
    r"[#*_ ]{0,8}(?:explanation|(?:key |main )?(?:changes|improvements|edits))[*_]*\s*:|(?:the|this) (?:new|updated) "
    rf"(?:answer|response|summary)\b|i(?:['’]ve| have)? (?:{_EDITED})\b",
    re.IGNORECASE,
)
_SPEAKS_OF_IT = re.compile(r"\bthe (?:original|revised) (?:answer|response|summary)\b", re.IGNORECASE)


def without_announcement(text: str) -> str:
    """Return a text without the announcement that it begins with ("Sure! Here's the revised answer:") and without a
    first paragraph that repeats the question."""
    at = 0
    while hit := _QUESTION.match(text, at) or _ANNOUNCED.match(text, at):
        at = hit.end()
    return text[at:].strip()


def without_remarks(text: str) -> str:
    """Return a text up to the first paragraph that speaks of the changes, or to another turn. Raises Unparsed for a
    paragraph of which it is not clear whether it belongs to the text."""
    kept = text.strip()
    turn = _TURN.search(kept)
    if turn:
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
