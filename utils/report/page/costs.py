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


def feedback(found: Mapping[str, Any]) -> str:
    """The section: requests, tokens and money by model; replies and pairs by kind."""
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
    kinds = [
        (html.escape(KINDS.get(kind, kind)), f"{row['parsed']:,}", f"{row['unparsed']:,}", _pairs(kind, found["pairs"]))
        for kind, row in found["parsers"].items()
    ]
    parsed = table(("kind of feedback", "replies read", "unreadable", "pairs for training"), kinds)
    return paragraph(text) + table(head, rows, optional=(2,)) + parsed + paragraph(few, "aside")


def _money(model: str, usd: float | None) -> str:
    if usd is None:
        return "0" if model == ORACLE else "price not known"
    return f"{usd:,.2f}" if usd >= 1 or not usd else f"{usd:.2g}"


def _pairs(kind: str, pairs: Mapping[str, int]) -> str:
    number = pairs.get(PAIRS_OF.get(kind, kind)) if kind != "critique" else None  # a critique alone makes no pair
    return "–" if number is None else f"{number:,}"


def times(seconds: Mapping[str, int]) -> str:
    """The section: wall time of every step of run.sh."""
    if not seconds:
        return NOT_RUN
    longest, total = max(seconds.values()) or 1, sum(seconds.values())
    bar = lambda s: f'<span class="bar" style="width:{14 * s / longest:.2f}rem"></span>'  # noqa: E731
    rows = [(name_of(name), f"{s} s", bar(s)) for name, s in seconds.items()]
    rows.append(("in all", f"{total // 60} min {total % 60} s", ""))
    return paragraph("Wall time of every step of run.sh.") + table(("step", "time", ""), rows)


def files(found: Mapping[str, Sequence[str]]) -> str:
    """The section: links to the files beside the page."""
    if not found:
        return NOT_RUN
    link = lambda path: f'<a href="{quote(path)}">{html.escape(path.split("/")[-1])}</a>'  # noqa: E731
    rows = "".join(f"<dt>{name_of(name)}</dt><dd>{', '.join(map(link, paths))}</dd>" for name, paths in found.items())
    return paragraph("Links to the files that this page was made from, in the page's own folder.") + f"<dl>{rows}</dl>"
