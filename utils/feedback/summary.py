"""Counts of the outcomes of a run of feedback, and the lines that show them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from utils.feedback.cases import CaseResult
from utils.feedback.comparisons import BY_ORDER

SHOWN = 3  # rows named for each reason


class ResultsSummary:
    """The outcomes of all questions, the rows without a value and why, and the share that the answer shown first
    won."""

    def __init__(self) -> None:
        self.states: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self._rows: dict[str, list[str]] = {}  # the first rows of each reason
        self._alike, self._pairs, self._first, self._decided = 0, 0, 0, 0
        self._aspects: dict[str, Counter[str]] = {}

    def watch(self, results: Iterable[CaseResult]) -> Iterator[CaseResult]:
        """Count results and pass them on."""
        for result in results:
            self._add(result)
            yield result

    def _add(self, result: CaseResult) -> None:
        case, record = result.case, result.record
        for outcome in result.outcomes:
            self.states[outcome.state] += 1
            if outcome.state != "parsed":
                what = outcome.state
                if outcome.reason:
                    what += f": {outcome.reason}"
                self.reasons[what] += 1
                rows = self._rows.setdefault(what, [])
                # One row more than is shown, by which `lines` knows that there are others.
                if len(rows) <= SHOWN and case.record.where not in rows:
                    rows.append(case.record.where)
        # Verdicts that the row had before are not this run's.
        before, after = case.record.meta.get(BY_ORDER, []), record.meta.get(BY_ORDER, [])
        for pair in after[len(before) :]:
            self._pairs += 1
            self._alike += pair["ab"] == pair["ba"]
            self._decided += (pair["ab"] in ("a", "b")) + (pair["ba"] in ("a", "b"))
            self._first += (pair["ab"] == "a") + (pair["ba"] == "b")
        if case.kind == "explain":
            for found in record.meta.get("explain", []):
                name = (case.source or record.meta).get("feedback_type") or found["of"]
                self._aspects.setdefault(str(name), Counter())[found["aspect"] or "unparsed"] += 1

    def lines(self) -> list[str]:
        """Return the lines to print."""
        states = ", ".join(f"{count} {state}" for state, count in self.states.most_common()) or "none"
        lines = [f"{self.states.total()} questions: {states}"]
        for what, count in self.reasons.most_common():
            rows = self._rows[what]
            shown = ", ".join(rows[:SHOWN])
            if len(rows) > SHOWN:
                shown += ", …"
            lines.append(f"  {count} {what} ({shown})")
        if self._decided:
            lines.append(f"both orders: {self._alike} of {self._pairs} pairs judged alike; the answer shown first won "
                         f"{self._first} of {self._decided}")  # fmt: skip
        for name, counts in self._aspects.items():
            shown = [f"{aspect} {counts[aspect]}" for aspect in ("A", "B", "C", "unparsed") if counts[aspect]]
            lines.append(f"{name}: {', '.join(shown)}")
        return lines
