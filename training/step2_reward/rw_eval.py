"""Evaluate a reward model: its accuracy on comparisons, its scores of other answers.

    python training/step2_reward/rw_eval.py --model_name_or_path output/tutor/reward --data_path pairs.jsonl

{"instruction", "output_1", "output_2"} gain output_1_score and output_2_score, {"prompt", "response"} gain score;
comparisons of any data-set class give accuracy, margin and calibration. Without --data_path a few built-in pairs are
scored and shown; they are written only with --output_path.
"""

from __future__ import annotations

import itertools
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

from utils.answering.files import claim_outputs, claim_shards, output_file
from utils.answering.inference_model import InferenceModel, signature
from utils.answering.jobs import score_rows
from utils.answering.output import join_ranks
from utils.answering.rows import AnswerRow, part_of
from utils.arguments import parse
from utils.arguments.inference import FileArguments, LengthArguments, ReaderArguments
from utils.engine import ranks
from utils.errors import UserError
from utils.raw_datasets.dialogue import prompt_of
from utils.raw_datasets.spec import Spec
from utils.raw_datasets.whole import records_of, rows_of
from utils.records import Answer, Message, Record, comparison
from utils.records.files import record_from_json
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
    sources = list(map(Spec.of, args.data_path))
    output = output_file(args.output_path, args.data_path or ["rw_eval.jsonl"], "scored")
    metrics = output.with_name(f"{output.stem}-metrics.json")
    claim_shards(args, "rw_eval.py", output=output, sources=sources)
    claim_outputs(args, "rw_eval.py", outputs=[metrics], sources=sources)
    rows = []
    for path in args.data_path:
        rows += read(path)
    shards = score_rows(part_of(rows or BUILT_IN, args.offset, args.data_fraction), args, output, finish=finish)
    # Every rank has the whole output; one of them writes.
    if ranks.rank() == 0:
        write_json(metrics, metrics_of(shards.read(), signature(args.model_name_or_path)))


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
    metrics_of(finished, model.name)


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


def metrics_of(rows: Iterable[dict[str, Any]], scorer: str) -> dict[str, Any]:
    """Print and return the mean score and, of comparisons, accuracy, margin and calibration.

    scorer: the name of the scores in the answers of records.
    """
    margins, scores = [], []
    for row in rows:
        known = [answer["scores"][scorer] for answer in row.get("answers", [])]
        if known:
            scores += known
            for won, lost in record_from_json(row, "").pairs():
                margins.append(known[won] - known[lost])
        else:
            scores += [row[name] for name in row if name == "score" or name.endswith("_score")]
    score = mean_interval(scores)
    say(f"score {score} over {len(scores)} answers")
    found = {"score": score.to_json()}
    if margins:
        right, confidence = [], []
        for gap in margins:
            # A tie counts as half.
            right.append((gap > 0) + 0.5 * (gap == 0))
            # σ(|gap|), how sure the model is of its winner; beyond 500 it is 1 in any case.
            confidence.append(1 / (1 + math.exp(-min(abs(gap), 500))))
        brier, ece = calibration(confidence, right)
        accuracy, margin = wilson_interval(sum(right), len(right)), mean_interval(margins)
        say(f"accuracy {accuracy}  margin {margin}  Brier {brier:.3f}  ECE {ece:.3f}  over {len(margins)} pairs")
        found |= {"accuracy": accuracy.to_json(), "margin": margin.to_json(), "brier": brier, "ece": ece}
        found["calibration"] = calibration_bins(confidence, right)
    return found


if __name__ == "__main__":
    run_program(main)
