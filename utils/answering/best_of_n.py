"""Best-of-n: the best of a prompt's answers by a score, and what is gained over n."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

from utils import formats
from utils.errors import UserError
from utils.records import LIKELIHOODS, Answer, Record
from utils.records.files import write_jsonl
from utils.reporting import say
from utils.statistics import Estimate, best_of_n, doublings, mean_interval


def kl_bound(n: int) -> float:
    """Return the bound KL(best-of-n, policy) <= log n − (n − 1)/n in nats."""
    # Stiennon et al. 2020, arXiv:2009.01325, appendix G.3.
    return math.log(n) - (n - 1) / n


def scorers_of(records: Sequence[Record]) -> set[str]:
    """Return the names of the scores that the answers have, without likelihoods, which are no rewards."""
    names: set[str] = set()
    for record in records:
        for answer in record.answers:
            names |= set(answer.scores)
    return names - set(LIKELIHOODS)


def only_scorer(records: Sequence[Record]) -> str:
    """Return the name of the only model that scored the answers. Raises UserError when there are none or several."""
    names = scorers_of(records)
    if len(names) == 1:
        return names.pop()
    if names:
        raise UserError(f"the answers have scores of {', '.join(sorted(names))}; choose one with --scorer")
    raise UserError(f"{records[0].where}: the answers have no scores; give --reward_model_name_or_path")


def scores_of(record: Record, scorer: str) -> list[float]:
    """Return the score of every answer, higher for a better one: of likelihoods (perplexity) the negative.

    Raises UserError for an answer without such a score, or with one that is no finite number.
    """
    found = []
    for number, answer in enumerate(record.answers, start=1):
        if scorer not in answer.scores:
            raise UserError(f"{record.where}: an answer has no score of {scorer}; give --reward_model_name_or_path")
        score = answer.scores[scorer]
        if isinstance(score, bool) or not isinstance(score, int | float) or not math.isfinite(score):
            raise UserError(
                f"{record.where}: answer {number} has the score {score} of {scorer}; expected a finite number"
            )
        found.append(-score if scorer in LIKELIHOODS else score)
    return found


def expect_answers(record: Record, n: int) -> None:
    """Raise UserError where there are fewer than n answers to choose from, or none."""
    if not record.answers:
        raise UserError(f"{record.where}: no answers to choose from; give --policy_name_or_path, which samples them")
    if len(record.answers) < n:
        raise UserError(f"{record.where}: {len(record.answers)} answers, too few for --n {n}; lower it or sample more")


def best(record: Record, n: int, scorer: str) -> Answer:
    """Return the answer with the highest score among the first n, the earlier of two equals. Raises UserError."""
    expect_answers(record, n)
    scores = scores_of(record, scorer)[:n]
    return record.answers[scores.index(max(scores))]


def write_best(records: Sequence[Record], n: int, scorer: str, path: Path) -> dict[str, object]:
    """Write the best of every prompt's first n answers.

    Args:
        records: the prompts with scored answers.
        n: how many answers to choose from.
        scorer: the name of the scores to go by.
        path: the file to write.

    Returns:
        The mean score with its interval, the bound of the KL divergence, the file.

    Raises:
        UserError: a record has fewer answers, or one without such a score.
    """
    chosen, scores = [], []
    for record in records:
        answer = best(record, n, scorer)
        chosen.append(Record(record.prompt, (answer,), id=record.id, meta=record.meta, where=record.where))
        scores.append(answer.scores[scorer])
    if path.suffix == ".json":
        formats.write("generations", path, chosen)
    else:
        write_jsonl(path, chosen)
    score = mean_interval(scores)
    kl = kl_bound(n)
    say(f"best of {n:>3}: score {score}  KL ≤ {kl:.3f}  written to {path}")
    return {"score": score.to_json(), "kl_bound": kl, "file": str(path)}


def curve(
    scores: Sequence[Sequence[float]],
    values: Sequence[Sequence[float]],
    most: int,
    interval: Callable[[Sequence[float]], Estimate],
) -> dict[int, Estimate]:
    """Return the expected value of the answer with the highest score among n = 1, 2, 4, …, `most`.

    It is the mean over all subsets of n of a prompt's first `most` answers (statistics.best_of_n), which has less
    variance than the first n alone.

    Args:
        scores: for each prompt the score of every answer, by which one is chosen.
        values: for each prompt what every answer is worth; the scores themselves for the expected score.
        most: the largest n.
        interval: makes an estimate of one value for each prompt.
    """
    found = {}
    for n in doublings(most):
        means = []
        for of_prompt, worth in zip(scores, values, strict=True):
            means.append(best_of_n(of_prompt[:most], worth[:most], n))
        found[n] = interval(means)
    return found


def repeated(records: Sequence[Record]) -> str | None:
    """Return a sentence on prompts that occur more than once, which intervals over prompts take as independent."""
    first: dict[tuple, Record] = {}
    again = [record for record in records if first.setdefault(record.prompt, record) is not record]
    if not again:
        return None
    one = again[0]
    found = f"{one.where} has the prompt of {first[one.prompt].where}"
    if len(again) > 1:
        found += f", and {len(again) - 1:,} more rows repeat a prompt"
    return f"{found}: intervals take prompts as independent and are too narrow; leave repeated rows out"
