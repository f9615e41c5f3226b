"""Win rates with their uncertainty, from ratings or comparisons of a model's and a reference's answers.

    python inference/win_rate.py ratings --reference reference.csv --model model.csv
    python inference/win_rate.py rankings --input rankings.csv
    python inference/win_rate.py judged --input judged.jsonl --model dpo --reference sft

ratings   two feedback CSVs without a header (instruction,input,output,score), joined by prompt: the higher score wins
rankings  a feedback CSV without a header (instruction,input,output1,output2,feedback): output2 is the model's answer
judged    records, or any data set with verdicts (docs/data.md), between answers of two named models

Prints wins, ties and losses, the win rate with 1.96 standard errors, and over prompts: its bootstrap interval, a sign
test, how many prompts show the difference, and the rate at equal answer lengths.
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

from utils.arguments.modes import parse_mode
from utils.arguments.options import option, overwriting, required
from utils.evaluation.comparisons import Comparisons, of_ranking_files, of_rating_files, of_records
from utils.evaluation.win_rate import length_controlled, prompts_needed, simple_win_rate, win_rate
from utils.outputs import claim
from utils.raw_datasets.spec import Spec
from utils.raw_datasets.whole import records_of
from utils.reporting import run_program, say, write_json


@dataclass
class RatingsArguments:
    reference: str = required("ratings of the reference's answers; a feedback CSV without a header", title="Options")
    model: str = required("ratings of the model's answers; a feedback CSV without a header")
    join: Literal["prompt", "instruction"] = option(
        "prompt", help="rows belong together by instruction and input, or by the instruction alone"
    )
    json: str | None = option(help="JSON file for the numbers")
    seed: int = option(0, help="seed of the bootstrap over prompts")
    overwrite: bool = overwriting()


@dataclass
class RankingsArguments:
    input: str = required("verdicts on pairs of answers; a feedback CSV without a header", title="Options")
    json: str | None = option(help="JSON file for the numbers")
    seed: int = option(0, help="seed of the bootstrap over prompts")
    overwrite: bool = overwriting()


@dataclass
class JudgedArguments:
    input: str = required("data set with verdicts; [CLASS:]PATH (docs/data.md)", title="Options")
    model: str = required("name of the model, as in its answers")
    reference: str | None = option(help="name of the reference; None: every other model")
    json: str | None = option(help="JSON file for the numbers")
    seed: int = option(0, help="seed of the bootstrap over prompts")
    overwrite: bool = overwriting()


def main(argv: list[str] | None = None) -> None:
    modes = {"ratings": RatingsArguments, "rankings": RankingsArguments, "judged": JudgedArguments}
    mode, args = parse_mode(modes, argv, __doc__)
    if mode == "ratings":
        reads = [args.reference, args.model]
    else:
        reads = [Spec.of(args.input).path]
    claim("win_rate.py", {"--json": args.json}, reads=reads, overwrite=args.overwrite)
    if mode == "ratings":
        compared = of_rating_files(Path(args.reference), Path(args.model), args.join)
    elif mode == "rankings":
        compared = of_ranking_files(Path(args.input))
    else:
        compared = of_records(records_of(args.input), args.model, args.reference)
    found = numbers(compared, args.seed)
    for line in lines(compared, found):
        say(line)
    if args.json:
        write_json(Path(args.json), found)


def numbers(compared: Comparisons, seed: int) -> dict:
    """Return win_rate and ci95 in per cent, and everything else by prompt."""
    simple = simple_win_rate([outcome for each in compared.outcomes for outcome in each])
    by_prompt = win_rate(compared.outcomes, seed)
    equal_length = length_controlled(compared.outcomes, compared.lengths, seed)
    # From one prompt alone nothing is known of the spread between prompts.
    difference, needed = abs(by_prompt.rate.value - 0.5), None
    if difference and by_prompt.rate.n > 1:
        needed = prompts_needed(by_prompt.spread, difference)
    return {
        "win_rate": simple.percent,
        "ci95": simple.half_width,
        "n": simple.n,
        "wins": simple.wins,
        "ties": simple.ties,
        "losses": simple.losses,
        "refused": compared.refused,
        "failed": compared.failed,
        "prompts": by_prompt.rate.to_json(),
        "sign_test": by_prompt.sign_test,
        "prompts_needed": needed,
        "length_controlled": equal_length.to_json(),
        "sizes": compared.sizes,
    }


def lines(compared: Comparisons, found: dict) -> Iterator[str]:
    for name, size in compared.sizes.items():
        yield f"{name}: {size:,}"
    undecided = f"{found['refused']} refused, {found['failed']} without a verdict"
    yield f"judged: {found['n']:,} ({found['wins']} wins, {found['ties']} ties, {found['losses']} losses; {undecided})"
    error = "unknown of one judgement"
    if found["ci95"] is not None:
        error = f"{found['ci95']:.2f}"
    yield f"win rate: {found['win_rate']:.2f} % +- {error} (1.96 standard errors)"
    rate, controlled = found["prompts"], found["length_controlled"]
    yield f"over {rate['n']:,} prompts: {_interval(rate)}, sign test p = {found['sign_test']:.3g}"
    if found["prompts_needed"]:
        yield f"prompts that show this difference from 50 % in 80 % of the experiments: {found['prompts_needed']:,}"
    yield (
        f"at equal answer lengths: {_interval(controlled)}; the model's answer is the longer one on "
        f"{100 * controlled['longer']:.0f} % (fitted to these verdicts alone)"
    )


def _interval(estimate: dict) -> str:
    if estimate["low"] is None:
        return f"{100 * estimate['value']:.2f} %"
    return f"{100 * estimate['value']:.2f} % [{100 * estimate['low']:.2f}, {100 * estimate['high']:.2f}]"


if __name__ == "__main__":
    run_program(main)
