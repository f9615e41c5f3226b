"""What a reward model says of answers: its accuracy where it is known who wins, its scores where it is not.

    python training/step2_reward/rw_eval.py --model_name_or_path output/tutor/reward --data_path pairs.jsonl

{"instruction", "output_1", "output_2"} gain output_1_score and output_2_score, {"prompt", "response"} gain score;
comparisons of any data-set class give accuracy, margin and calibration. Without --data_path a few built-in pairs are
scored and shown; they are written only with --output_path.
"""

from __future__ import annotations

import math
from argparse import ArgumentParser
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

try:
    import utils.errors  # noqa: F401
except ImportError:
    ArgumentParser().exit(2, "error: no environment is active; at the project's root: source training/environment.sh\n")

from utils.answering.output import join_ranks
from utils.answering.reader import Reader, claim_outputs, claim_shards, score_rows, signature
from utils.answering.rows import AnswerRow, output_file, part_of
from utils.arguments import parse
from utils.arguments.inference import FileArguments, LengthArguments, ReaderArguments
from utils.engine import ranks
from utils.errors import UserError
from utils.raw_datasets import records_of
from utils.raw_datasets.dialogue import prompt_of
from utils.raw_datasets.sources import rows_of
from utils.raw_datasets.spec import Spec
from utils.records import Answer, Message, Record, comparison, record_from_json
from utils.reporting import run_program, say, write_json
from utils.statistics import calibration, calibration_bins, mean_interval, wilson_interval

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
    def __post_init__(self) -> None:
        self.check_files()


def main(argv: list[str] | None = None) -> None:
    (args,) = parse([RewardEvalArguments], argv, __doc__)
    join_ranks()
    if not args.data_path and not args.output_path:
        return show(part_of(BUILT_IN, args.offset, args.data_fraction), args)
    sources = [Spec.of(path) for path in args.data_path]
    output = output_file(args.output_path, args.data_path or ["rw_eval.jsonl"], "scored")
    metrics = output.with_name(f"{output.stem}-metrics.json")
    claim_shards(args, "rw_eval.py", output, sources)
    claim_outputs(args, "rw_eval.py", [metrics], sources)
    rows = [row for path in args.data_path for row in read(path)] or BUILT_IN
    shards = score_rows(part_of(rows, args.offset, args.data_fraction), args, output, finish)
    if ranks.rank() == 0:
        write_json(metrics, measure(shards.read(), signature(args.model_name_or_path)))


def show(rows: list[AnswerRow], args: RewardEvalArguments) -> None:
    """Score the built-in pairs and write nothing."""
    reader = Reader(args, reward=True)
    scores = reader.scores([row.record for row in rows], args.max_seq_len)
    for row, numbers in zip(rows, scores, strict=True):
        told = [f"{number:.3f} {answer.text}" for number, answer in zip(numbers, row.record.answers, strict=True)]
        say("  |  ".join([row.instruction, *told]))
    measure([finish(row, numbers, reader.name) for row, numbers in zip(rows, scores, strict=True)], reader.name)


def read(path: str) -> list[AnswerRow]:
    """Rows whose answers are to be scored, or else the comparisons of a data set. Raises UserError."""
    spec = Spec.of(path)
    plain = spec.cls is None and Path(spec.path).expanduser().is_file()
    first = next(rows_of(spec.path), ({}, ""))[0] if plain else {}
    if isinstance(first, dict) and {*TWO, "response"} & first.keys():
        return [_plain(row, where) for row, where in rows_of(spec.path)]
    rows = [AnswerRow(record) for record in records_of(path) if record.pairs()]
    if not rows:
        raise UserError(f"{path}: no comparisons; expected chosen and rejected answers, or output_1 and output_2")
    return rows


def _plain(row: dict[str, Any], where: str) -> AnswerRow:
    columns = TWO if TWO[0] in row else ("response",)
    if not all(isinstance(row.get(column), str) for column in columns):
        raise UserError(f"{where}: found the columns {', '.join(row)}; expected text in {' and '.join(columns)}")
    prompt = prompt_of(row.get("instruction", row.get("prompt")), where)[0]
    return AnswerRow(Record(prompt, tuple(Answer(row[column]) for column in columns), where=where).check(), row)


def finish(row: AnswerRow, scores: list[float], scorer: str) -> dict[str, Any]:
    names = [f"{column}_score" for column in TWO] if len(scores) == 2 else ["score"]
    return {**row.plain, **dict(zip(names, scores, strict=True))} if row.plain else row.with_scores(scores, scorer)


def measure(rows: Iterable[dict[str, Any]], scorer: str) -> dict[str, Any]:
    """Accuracy counts a tie as half; calibration is that of σ(|margin|), how sure the model is of its winner."""
    margins, scores = [], []
    for row in rows:
        known = [answer["scores"][scorer] for answer in row.get("answers", [])]
        scores += known or [row[name] for name in row if name == "score" or name.endswith("_score")]
        margins += [known[won] - known[lost] for won, lost in record_from_json(row, "").pairs()] if known else []
    score = mean_interval(scores)
    say(f"score {score} over {len(scores)} answers")
    found = {"score": score.to_json()}
    if margins:
        right = [(m > 0) + 0.5 * (m == 0) for m in margins]
        confidence = [1 / (1 + math.exp(-min(abs(m), 500))) for m in margins]
        brier, ece = calibration(confidence, right)
        accuracy, margin = wilson_interval(sum(right), len(right)), mean_interval(margins)
        say(f"accuracy {accuracy}  margin {margin}  Brier {brier:.3f}  ECE {ece:.3f}  over {len(margins)} pairs")
        found |= {"accuracy": accuracy.to_json(), "margin": margin.to_json(), "brier": brier, "ece": ece}
        found["calibration"] = calibration_bins(confidence, right)
    return found


if __name__ == "__main__":
    run_program(main)
