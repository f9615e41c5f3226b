"""Kinds of feedback: the questions about a row, and what the replies add to its record.

    result = follow(case, asker, outcome_of)      # result.record: the row with all feedback on it

Another kind is a generator function under @kind, its form of reply in forms.py, and a prompt file.
"""

from utils.feedback import answers, comparisons, lessons  # noqa: F401 (they register)
from utils.feedback.cases import KINDS, Asker, Case, CaseResult, Kind, follow, kind, questions_of
from utils.feedback.prompts import PromptTemplates
from utils.feedback.rows import Choice

__all__ = [
    "KINDS",
    "Asker",
    "Case",
    "Choice",
    "Kind",
    "PromptTemplates",
    "CaseResult",
    "follow",
    "kind",
    "questions_of",
]
