"""Win rates with their uncertainty, from ratings or comparisons of a model's and a reference's answers.

    python inference/win_rate.py ratings --reference reference.csv --model model.csv
    python inference/win_rate.py rankings --input rankings.csv
    python inference/win_rate.py judged --input judged.jsonl --model dpo --reference sft
    python inference/win_rate.py compare --first dpo.json --second ppo.json
    python inference/win_rate.py agreement --first judge.jsonl --second people.jsonl

ratings    two feedback CSVs without a header (instruction,input,output,score), joined by prompt: the higher score wins
rankings   a feedback CSV without a header (instruction,input,output1,output2,feedback): output2 is the model's answer
judged     records, or any data set with verdicts (docs/data.md), between answers of two named models
compare    two JSON files of the modes above, paired by prompt; refused where judge, template or decoding differ
agreement  two raters of the same answers (judges, people, reward models): kappa, position and length bias

The first three print wins, ties and losses, the win rate with 1.96 standard errors, and over prompts: its bootstrap
interval, a sign test, how many prompts show the difference, and the rate at equal answer lengths.
"""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

try:
    import utils.errors  # noqa: F401
except ImportError:
    ArgumentParser().exit(2, "error: no environment is active; at the project's root: source training/environment.sh\n")

from utils.arguments.modes import parse_mode
from utils.arguments.options import expect, option, overwriting, required
from utils.errors import UserError
from utils.evaluation.agreement import Choices, agreement_lines, agreement_of, of_numbers, of_verdicts
from utils.evaluation.comparisons import Comparisons, of_ranking_files, of_rating_files, of_records
from utils.evaluation.manifest import of_answers, read_evaluation
from utils.evaluation.summary import compare, comparison_lines, lines, numbers
from utils.outputs import claim
from utils.raw_datasets.spec import Spec
from utils.raw_datasets.whole import records_of
from utils.reporting import run_program, say, write_json


@dataclass(kw_only=True)
class EvaluationOutput:
    json: str | None = option(help="JSON file for the numbers", title="Options")
    seed: int = option(0, help="seed of the bootstrap over prompts")
    overwrite: bool = overwriting()


@dataclass(kw_only=True)
class RateArguments(EvaluationOutput):
    difference: float = option(
        5.0, help="difference from 50 % in percentage points; how many prompts show it is printed"
    )
    answers: str | None = option(
        help="the model's answers as chatbot.py wrote them; their template and decoding are kept for compare"
    )

    def __post_init__(self) -> None:
        expect(self, "above 0", "difference")


@dataclass(kw_only=True)
class RatingsArguments(RateArguments):
    reference: str = required("ratings of the reference's answers; a feedback CSV without a header")
    model: str = required("ratings of the model's answers; a feedback CSV without a header")
    join: Literal["prompt", "instruction"] = option(
        "prompt", help="rows belong together by instruction and input, or by the instruction alone"
    )


@dataclass(kw_only=True)
class RankingsArguments(RateArguments):
    input: str = required("verdicts on pairs of answers; a feedback CSV without a header")


@dataclass(kw_only=True)
class JudgedArguments(RateArguments):
    input: str = required("data set with verdicts; [CLASS:]PATH (docs/data.md)")
    model: str = required("name of the model, as in its answers")
    reference: str | None = option(help="name of the reference; None: every other model")


@dataclass(kw_only=True)
class CompareArguments(EvaluationOutput):
    first: str = required("JSON file of an evaluation")
    second: str = required("JSON file of another; the difference is its win rate less the first's")


@dataclass(kw_only=True)
class AgreementArguments(EvaluationOutput):
    first: str = required("data set that one rater judged; [CLASS:]PATH (docs/data.md)")
    second: str = required("data set that the other judged; it may be the same")
    first_by: str = option(
        "verdicts", help="what the first says; verdicts, ratings, scores, or verdicts:JUDGE for those of one judge"
    )
    second_by: str = option("verdicts", help="what the second says; as --first_by")


def main(argv: list[str] | None = None) -> None:
    modes = {"ratings": RatingsArguments, "rankings": RankingsArguments, "judged": JudgedArguments,
             "compare": CompareArguments, "agreement": AgreementArguments}  # fmt: skip
    mode, args = parse_mode(modes, argv, __doc__)
    reads = []
    for name in ("reference", "model", "input", "first", "second", "answers"):
        # Of judged records, model and reference are names.
        if getattr(args, name, None) and (mode == "ratings" or name not in ("reference", "model")):
            reads.append(Spec.of(getattr(args, name)).path)
    claim("win_rate.py", {"--json": args.json}, reads=reads, overwrite=args.overwrite)
    evaluate = {"compare": _compare, "agreement": _agreement}.get(mode, _win_rate)
    found, shown = evaluate(args)
    for line in shown:
        say(line)
    if args.json:
        write_json(Path(args.json), found)


def _win_rate(args: Any) -> tuple[dict, Iterable[str]]:
    compared = _compared(args)
    if args.answers:
        compared.manifest |= of_answers(Path(args.answers))
    found = numbers(compared, args.seed, args.difference)
    return found, lines(found)


def _compared(args: Any) -> Comparisons:
    if isinstance(args, RatingsArguments):
        return of_rating_files(Path(args.reference), Path(args.model), args.join)
    if isinstance(args, RankingsArguments):
        return of_ranking_files(Path(args.input))
    return of_records(records_of(args.input), args.model, args.reference)


def _compare(args: CompareArguments) -> tuple[dict, Iterable[str]]:
    first, second = ((Path(name), read_evaluation(Path(name))) for name in (args.first, args.second))
    found = compare(first, second, args.seed)
    return found, comparison_lines(found)


def _agreement(args: AgreementArguments) -> tuple[dict, Iterable[str]]:
    first, second = _choices(args, "first"), _choices(args, "second")
    found = agreement_of(first, second, args.seed)
    return found, agreement_lines(found)


def _choices(args: AgreementArguments, name: str) -> Choices:
    """Return what one rater says of pairs of answers. Raises UserError for one that says nothing."""
    path, by = getattr(args, name), getattr(args, f"{name}_by")
    what, _, judge = by.partition(":")
    if what not in ("verdicts", "ratings", "scores") or (judge and what != "verdicts"):
        raise UserError(f"--{name}_by is {by!r}; expected verdicts, ratings, scores or verdicts:JUDGE")
    if what == "verdicts":
        found = of_verdicts(records_of(path), judge or None)
    else:
        found = of_numbers(records_of(path), what)
    if not found.says:
        raise UserError(f"{path}: no two answers to a prompt have {by}; give another --{name}_by")
    return found


if __name__ == "__main__":
    run_program(main)
