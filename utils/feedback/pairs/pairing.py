"""What feedback says of two answers to one prompt: pairs, and what became of the feedback that gives none."""

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

NOT_IMPROVED = "not_improved"  # in a record's meta: the answers that a model was asked to rewrite, to no avail, and why
WORDS = ("prompt-api", "feedback", "feedback-both", NOT_IMPROVED)
PromptKey = tuple[tuple[str, str], ...]


def prompt_key(prompt: Iterable[Message]) -> PromptKey:
    """What two records of one prompt share."""
    return tuple((message.role, message.content.strip()) for message in prompt)


@dataclass(frozen=True)
class Pair:
    """`margin`: the gap of a rating, in its own units. `meta` is the record's, without the words of judges."""

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
        return prompt_key(self.prompt)

    @property
    def facts(self) -> dict[str, Any]:
        """The meta of the written pair."""
        return {**self.meta, "kind": self.kind, **({} if self.margin is None else {"margin": self.margin})}


@dataclass
class Collected:
    """Pairs of many records. `tally` counts (kind, what became of it); `waiting` are critiques of answers that no model
    has been asked to rewrite yet."""

    pairs: list[Pair] = field(default_factory=list)
    tally: Counter[tuple[str, str]] = field(default_factory=Counter)
    waiting: list[tuple[Record, Answer]] = field(default_factory=list)


def collect(records: Iterable[Record], kinds: Collection[str] = KINDS, min_gap: float = 1.0) -> Collected:
    """Every pair that the feedback of the given kinds implies. Answers of one text are never a pair."""
    out, rewritten = Collected(), set()
    for record in records:
        asked = _not_improved(record)
        answers = [
            a
            for n, a in enumerate(record.answers)
            if a.critique is not None and (a.refinement is not None or n in asked)
        ]
        rewritten |= {(prompt_key(record.prompt), answer.text) for answer in answers}
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
    out.waiting = [(r, a) for r, a in out.waiting if (prompt_key(r.prompt), a.text) not in rewritten]
    if out.waiting:
        out.tally["critique", WAITING] = len(out.waiting)
    return out


Item = Pair | Answer | str  # a pair, an answer that waits to be rewritten, or what became of the feedback


def _preferences(record: Record, min_gap: float) -> Iterator[Item]:
    for v in record.verdicts:
        if v.judge == BY_RATING:  # the ratings say it themselves, with their gap
            continue
        if v.preferred in ("a", "b"):
            yield _pair(record, *((v.a, v.b) if v.preferred == "a" else (v.b, v.a)), "preference", verdict=v)
        else:
            yield {"tie": TIES}.get(v.preferred, v.preferred)


def _ratings(record: Record, min_gap: float) -> Iterator[Item]:
    for a, b in _both_known(record, "rating"):
        gap = record.answers[a].rating - record.answers[b].rating
        if gap == 0 or abs(gap) < min_gap:
            yield SMALL if gap else TIES
        else:
            yield _pair(record, *((a, b) if gap > 0 else (b, a)), "rating", margin=abs(gap))


def _rankings(record: Record, min_gap: float) -> Iterator[Item]:
    for a, b in _both_known(record, "rank"):
        gap = record.answers[b].rank - record.answers[a].rank  # rank 1 is the best
        yield _pair(record, *((a, b) if gap > 0 else (b, a)), "ranking") if gap else TIES


def _thumbs(record: Record, min_gap: float) -> Iterator[Item]:
    for a, b in _both_known(record, "thumb"):
        up = record.answers[a].thumb
        yield TIES if up == record.answers[b].thumb else _pair(record, *((a, b) if up else (b, a)), "thumb")


def _critiques(record: Record, min_gap: float) -> Iterator[Item]:
    """By way of the answer that was rewritten as the critique asks."""
    asked = _not_improved(record)
    for number, answer in enumerate(record.answers):
        if answer.critique is not None and answer.refinement is not None:
            yield _rewritten(record, answer, "critique")
        elif answer.critique is not None:
            yield asked.get(number, answer)


def _not_improved(record: Record) -> dict[int, str]:
    """Why an answer that a model was asked to rewrite has no refinement, by the answer's number."""
    told = record.meta.get(NOT_IMPROVED)
    told = [each for each in told if isinstance(each, dict)] if isinstance(told, list) else []
    return {each.get("answer"): str(each.get("why")) for each in told}


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
    judge, order = (verdict.judge, verdict.order) if verdict else (None, None)
    chosen, rejected = record.answers[win], record.answers[lose]
    return Pair(record.prompt, chosen, rejected, kind, margin, judge, order, _meta(record), record.where)


def _meta(record: Record) -> dict[str, Any]:
    return {name: value for name, value in record.meta.items() if name not in WORDS}


def _rewritten(record: Record, answer: Answer, kind: str) -> Item:
    """The new answer is better than the old one, unless it is the same. A model that rewrites by a critique says more
    than the answer, which is cut away."""
    try:
        new = PARSERS["improve"].parse(answer.refinement) if kind == "critique" else answer.refinement.strip()
    except Unparsed as failed:
        return failed.reason
    if new in ("", answer.text.strip()):
        return UNCHANGED
    return Pair(record.prompt, Answer(new), answer, kind, meta=_meta(record), where=record.where)
