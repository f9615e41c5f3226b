"""Measure how often ratings and rankings of the same answers agree.

    python data_collect/consistency.py --ratings_csv ratings.csv --rankings_csv rankings.csv --json consistency.json

Reads feedback CSVs without a header (ratings-feedback-csv, rankings-feedback-csv of docs/data.md), or records with
ratings and verdicts: one file may be given for both. Of every ranked pair whose answers are both rated, the ratings
imply equal, A or B, and so does the ranking; the consistency is the share of pairs where both agree. Of repeated rows
the first counts. The two orders of one verdict are taken together: a judge that changes its verdict says equal.
"""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

try:
    import utils.errors  # noqa: F401
except ImportError:
    ArgumentParser().exit(2, "error: no environment is active; at the project's root: source training/environment.sh\n")


from utils.arguments import parse
from utils.arguments.options import option, overwriting, required
from utils.errors import UserError
from utils.feedback.agreement import cycles, decided, first_ratings, flips, measure
from utils.outputs import claim
from utils.raw_datasets.spec import Spec
from utils.raw_datasets.whole import records_of
from utils.records import Record
from utils.reporting import progress, run_program, say, write_json
from utils.tables import aligned


@dataclass
class ConsistencyArguments:
    ratings_csv: str = required("rated answers; a feedback CSV, or records with ratings", title="Files")
    rankings_csv: str = required("ranked pairs; a feedback CSV, or records with verdicts")
    json: str | None = option(help="JSON file for the numbers")
    overwrite: bool = overwriting()
    on_bad_row: Literal["error", "skip"] = option(
        "error", help="a row that cannot be read stops the program, or is left out"
    )
    seed: int = option(0, help="seed of the intervals' bootstrap", title="Statistics")


def main(argv: list[str] | None = None) -> None:
    """Measure the consistency."""
    (args,) = parse([ConsistencyArguments], argv, description=__doc__)
    # What is read must not be overwritten by --json.
    reads = []
    for path in (args.ratings_csv, args.rankings_csv):
        if not path.endswith(".csv"):
            path = Spec.of(path).path
        reads.append(path)
    claim("consistency.py", {"--json": args.json}, reads=reads, overwrite=args.overwrite)
    ratings = first_ratings(records(args.ratings_csv, "ratings-feedback-csv", args))
    if not ratings:
        raise UserError(f"{args.ratings_csv}: no rated answers; expected a feedback CSV, or records with ratings")
    ranked = list(records(args.rankings_csv, "rankings-feedback-csv", args))
    rankings = decided(ranked)
    if not rankings:
        raise UserError(f"{args.rankings_csv}: no ranked pairs; expected a feedback CSV, or records with verdicts")
    # Pairs without two ratings are left out and counted: without any there is no share.
    found = measure(ratings, rankings, args.seed)
    if not found["n"]:
        raise UserError(f"no pair of {args.rankings_csv} has both of its answers rated in {args.ratings_csv}")
    found |= {"flips": flips(ranked), "cycles": cycles(rankings)}
    if args.json:
        write_json(Path(args.json), found)
    report(found)


def records(path: str, name: str, args: ConsistencyArguments) -> Iterator[Record]:
    """Read a CSV file as the format `name`, or anything else as the data set that it is."""
    spec = path
    if path.endswith(".csv"):
        spec = f"{name}:{path}"
    with progress(f"reading {path}", None) as advance:
        for record in records_of(spec, on_bad_row=args.on_bad_row):
            advance()
            yield record


def report(found: dict) -> None:
    """Print the table and the estimates."""
    equal, a, b = found["table"]
    say(aligned(["ratings \\ rankings", "equal", "A", "B"], [["equal", *equal], ["A", *a], ["B", *b]]))
    say(f"Consistency: {found['consistency']}", style="bold")
    say(f"  {found['n']:,} pairs of {found['prompts']:,} prompts, {between(found['interval'])}; "
        f"{found['unrated']:,} pairs left out: an answer is not rated")  # fmt: skip
    # Ties are easy to agree on by never deciding; the share without them shows that.
    strict, kappa, turned, circles = found["without_ties"], found["kappa"], found["flips"], found["cycles"]
    say(f"without ties: {number(strict['value'])} % of {strict['n']:,}, {between(strict)}")
    say(f"Cohen's kappa: {number(kappa['value'], 3)}, {between(kappa, 3)}")
    say(f"order flips: {turned['flips']:,} of {turned['pairs_in_both_orders']:,} pairs that were judged in both orders")
    say(f"cycles: {circles['prompts_with_a_cycle']:,} of {circles['prompts']:,} prompts; "
        f"{circles['circular_triples']:,} of {circles['triples']:,} triples")  # fmt: skip


def number(value: float | None, digits: int = 2) -> str:
    """Return a number for people."""
    if value is None:
        return "-"
    return f"{value:.{digits}f}"


def between(estimate: dict, digits: int = 2) -> str:
    """Return an interval for people."""
    return f"95 % interval [{number(estimate['low'], digits)}, {number(estimate['high'], digits)}]"


if __name__ == "__main__":
    run_program(main)
