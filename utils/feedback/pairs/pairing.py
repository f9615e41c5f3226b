"""Pairs of a chosen and a rejected answer from feedback, and counts of the feedback that gives none."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from utils.parsing import PARSERS, Unparsed
from utils.raw_datasets.feedback_csv import BY_RATING
from utils.records import Answer, Message, Record, Verdict

KINDS = ("preference", "rating", "ranking", "thumb", "critique", "refinement")
PAIRS, TIES, SMALL, SAME, UNCHANGED, WAITING = (
    "pairs", "ties", "gaps below --min_gap", "of one text", "unchanged", "critiques without a new answer",
)  # fmt: skip

# In a record's meta: the answers that a model was asked to rewrite without success, and why.
NOT_IMPROVED = "not_improved"
WORDS = ("prompt-api", "feedback", "feedback-both", NOT_IMPROVED)
PromptKey = tuple[tuple[str, str], ...]


def prompt_key(prompt: Iterable[Message]) -> PromptKey:
    """Return the key by which two records have one prompt."""
    return tuple([(message.role, message.content.strip()) for message in prompt])


@dataclass(frozen=True)
class Pair:
    """A chosen and a rejected answer to one prompt.

    Args:
        prompt: the messages.
        chosen: the better answer.
        rejected: the worse answer.
        kind: the kind of feedback, of KINDS.
        margin: the gap of two ratings, in units of the rating; None for other kinds.
        judge: who compared them, or None.
        order: ab or ba, which the judge saw first, or None.
        meta: the record's, without the words of judges.
        where: file:line, for messages.
    """

    prompt: tuple[Message, ...]
    chosen: Answer
    rejected: Answer
    kind: str
    margin: float | None = None
    judge: str | None = None
    order: str | None = None
    meta: dict[str, Any] = field(default_factory=dict)
    where: str = ""

    @property
    def prompt_key(self) -> PromptKey:
        """The key by which pairs have one prompt."""
        return prompt_key(self.prompt)

    @property
    def facts(self) -> dict[str, Any]:
        """The meta of the written pair."""
        facts = {**self.meta, "kind": self.kind}
        if self.margin is not None:
            facts["margin"] = self.margin
        return facts


@dataclass
class Collected:
    """Pairs of many records. `tally` counts (kind, fate of the feedback); `waiting` are critiques of answers that no
    model has been asked to rewrite yet."""

    pairs: list[Pair] = field(default_factory=list)
    tally: Counter[tuple[str, str]] = field(default_factory=Counter)
    waiting: list[tuple[Record, Answer]] = field(default_factory=list)


def collect(records: Iterable[Record], kinds: Collection[str] = KINDS, min_gap: float = 1.0) -> Collected:
    """Collect every pair that the feedback of the given kinds implies. Answers of one text are never a pair."""
    out, rewritten = Collected(), set()
    for record in records:
        asked = _not_improved(record)
        for number, answer in enumerate(record.answers):
            if answer.critique is not None and (answer.refinement is not None or number in asked):
                rewritten.add((prompt_key(record.prompt), answer.text))
        for kind in kinds:
            for item in _READ[kind](record, min_gap):
                if isinstance(item, Answer):
                    out.waiting.append((record, item))
                elif isinstance(item, str):
                    out.tally[kind, item] += 1
                elif item.chosen.text == item.rejected.text:
                    out.tally[kind, SAME] += 1
                else:
                    out.pairs.append(item)
                    out.tally[kind, PAIRS] += 1
    # Another record of the same prompt and answer may hold the rewritten one.
    out.waiting = [(r, a) for r, a in out.waiting if (prompt_key(r.prompt), a.text) not in rewritten]
    if out.waiting:
        out.tally["critique", WAITING] = len(out.waiting)
    return out


Item = Pair | Answer | str  # a pair, an answer that waits to be rewritten, or the fate of the feedback


def _preferences(record: Record, min_gap: float) -> Iterator[Item]:
    for verdict in record.verdicts:
        # A verdict that follows from ratings is left to them: they know their gap.
        if verdict.judge == BY_RATING:
            continue
        if verdict.preferred == "a":
            yield _pair(record, verdict.a, verdict.b, kind="preference", verdict=verdict)
        elif verdict.preferred == "b":
            yield _pair(record, verdict.b, verdict.a, kind="preference", verdict=verdict)
        elif verdict.preferred == "tie":
            yield TIES
        else:
            yield verdict.preferred


def _ratings(record: Record, min_gap: float) -> Iterator[Item]:
    for a, b in _both_known(record, "rating"):
        gap = record.answers[a].rating - record.answers[b].rating
        if gap == 0:
            yield TIES
        elif abs(gap) < min_gap:
            yield SMALL
        elif gap > 0:
            yield _pair(record, a, b, kind="rating", margin=gap)
        else:
            yield _pair(record, b, a, kind="rating", margin=-gap)


def _rankings(record: Record, min_gap: float) -> Iterator[Item]:
    for a, b in _both_known(record, "rank"):
        # Rank 1 is the best.
        rank_a, rank_b = record.answers[a].rank, record.answers[b].rank
        if rank_a < rank_b:
            yield _pair(record, a, b, kind="ranking")
        elif rank_b < rank_a:
            yield _pair(record, b, a, kind="ranking")
        else:
            yield TIES


def _thumbs(record: Record, min_gap: float) -> Iterator[Item]:
    for a, b in _both_known(record, "thumb"):
        if record.answers[a].thumb == record.answers[b].thumb:
            yield TIES
        elif record.answers[a].thumb:
            yield _pair(record, a, b, kind="thumb")
        else:
            yield _pair(record, b, a, kind="thumb")


def _critiques(record: Record, min_gap: float) -> Iterator[Item]:
    """Yield pairs of a criticised answer and the one that was rewritten as the critique asks."""
    asked = _not_improved(record)
    for number, answer in enumerate(record.answers):
        if answer.critique is not None and answer.refinement is not None:
            yield _rewritten(record, answer, "critique")
        elif answer.critique is not None:
            yield asked.get(number, answer)


def _not_improved(record: Record) -> dict[int, str]:
    """Return {number of an answer: why a model that was asked to rewrite it gave no refinement}."""
    listed, found = record.meta.get(NOT_IMPROVED), {}
    # The meta comes from a file and may hold anything.
    if not isinstance(listed, list):
        return found
    for each in listed:
        if isinstance(each, dict):
            found[each.get("answer")] = str(each.get("why"))
    return found


def _refinements(record: Record, min_gap: float) -> Iterator[Item]:
    for answer in record.answers:
        if answer.critique is None and answer.refinement is not None:
            yield _rewritten(record, answer, "refinement")


_READ = {
    "preference": _preferences,
    "rating": _ratings,
    "ranking": _rankings,
    "thumb": _thumbs,
    "critique": _critiques,
    "refinement": _refinements,
}


def _both_known(record: Record, name: str) -> Iterator[tuple[int, int]]:
    known = [number for number, answer in enumerate(record.answers) if getattr(answer, name) is not None]
    return itertools.combinations(known, 2)


def _pair(
    record: Record, win: int, lose: int, kind: str, margin: float | None = None, verdict: Verdict | None = None
) -> Pair:
    judge = order = None
    if verdict:
        judge, order = verdict.judge, verdict.order
    return Pair(
        prompt=record.prompt,
        chosen=record.answers[win],
        rejected=record.answers[lose],
        kind=kind,
        margin=margin,
        judge=judge,
        order=order,
        meta=_meta(record),
        where=record.where,
    )


def _meta(record: Record) -> dict[str, Any]:
    return {name: value for name, value in record.meta.items() if name not in WORDS}


def _rewritten(record: Record, answer: Answer, kind: str) -> Item:
    """Return the pair of a rewritten answer and the old one, or why there is none."""
    new = answer.refinement.strip()
    if kind == "critique":
        # A model that rewrites by a critique often says more than the answer, which the parser cuts away.
        try:
            new = PARSERS["improve"].parse(answer.refinement)
        except Unparsed as failed:
            return failed.reason
    if new in ("", answer.text.strip()):
        return UNCHANGED
    return Pair(record.prompt, Answer(new), answer, kind, meta=_meta(record), where=record.where)
