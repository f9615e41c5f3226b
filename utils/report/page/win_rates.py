"""Win rates: a table a judge, every set of answers against every other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from utils.report.page.words import NOT_RUN, name_of, paragraph, table

JUDGES = {"oracle": "by the oracle", "reward_model": "by the reward model"}
CAUTION = (
    "The reward model has chosen best-of-n's answers and trained PPO, so it rates both too high; the oracle's rates "
    "show by how much."
)


def win_rates(found: Mapping[str, Any]) -> str:
    """Return the section of win rates: a table a judge, the answers of a row against those of a column."""
    if not found:
        return NOT_RUN
    text = (
        "How often an answer of the row beats one of the column to the same prompt, over all pairs of their answers; "
        "equal counts half. 95 % intervals over prompts."
    )
    body = paragraph(text)
    for judge, title in JUDGES.items():
        rates = found.get(judge, {})
        rows = []
        for name in rates:
            cells = [name_of(name)]
            for other in rates:
                cells.append("" if other == name else _percent(rates[name][other]))
            rows.append(cells)
        if rows:
            body += table((title, *map(name_of, rates)), rows)
    if "reward_model" in found:
        body += paragraph(CAUTION)
    return body


def _percent(estimate: Mapping[str, Any]) -> str:
    rate = f"{estimate['value']:.1%}"
    if estimate["low"] is None:
        return rate
    return f'{rate} <span class="bounds">[{estimate["low"]:.1%}, {estimate["high"]:.1%}]</span>'
