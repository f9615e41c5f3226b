"""The parts of every parser: the registry, the reason of a failure, JSON inside text."""

from __future__ import annotations

import ast
import json
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

# Objects looked for in one reply: a reply of nothing but braces must not take quadratic time.
JSON_TRIES = 50


class Unparsed(Exception):  # noqa: N818 - it is an outcome, counted and listed, not a fault
    """The reply has no single clear value. `reason` is a few words, the same for all replies of one sort."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class Parser:
    """A parser and its version. `parse(text, **arguments)` returns a JSON value or raises Unparsed."""

    version: int
    parse: Callable[..., Any]


PARSERS: dict[str, Parser] = {}


def parser(name: str, version: int) -> Callable:
    """Register a function `parse(text, **arguments)`. The text that it gets has no reasoning and is never empty."""

    def register(parse: Callable[..., Any]) -> Callable[..., Any]:
        PARSERS[name] = Parser(version, lambda text, **arguments: parse(spoken(text), **arguments))
        return parse

    return register


_THOUGHT = re.compile(r"<(/?)(think|thinking|thought|reasoning|analysis)>", re.IGNORECASE)


def spoken(text: str | None) -> str:
    """Return a reply without the reasoning that some models write before it. Raises Unparsed."""
    said, at, thinking = "", 0, False
    text = text or ""
    for tag in _THOUGHT.finditer(text):
        if tag[1] and not thinking:
            # The tag that opens it is the end of the prompt that some models get.
            said = ""
        elif not thinking:
            said += text[at : tag.start()]
        at, thinking = tag.end(), not tag[1]
    if thinking:
        raise Unparsed("reasoning not finished")
    said += text[at:]
    if not said.strip():
        raise Unparsed("empty")
    return said.strip()


def refuse_echo(text: str) -> None:
    """Raise Unparsed for a reply that repeats the prompt."""
    # Prompts hold examples of verdicts, which would be read as the judge's own.
    if re.search(r"^#+ (Task:|Conversation\s*$)", text, re.MULTILINE):
        raise Unparsed("prompt echoed")


_REFUSALS = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"\bI(?:['’]m| am| do| must)?\b(?:\W+\w+)?\W+(?:can(?:no|['’])t|can not|unable to|not able to|won['’]t|will not"
        r"|must decline|decline to)\W+(?!help\W+but\b|give\W+it\b)(?:\w+\W+){0,2}?"
        r"(?:assist|help|comply|provide|fulfil|answer|respond|rate|judge|compare|rank|evaluate|continue|engage|do|choose|comment|discuss|create|complete|offer|give"
        r"|rewrite|participate|grade|score)\b",
        r"\bI(?:['’]m| am| do|)\b(?: not|n['’]t) (?:feel )?comfortable\b",
        r"\b(?:kann|darf|werde|möchte)\b[^.\n]{0,60}\b(?:nicht|keine?n?)\b[^.\n]{0,40}\b(?:helfen|bewerten|beurteilen"
        r"|beantworten|vergleichen|weiterhelfen|entsprechen)",
        r"\bje (?:ne peux|ne suis) pas\b[^.\n]{0,40}\b(?:aider|répondre|évaluer|noter|comparer|mesure)",
        r"\bno puedo\b[^.\n]{0,20}\b(?:ayudar|responder|evaluar|calificar|comparar|cumplir)",
        r"(?:我|抱歉|对不起)[^。\n]{0,10}(?:无法|不能)[^。\n]{0,6}(?:协助|帮|提供|回答|评|比较|完成)",
    )
)
_QUOTED = re.compile(r"[\"“«][^\"“”«»\n]*[\"”»]")


def is_refusal(text: str) -> bool:
    """Return whether a short reply says in its first words that the model will not do it."""
    # A long reply that opens with such words goes on to answer, as "I cannot compare them fully, but …".
    if len(text) >= 600:
        return False
    opening = _QUOTED.sub("", text)[:160]
    return any(refusal.search(opening) for refusal in _REFUSALS)


def missing(text: str, what: str) -> Unparsed:
    """Return the reason why a reply has no verdict of the sort `what`."""
    if is_refusal(text):
        return Unparsed("refusal")
    return Unparsed(f"no {what}")


class _TwiceError(ValueError):
    """One key of a JSON object with two values."""


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for key, value in pairs:
        if made.setdefault(key, value) != value:
            raise _TwiceError(key)
    return made


def _no_constant(name: str) -> None:
    raise Unparsed("not a number")


_DECODER = json.JSONDecoder(object_pairs_hook=_pairs, parse_constant=_no_constant)


def without_fence(text: str) -> str:
    """Return the inside of a code fence if the text has just one, else the text."""
    fences = re.findall(r"```[\w-]*[ \t]*\n?(.*?)```", text, re.DOTALL)
    if len(fences) != 1:
        return text
    (inside,) = fences
    return inside.strip()


def json_value(text: str) -> Any:
    """Read the text as one JSON value, in a fence or not, or as the same in Python's spelling. Raises Unparsed."""
    text = without_fence(text)
    start = re.search(r"[\[{]", text)
    if start:
        text = text[start.start() :].strip()
    try:
        value, end = _DECODER.raw_decode(text)
        if re.search(r"[\[{]", text[end:]):
            raise Unparsed("different JSON values")
        return value
    except _TwiceError as key:
        raise Unparsed("a key twice") from key
    except (ValueError, RecursionError):
        return _python_value(text)


def _python_value(text: str) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)
            value = ast.literal_eval(text)
        json.dumps(value, allow_nan=False)
        return value
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        raise Unparsed("not JSON") from None


def take_objects(text: str) -> tuple[list[dict[str, Any]], str]:
    """Return the JSON objects in a text, and the text without them. Raises Unparsed where one contradicts itself."""
    found, rest, at = [], "", 0
    for _ in range(JSON_TRIES):
        start = text.find("{", at)
        if start < 0:
            break
        rest += text[at:start]
        value, at = _object_at(text, start)
        if value is None:
            rest += "{"
        else:
            found.append(value)
    return found, rest + text[at:]


def _object_at(text: str, start: int) -> tuple[dict[str, Any] | None, int]:
    """Return (the object that begins at `start`, its end), or (None, start + 1) if there is none."""
    try:
        return _DECODER.raw_decode(text, start)
    except _TwiceError as key:
        raise Unparsed("a key twice") from key
    except (ValueError, RecursionError):
        end = text.find("}", start) + 1
    try:
        value = _python_value(text[start:end])
    except Unparsed:
        return None, start + 1
    if not isinstance(value, dict):
        return None, start + 1
    return value, end


def named(objects: list[dict[str, Any]], names: tuple[str, ...]) -> list[Any]:
    """Return the values under any of `names`, in any case, of all objects."""
    found = []
    for each in objects:
        for key, value in each.items():
            if str(key).strip().lower() in names:
                found.append(value)
    return found
