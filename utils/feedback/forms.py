"""Forms of replies: in words for the prompt, as a JSON schema for servers that keep to one, and the parser that reads
both."""

from __future__ import annotations

import string
from dataclasses import dataclass
from typing import Any

from utils.errors import UserError

NOUNS = {"dialogue": "response", "question": "answer", "summary": "summary"}
CHOICES = ("A", "B", "C")


@dataclass(frozen=True)
class Form:
    """The form of a reply. `words` and `json_words` may hold $low, $high, $number and $noun. Without `json_words` the
    reply is free text, or is JSON in any case, and structured outputs are not offered."""

    parser: str
    words: str
    json_words: str | None = None

    def reply(self, structured: bool, **values: object) -> str:
        """Return the words for the prompt; `values` are those of the places."""
        words = self.words
        if structured:
            words = self.json_words
        return string.Template(words).substitute(values)


FORMS = {
    "rating": Form(
        "rating",
        "One line: `Rating: N`, where N is $number from $low to $high.",
        'One JSON object: {"rating": N}, where N is $number from $low to $high.',
    ),
    "preference": Form(
        "preference",
        "One line: `Answer: A` if A is better, `Answer: B` if B is better, `Answer: C` if they are equal in worth.",
        'One JSON object: {"preference": X}, where X is "A" if A is better, "B" if B is better, "C" if they are equal '
        "in worth.",
    ),
    # There is no order as an example: a reply that repeats it would be read as the judge's own.
    "order": Form(
        "order",
        "One line: `Order: ` and then every letter once, the best first, with > between a better and a worse one and = "
        "between two that are equally good.",
        'One JSON object: {"order": X}, where X is a text of every letter once, the best first, with > between a '
        "better and a worse one and = between two that are equally good.",
    ),
    "explain": Form(
        "explain",
        "One line: `Answer: A`, `Answer: B` or `Answer: C`.",
        'One JSON object: {"explain": X}, where X is "A", "B" or "C".',
    ),
    "critique": Form("critique", "The comment alone, in a few plain sentences."),
    "refinement": Form(
        "refinement",
        "Say first, if you like, what you change and why. Then write `A better $noun is:` and after it the new $noun, "
        "nothing else.",
    ),
    "improve": Form("improve", "The new $noun alone: nothing before it, nothing after it."),
    "problem": Form(
        "problem",
        'One JSON object: {"Problem": text, "SubProblems": [{"Question": text, "Answer": text, "Hint": text, '
        '"Incorrect Response": text, "Feedback": text}, and so on], "Facts": [texts], "Solution": text}.',
    ),
    "conversation": Form(
        "conversation",
        'One JSON list of turns, each {"Student": text, "Thoughts of Tutorbot": text, '
        '"Evaluation of Student Response": code, "Action Based on Evaluation": code, "Subproblem State": code, '
        '"Subproblem": text, "Tutorbot": text}.',
    ),
}
STRUCTURED = tuple(name for name, form in FORMS.items() if form.json_words)
FORM_OF_PROMPT = {"explain-comment": "explain"}  # kinds of prompt that share another's form

# The places that a prompt of each kind must have. A file under data_collect/prompts/ begins with one of these names.
MATERIAL = {
    "rating": ("conversation", "answer", "low", "high", "reply"),
    "preference": ("conversation", "answers", "reply"),
    "order": ("conversation", "answers", "count", "reply"),
    "explain": ("conversation", "answers", "reply"),
    "explain-comment": ("conversation", "answer", "comment", "reply"),
    "critique": ("conversation", "answer", "reply"),
    "refinement": ("conversation", "answer", "reply"),
    "improve": ("conversation", "answer", "comment", "reply"),
    "problem": ("objective", "reply"),
    "conversation": ("objective", "problem", "reply"),
}


def schema_of(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the JSON schema of a structured reply; `arguments` are the parser's."""
    if name == "rating":
        low, high = arguments["low"], arguments["high"]
        value = {"type": "number", "minimum": low, "maximum": high}
        if isinstance(low, int) and isinstance(high, int):
            value["type"] = "integer"
    elif name == "order":
        # A pattern for every permutation would be too long for the servers; the parser checks it.
        value = {"type": "string"}
    else:
        value = {"type": "string", "enum": list(CHOICES)}
    return {"type": "object", "properties": {name: value}, "required": [name], "additionalProperties": False}


def scale_of(text: str) -> tuple[float | int, float | int]:
    """Read (lowest, highest) from a text such as `1,7`; whole numbers become int. Raises UserError."""
    try:
        low, high = (float(word) for word in text.split(","))
    except ValueError:
        low, high = 0.0, 0.0
    if not low < high < float("inf") or low == -float("inf"):
        raise UserError(f"--scale is {text!r}; expected the lowest and the highest rating, as 1,7")
    if low.is_integer():
        low = int(low)
    if high.is_integer():
        high = int(high)
    return low, high
