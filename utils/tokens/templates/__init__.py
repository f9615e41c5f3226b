"""Records to tokens: prompt templates, one renderer for every program, cutting to length.

A row is chosen from a record, rendered as text, encoded as tokens, and cut to length:

    renderer = Renderer(tokenizer, "human_assistant")  # or None: the tokenizer's own chat template
    row = choose(record, "comparisons", tally)
    group = fit(renderer, row, renderer.group(*row), limits=LengthLimits.of(data), tally=tally)
"""

from utils.tokens.templates.choosing import Kind, Row, Tally, choose
from utils.tokens.templates.coloured_example import coloured
from utils.tokens.templates.fitting import LengthLimits, fit
from utils.tokens.templates.knowledge import feedback_of
from utils.tokens.templates.rendering import Rendered, Renderer
from utils.tokens.templates.wording import TEMPLATES, Template

__all__ = [
    "TEMPLATES",
    "Kind",
    "LengthLimits",
    "Rendered",
    "Renderer",
    "Row",
    "Tally",
    "Template",
    "choose",
    "coloured",
    "feedback_of",
    "fit",
]
