"""Evaluate a reward model: its accuracy on comparisons, its scores of other answers.

    python training/step2_reward/rw_eval.py --model_name_or_path output/tutor/reward --data_path pairs.jsonl

{"instruction", "output_1", "output_2"} gain output_1_score and output_2_score, {"prompt", "response"} gain score;
comparisons of any data-set class give accuracy (by margin, by length, by data set), margin, calibration and the
correlation with length, as JSON and as a figure; --perturb also scores answers made worse in known ways. Without
--data_path a few built-in pairs are scored and shown; they are written only with --output_path.
"""

from __future__ import annotations

import itertools
from argparse import ArgumentParser
from dataclasses import dataclass
from pathlib import Path
from typing import Any

try:
    import utils.errors  # noqa: F401
except ImportError:
    ArgumentParser().exit(2, "error: no environment is active; at the project's root: source training/environment.sh\n")

from utils.answering.files import claim_outputs, claim_shards, output_file
from utils.answering.inference_model import InferenceModel, signature
from utils.answering.jobs import score_rows
from utils.answering.output import join_ranks
from utils.answering.rows import AnswerRow, part_of
from utils.arguments import parse
from utils.arguments.inference import FileArguments, LengthArguments, ReaderArguments
from utils.arguments.options import option
from utils.engine import ranks
from utils.errors import UserError
from utils.evaluation.perturbations import perturbed, preferred_perturbations
from utils.evaluation.reward_scores import JudgedScores
from utils.raw_datasets.dialogue import prompt_of
from utils.raw_datasets.spec import Spec
from utils.raw_datasets.whole import records_of, rows_of
from utils.records import Answer, Message, Record, comparison
from utils.report import figures
from utils.reporting import run_program, say, write_json
from utils.statistics import Estimate

BUILT_IN = [
    AnswerRow(comparison([Message("user", question)], better, worse))
    for question, better, worse in (
        ("What is 7 times 8?", "7 times 8 is 56.", "7 times 8 is 54, or thereabouts."),
        ("How many legs has a spider?", "A spider has eight legs.", "Legs."),
        ("Can you help me to plan a birthday?", "Gladly! How old is the child?", "No. Do it yourself."),
        ("Why do leaves turn red?", "Their green fades; red shows.", "Because, because, because, because."),
    )
]
TWO = ("output_1", "output_2")


@dataclass
class RewardEvalArguments(LengthArguments, FileArguments, ReaderArguments):
    perturb: bool = option(
        False, help="also score answers made worse: filler, politeness, truncation, ...; to NAME-perturbed.jsonl"
    )
    seed: int = option(42, help="seed of the shuffled sentences of --perturb")

    def __post_init__(self) -> None:
        self.check_files()
        if self.perturb and not self.data_path:
            raise UserError("--perturb needs --data_path: the built-in answers are too short to be made worse")


def main(argv: list[str] | None = None) -> None:
    (args,) = parse([RewardEvalArguments], argv, __doc__)
    join_ranks()
    if not args.data_path and not args.output_path:
        return show(part_of(BUILT_IN, args.offset, args.data_fraction), args)
    sources = list(map(Spec.of, args.data_path))
    output = output_file(args.output_path, args.data_path or ["rw_eval.jsonl"], "scored")
    worse = output.with_name(f"{output.stem}-perturbed.jsonl")
    metrics, figure = (output.with_name(f"{output.stem}-metrics.{kind}") for kind in ("json", "png"))
    claim_shards(args, "rw_eval.py", output=output, sources=sources)
    if args.perturb:
        claim_shards(args, "rw_eval.py", output=worse, sources=sources)
    claim_outputs(args, "rw_eval.py", outputs=[metrics, figure], sources=sources)
    rows, names = [], []
    for path in args.data_path:
        rows += read(path)
        names += [path] * (len(rows) - len(names))
    rows, names = (part_of(x, args.offset, args.data_fraction) for x in (rows or BUILT_IN, names or ["built in"] * 4))
    shards, scorer = score_rows(rows, args, output, finish=finish), signature(args.model_name_or_path)
    perturbations = {}
    if args.perturb:
        records = perturbed([row.record for row in rows], args.seed)
        of_worse = score_rows(list(map(AnswerRow, records)), args, worse)
        perturbations = {"perturbations": preferred_perturbations(of_worse.read(), scorer)}
    # Every rank has the whole output; one of them writes.
    if ranks.rank() == 0:
        found = JudgedScores.of(shards.read(), scorer, names).to_json() | perturbations
        tell(found)
        write_json(metrics, found)
        if "accuracy" in found:
            figures.save(figures.reward_scores(found), figure)


def show(rows: list[AnswerRow], args: RewardEvalArguments) -> None:
    """Score the built-in pairs and write nothing."""
    model = InferenceModel(args, reward=True)
    scores, finished = model.scores([row.record for row in rows], args.max_seq_len), []
    for row, numbers in zip(rows, scores, strict=True):
        columns = [row.instruction]
        for number, answer in zip(numbers, row.record.answers, strict=True):
            columns.append(f"{number:.3f} {answer.text}")
        say("  |  ".join(columns))
        finished.append(finish(row, numbers, model.name))
    tell(JudgedScores.of(finished, model.name, ["built in"] * len(finished)).to_json())


def read(path: str) -> list[AnswerRow]:
    """Return the rows of a file whose answers are to be scored, or the comparisons of a data set. Raises UserError."""
    spec, first = Spec.of(path), {}
    # The first row decides for the whole file; a named class, a folder and a data set of the hub are comparisons.
    if spec.cls is None and Path(spec.path).expanduser().is_file():
        first, _ = next(rows_of(spec.path), ({}, ""))
    if isinstance(first, dict) and {*TWO, "response"} & first.keys():
        return list(itertools.starmap(_plain, rows_of(spec.path)))
    rows = [AnswerRow(record) for record in records_of(path) if record.pairs()]
    if not rows:
        raise UserError(f"{path}: no comparisons; expected chosen and rejected answers, or output_1 and output_2")
    return rows


def _plain(row: dict[str, Any], where: str) -> AnswerRow:
    """Return a plain row with its one or two answers. Raises UserError for a column that is no text."""
    columns = TWO if TWO[0] in row else ("response",)
    answers = []
    for column in columns:
        if not isinstance(row.get(column), str):
            raise UserError(f"{where}: found the columns {', '.join(row)}; expected text in {' and '.join(columns)}")
        answers.append(Answer(row[column]))
    prompt, _ = prompt_of(row.get("instruction", row.get("prompt")), where)
    return AnswerRow(Record(prompt, tuple(answers), where=where).check(), row)


def finish(row: AnswerRow, scores: list[float], scorer: str) -> dict[str, Any]:
    """Return a row as JSON with its scores: a plain row's in columns, a record's in its answers."""
    if not row.plain:
        return row.with_scores(scores, scorer)
    if len(scores) == 2:
        first, second = TWO
        return {**row.plain, f"{first}_score": scores[0], f"{second}_score": scores[1]}
    (score,) = scores
    return {**row.plain, "score": score}


def tell(found: dict[str, Any]) -> None:
    """Print what was found."""

    def estimate(numbers: dict[str, Any]) -> str:
        return str(Estimate(**{name: float("nan") if v is None else v for name, v in numbers.items()}))

    say(f"score {estimate(found['score'])} over {found['score']['n']} answers")
    if "accuracy" in found:
        accuracy, margin = estimate(found["accuracy"]), estimate(found["margin"])
        about = f"Brier {found['brier']:.3f}  ECE {found['ece']:.3f}  over {found['accuracy']['n']} pairs"
        say(f"accuracy {accuracy}  margin {margin}  {about}")
    for name, numbers in found.get("perturbations", {}).items():
        say(f"{name}: preferred {estimate(numbers['preferred'])}  drop {estimate(numbers['drop'])}")


if __name__ == "__main__":
    run_program(main)
