"""How far the scores of a reward model can be trusted, from judged pairs of scored answers.

Legend: N pairs, A answers; a pair's gap is the score of the better answer less that of the worse one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from utils.records.files import record_from_json
from utils.statistics import calibration, calibration_bins, mean_interval, wilson_interval

LEAST = 8  # pairs, below which quarters say nothing


@dataclass
class JudgedScores:
    """Scores of answers, and what was judged of them."""

    scores: list[float] = field(default_factory=list)  # [A]
    lengths: list[int] = field(default_factory=list)  # [A] characters
    prompts: list[int] = field(default_factory=list)  # [A] the number of the row
    gaps: list[float] = field(default_factory=list)  # [N]
    longer: list[int] = field(default_factory=list)  # [N] characters of the better answer less those of the worse
    sources: list[str] = field(default_factory=list)  # [N]

    @classmethod
    def of(cls, rows: Iterable[dict[str, Any]], scorer: str, sources: Sequence[str]) -> JudgedScores:
        """Return the scored rows of rw_eval.py. scorer: the name of the scores in the answers of records; sources: of
        each row the data set."""
        found = cls()
        for number, row in enumerate(rows):
            known = [answer["scores"][scorer] for answer in row.get("answers", [])]
            if not known:
                found.scores += [row[name] for name in row if name == "score" or name.endswith("_score")]
                continue
            lengths = [len(answer["text"]) for answer in row["answers"]]
            found.scores += known
            found.lengths += lengths
            found.prompts += [number] * len(known)
            for won, lost in record_from_json(row, "").pairs():
                found.gaps.append(known[won] - known[lost])
                found.longer.append(lengths[won] - lengths[lost])
                found.sources.append(sources[number])
        return found

    def to_json(self) -> dict[str, Any]:
        """Return the mean score and, of pairs, accuracy, margin, calibration and their dependence on length."""
        score = {"score": mean_interval(self.scores).to_json()}
        if not self.gaps:
            return score
        gaps_N, longer_N = np.asarray(self.gaps), np.asarray(self.longer)
        right_N = (gaps_N > 0) + 0.5 * (gaps_N == 0)  # a tie counts as half
        sure_N = confidence(gaps_N)
        brier, ece = calibration(sure_N, right_N)
        found = {
            **score,
            "accuracy": _share(right_N),
            "margin": mean_interval(self.gaps).to_json(),
            "brier": brier,
            "ece": ece,
            "calibration": calibration_bins(sure_N, right_N),
            "temperature": fitted_temperature(self.gaps),
            "by_margin": _quarters(np.abs(gaps_N), right_N),
            "by_length": {
                "better is longer": _share(right_N[longer_N > 0]),
                "better is shorter": _share(right_N[longer_N < 0]),
                "equal": _share(right_N[longer_N == 0]),
                "quarters": _quarters(longer_N, right_N),
            },
            "by_source": {},
            "length_correlation": self._correlation(),
        }
        for source in dict.fromkeys(self.sources):
            found["by_source"][source] = _share(right_N[np.asarray(self.sources) == source])
        if found["temperature"]:
            found["ece_at_temperature"] = calibration(confidence(gaps_N / found["temperature"]), right_N).ece
        return found

    def _correlation(self) -> dict[str, float | None]:
        """Return Pearson's correlation of score and length over all answers, and within prompts: of what differs from
        the mean of the prompt's answers."""
        scores_A, lengths_A = np.asarray(self.scores[: len(self.lengths)]), np.asarray(self.lengths, float)
        _, prompt_of_A = np.unique(self.prompts, return_inverse=True)
        counts_P = np.bincount(prompt_of_A)
        centred = []
        for values_A in (scores_A, lengths_A):
            centred.append(values_A - (np.bincount(prompt_of_A, values_A) / counts_P)[prompt_of_A])
        return {"over_all": _pearson(scores_A, lengths_A), "within_prompts": _pearson(*centred)}


def confidence(gaps_N: np.ndarray) -> np.ndarray:
    """Return σ(|gap|), how sure the model is of its winner; beyond 500 it is 1 in any case."""
    return 1 / (1 + np.exp(-np.minimum(np.abs(gaps_N), 500)))


def fitted_temperature(gaps: Sequence[float]) -> float | None:
    """Return the T > 0 that minimises the mean of −log σ(gap / T) (Guo et al. 2017, arXiv:1706.04599): above 1 the
    model is too sure of itself. None where there is no such T: all gaps are right, or their mean is not above 0."""
    gaps_N = np.asarray(gaps, np.float64)
    if np.all(gaps_N >= 0) or gaps_N.mean() <= 0:
        return None

    def slope(inverse: float) -> float:
        """Return the derivative of the mean by 1/T, which grows with 1/T: the mean is convex in it."""
        return -float(np.mean(gaps_N / (1 + np.exp(np.clip(inverse * gaps_N, -500, 500)))))

    low, high = 0.0, 1.0
    while slope(high) < 0:
        high *= 2
    for _ in range(60):  # halvings leave nothing of float64
        middle = (low + high) / 2
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    return 2 / (low + high)


def _share(right_N: np.ndarray) -> dict[str, Any]:
    return wilson_interval(float(right_N.sum()), len(right_N)).to_json()


def _quarters(values_N: np.ndarray, right_N: np.ndarray) -> list[dict[str, Any]]:
    """Return the share that is right in each quarter of the pairs by value, the lowest first; nothing of few pairs."""
    if len(values_N) < LEAST:
        return []
    found = []
    for part in np.array_split(np.argsort(values_N, kind="stable"), 4):
        ends = {"from": float(values_N[part[0]]), "to": float(values_N[part[-1]])}
        found.append({**ends, "accuracy": _share(right_N[part])})
    return found


def _pearson(x_A: np.ndarray, y_A: np.ndarray) -> float | None:
    spread = float(np.std(x_A) * np.std(y_A))
    if not spread or math.isnan(spread):
        return None
    return float(np.mean((x_A - x_A.mean()) * (y_A - y_A.mean())) / spread)
