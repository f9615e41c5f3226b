"""What was asked of the judges and what it cost, how long every step took, and where the files are."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from utils.report.page.words import NOT_RUN, name_of, paragraph, table

ORACLE = "oracle"  # the name under which run.sh asks the built-in oracle
KINDS = {"critique": "critique", "improve": "improved answer", "preference": "comparison", "rating": "rating"}
PAIRS_OF = {"improve": "critique"}  # a parser's name -> the kind of its pairs in stats.json, where it is another
LONGEST_BAR = 14  # rem: the bar of the step that took longest


def feedback(found: Mapping[str, Any]) -> str:
    """Return the section of requests, tokens and money by model, and of replies and pairs by kind."""
    if not found:
        return NOT_RUN
    rows = []
    for name, model in found["models"].items():
        rows.append((
            html.escape(name), f"{model['requests']:,}", f"{model['answered']:,}", f"{model['input_tokens']:,}",
            f"{model['output_tokens']:,}", _money(name, model["usd"]),
        ))  # fmt: skip
    head = ("model", "requests", "answered", "tokens in", "tokens out", "US dollars")
    text = "Every request is in the ledger, asked/ledger, and is never paid for twice."
    few = "There are fewer pairs than replies: ties, duplicates and verdicts on test prompts give none."
    if found["possibly_billed"]:
        text += f" {found['possibly_billed']:,} attempts got no answer and may have been billed."
    if ORACLE in found["models"]:
        text += " The built-in oracle is a program on this machine and costs nothing."
    kinds = []
    for kind, row in found["parsers"].items():
        name, pairs = html.escape(KINDS.get(kind, kind)), _pairs(kind, found["pairs"])
        kinds.append((name, f"{row['parsed']:,}", f"{row['unparsed']:,}", pairs))
    parsed = table(("kind of feedback", "replies read", "unreadable", "pairs for training"), kinds)
    return paragraph(text) + table(head, rows, optional=(2,)) + parsed + paragraph(few, "aside")


def _money(model: str, usd: float | None) -> str:
    if usd is None:
        return "0" if model == ORACLE else "price not known"
    if 0 < usd < 1:
        # Cents, and parts of them: two decimals would show most runs as 0.00.
        return f"{usd:.2g}"
    return f"{usd:,.2f}"


def _pairs(kind: str, pairs: Mapping[str, int]) -> str:
    # A critique alone makes no pair: stats.json counts those that its improved answer made under its name.
    number = None
    if kind != "critique":
        number = pairs.get(PAIRS_OF.get(kind, kind))
    if number is None:
        return "–"
    return f"{number:,}"


def times(seconds: Mapping[str, int]) -> str:
    """Return the section of the wall time of every step of run.sh."""
    if not seconds:
        return NOT_RUN
    # Whole seconds: all the steps so far may have taken 0 of them.
    longest, total = max(seconds.values()) or 1, sum(seconds.values())
    rows = []
    for name, taken in seconds.items():
        bar = f'<span class="bar" style="width:{LONGEST_BAR * taken / longest:.2f}rem"></span>'
        rows.append((name_of(name), f"{taken} s", bar))
    rows.append(("in all", f"{total // 60} min {total % 60} s", ""))
    return paragraph("Wall time of every step of run.sh.") + table(("step", "time", ""), rows)


def files(found: Mapping[str, Sequence[str]]) -> str:
    """Return the section of links to the files beside the page."""
    if not found:
        return NOT_RUN
    rows = ""
    for name, paths in found.items():
        rows += f"<dt>{name_of(name)}</dt><dd>{', '.join(map(_link, paths))}</dd>"
    return paragraph("Links to the files that this page was made from, in the page's own folder.") + f"<dl>{rows}</dl>"


def _link(path: str) -> str:
    return f'<a href="{quote(path)}">{html.escape(path.split("/")[-1])}</a>'
