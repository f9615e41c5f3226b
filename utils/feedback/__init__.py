"""Kinds of feedback: what is asked about a row, and what the replies add to its record.

    told = follow(case, asker, outcome_of)      # told.record: the row with all that is known of it

Another kind is a generator function under @kind, its form of reply in forms.py, and a prompt file.
"""

from utils.feedback import answers, comparisons, lessons  # noqa: F401 (they register)
from utils.feedback.cases import KINDS, Asker, Case, Kind, Told, follow, kind, questions_of
from utils.feedback.prompts import Prompts
from utils.feedback.rows import Choice

__all__ = ["KINDS", "Asker", "Case", "Choice", "Kind", "Prompts", "Told", "follow", "kind", "questions_of"]
