"""Do ratings and rankings of the same answers agree?

    python data_collect/consistency.py --ratings_csv ratings.csv --rankings_csv rankings.csv --json consistency.json

Reads feedback CSVs without a header (ratings-feedback-csv, rankings-feedback-csv of docs/data.md), or records with
ratings and verdicts: one file may be given for both. Of every ranked pair whose answers are both rated, the ratings say
equal, A or B, and so does the ranking; the consistency is the share where they say the same. Repeated rows count once,
the first. The two orders of one verdict are taken together: a judge that changes its mind says equal.
"""

from __future__ import annotations

import itertools
from argparse import ArgumentParser
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

try:
    import utils.errors  # noqa: F401
except ImportError:
    ArgumentParser().exit(2, "error: no environment is active; at the project's root: source training/environment.sh\n")

import numpy as np

from utils.arguments import parse
from utils.arguments.options import option, overwriting, required
from utils.errors import UserError
from utils.feedback.pairs.measures import has_cycle
from utils.outputs import claim
from utils.raw_datasets import records_of
from utils.raw_datasets.feedback_csv import BY_RATING, implied
from utils.raw_datasets.spec import Spec
from utils.records import Message, Record, Verdict
from utils.reporting import aligned, progress, run_program, say, write_json
from utils.statistics import Estimate, cluster_bootstrap, cohens_kappa

SAYS = ("tie", "a", "b")  # the rows and columns of the table: equal, A, B
BY_ORDER = "by_order"  # where request.py keeps what was said in either order: [{a, b, ab, ba}, …]
Prompt = tuple[Message, ...]


@dataclass
class ConsistencyArguments:
    ratings_csv: str = required("rated answers: a feedback CSV, or records with ratings")
    rankings_csv: str = required("ranked pairs: a feedback CSV, or records with verdicts")
    json: str | None = option(help="file for the numbers")
    overwrite: bool = overwriting()
    on_bad_row: Literal["error", "skip"] = option("error", help="a row that cannot be read stops, or is left out")
    seed: int = option(0, help="seed of the intervals' bootstrap")


class Ranking(NamedTuple):
    """What a judge says of two texts: tie, a or b."""

    prompt: Prompt
    a: str
    b: str
    says: str
    judge: str | None = None


def main(argv: list[str] | None = None) -> None:
    (args,) = parse([ConsistencyArguments], argv, description=__doc__)
    given = [args.ratings_csv, args.rankings_csv]
    reads = [path if path.endswith(".csv") else Spec.of(path).path for path in given]
    claim("consistency.py", {"--json": args.json}, reads=reads, overwrite=args.overwrite)
    ratings = first_ratings(records(args.ratings_csv, "ratings-feedback-csv", args))
    if not ratings:
        raise UserError(f"{args.ratings_csv}: no rated answers; expected a feedback CSV, or records with ratings")
    ranked = list(records(args.rankings_csv, "rankings-feedback-csv", args))
    rankings = decided(ranked)
    if not rankings:
        raise UserError(f"{args.rankings_csv}: no ranked pairs; expected a feedback CSV, or records with verdicts")
    found = measure(ratings, rankings, args.seed)
    if not found["n"]:
        raise UserError(f"no pair of {args.rankings_csv} has both of its answers rated in {args.ratings_csv}")
    found |= {"flips": flips(ranked), "cycles": cycles(rankings)}
    if args.json:
        write_json(Path(args.json), found)
    report(found)


def records(path: str, name: str, args: ConsistencyArguments) -> Iterator[Record]:
    with progress(f"reading {path}", None) as advance:
        for record in records_of(f"{name}:{path}" if path.endswith(".csv") else path, on_bad_row=args.on_bad_row):
            advance()
            yield record


def first_ratings(rated: Iterable[Record]) -> dict[tuple[Prompt, str], float]:
    found: dict[tuple[Prompt, str], float] = {}
    for record in rated:
        for answer in record.answers:
            if answer.rating is not None:
                found.setdefault((record.prompt, answer.text), answer.rating)
    return found


def decided(ranked: Iterable[Record]) -> list[Ranking]:
    """What judges say of two texts, the first time that they are asked."""
    first: dict[tuple, Ranking] = {}
    for ranking in all_rankings(ranked):
        first.setdefault((ranking.prompt, ranking.a, ranking.b, ranking.judge), ranking)
    return [ranking for ranking in first.values() if ranking.says in SAYS]


def all_rankings(ranked: Iterable[Record]) -> Iterator[Ranking]:
    """Verdicts on the same two answers in both orders are one: failed if one of them is, tie where they differ."""
    for record in ranked:
        orders: dict[tuple, list[Verdict]] = defaultdict(list)
        for number, verdict in enumerate(asked(record)):
            once = None if verdict.order else number  # an order that is not known is not paired with another
            orders[verdict.a, verdict.b, verdict.judge, once].append(verdict)
        for (a, b, judge, _), verdicts in orders.items():
            said = {verdict.preferred for verdict in verdicts}
            says = said.pop() if len(said) == 1 else "tie" if said <= set(SAYS) else "failed"
            yield Ranking(record.prompt, record.answers[a].text, record.answers[b].text, says, judge)


def asked(record: Record) -> list[Verdict]:
    """The verdicts of a judge: not those that follow from ratings."""
    return [verdict for verdict in record.verdicts if verdict.judge != BY_RATING]


def measure(ratings: dict[tuple[Prompt, str], float], rankings: Iterable[Ranking], seed: int) -> dict:
    """The table and what follows from it: counts, percents, and 95 % intervals over prompts."""
    counts: dict[Prompt, np.ndarray] = defaultdict(lambda: np.zeros((3, 3), int))
    missing = 0
    for ranking in rankings:
        scores = [ratings.get((ranking.prompt, text)) for text in (ranking.a, ranking.b)]
        if None in scores:
            missing += 1
        else:
            counts[ranking.prompt][SAYS.index(implied(*scores)), SAYS.index(ranking.says)] += 1
    tables = list(counts.values())
    total = sum(tables, np.zeros((3, 3), int))
    strict = [each[1:, 1:] for each in tables]
    n, decided = int(total.sum()), int(total[1:, 1:].sum())
    return {
        "consistency": 100 * (int(np.trace(total)) / n) if n else None,
        "n": n,
        "table": total.tolist(),
        "rows": "ratings: equal, A, B; columns: rankings: equal, A, B",
        "unrated": missing,
        "prompts": len(tables),
        "interval": percent(agreement(tables, seed)),
        "without_ties": {"n": decided, **percent(agreement(strict, seed))},
        "kappa": cohens_kappa(tables, seed).to_json(),
    }


def agreement(tables: list[np.ndarray], seed: int) -> Estimate:
    return cluster_bootstrap([[1.0] * int(np.trace(t)) + [0.0] * int(t.sum() - np.trace(t)) for t in tables], seed)


def percent(share: Estimate) -> dict[str, float | None]:
    found = share.to_json()
    return {name: None if found[name] is None else 100 * found[name] for name in ("value", "low", "high")}


def flips(ranked: Iterable[Record]) -> dict:
    """Of the pairs that a judge decided in both orders, each the first time: how many it decided differently."""
    seen: dict[tuple, dict[str, tuple]] = defaultdict(dict)
    twice = []
    for record in ranked:
        twice += [[(said.get("ab"),), (said.get("ba"),)] for said in record.meta.get(BY_ORDER, [])]
        for verdict in asked(record):
            a, b = record.answers[verdict.a].text, record.answers[verdict.b].text
            if a != b:
                first = b if verdict.order == "ba" else a
                said = verdict.preferred, {"a": a, "b": b}.get(verdict.preferred)
                seen[record.prompt, verdict.judge, frozenset((a, b))].setdefault(first, said)
    twice += [list(said.values()) for said in seen.values() if len(said) == 2]
    both = [said for said in twice if {each[0] for each in said} <= set(SAYS)]
    changed = sum(one[-1] != other[-1] for one, other in both)
    return {
        "pairs_in_both_orders": len(both),
        "flips": changed,
        "percent": 100 * changed / len(both) if both else None,
    }


def cycles(rankings: Iterable[Ranking]) -> dict:
    """Where a judge's decisions go in a circle: prompts, and triples of answers all of whose pairs are decided."""
    won: dict[tuple, Counter[tuple[str, str]]] = defaultdict(Counter)
    for prompt, a, b, says, judge in rankings:
        if says != "tie" and a != b:
            won[prompt, judge][(a, b) if says == "a" else (b, a)] += 1
    triples = circular = 0
    for wins in won.values():
        beats = {pair for pair, times in wins.items() if times > wins[pair[::-1]]}
        for three in itertools.combinations(sorted(set(itertools.chain(*beats))), 3):
            inside = [pair for pair in itertools.permutations(three, 2) if pair in beats]
            triples += len(inside) == 3
            circular += len(inside) == 3 and len({winner for winner, _ in inside}) == 3
    cyclic = sum(map(has_cycle, won.values()))
    return {"prompts": len(won), "prompts_with_a_cycle": cyclic, "triples": triples, "circular_triples": circular}


def report(found: dict) -> None:
    rows = zip(("equal", "A", "B"), found["table"], strict=True)
    say(aligned(["ratings \\ rankings", "equal", "A", "B"], [[name, *counts] for name, counts in rows]))
    say(f"Consistency: {found['consistency']}", style="bold")
    say(f"  {found['n']:,} pairs of {found['prompts']:,} prompts, {between(found['interval'])}; "
        f"{found['unrated']:,} pairs left out: an answer is not rated")  # fmt: skip
    strict, kappa, turned, circles = (found[name] for name in ("without_ties", "kappa", "flips", "cycles"))
    say(f"without ties: {number(strict['value'])} % of {strict['n']:,}, {between(strict)}")
    say(f"Cohen's kappa: {number(kappa['value'], 3)}, {between(kappa, 3)}")
    say(f"order flips: {turned['flips']:,} of {turned['pairs_in_both_orders']:,} pairs that were judged in both orders")
    say(f"cycles: {circles['prompts_with_a_cycle']:,} of {circles['prompts']:,} prompts; "
        f"{circles['circular_triples']:,} of {circles['triples']:,} triples")  # fmt: skip


def number(value: float | None, digits: int = 2) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def between(estimate: dict, digits: int = 2) -> str:
    return f"95 % interval [{number(estimate['low'], digits)}, {number(estimate['high'], digits)}]"


if __name__ == "__main__":
    run_program(main)
