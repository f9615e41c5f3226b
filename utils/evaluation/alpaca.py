"""AlpacaEval's annotations and outputs: the package's win rate, its leaderboard, and the traps of stale annotations.

An annotation compares output_1, the reference's, with output_2, the model's. `preference` is 1 (the reference), 2 (the
model), 0 or 1.5 (a tie) or null (no answer could be read); weighted judges give any number between 1 and 2.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utils.errors import UserError
from utils.evaluation.comparisons import UNKNOWN, Comparisons, key
from utils.evaluation.win_rate import simple_win_rate
from utils.formats.files import replacing
from utils.raw_datasets.annotations import Annotations, preference
from utils.raw_datasets.base import text
from utils.records import RecordError
from utils.records.lines import read_jsonl


@dataclass(frozen=True)
class Annotation:
    """One judged comparison. `outcome` is 0 to 1, 1 where the model's output is better; None without an answer."""

    instruction: str
    reference_output: str
    output: str
    reference: str
    generator: str
    judge: str
    outcome: float | None
    where: str


def read_annotations(path: Path) -> list[Annotation]:
    """Return the annotations of a file, one of each instruction.

    Raises:
        UserError: a row cannot be read, an instruction is in two rows, or none has a preference.
    """
    found: dict[str, Annotation] = {}
    for annotation in _annotations(path):
        earlier = found.setdefault(annotation.instruction, annotation)
        if earlier is not annotation:
            asked = f"{annotation.where}: the instruction {annotation.instruction[:60]!r}"
            remedy = "leave one out, or use win_rate.py judged for several judgements of a prompt"
            raise UserError(f"{asked} is judged at {earlier.where}, too; {remedy}")
    if not any(annotation.outcome is not None for annotation in found.values()):
        raise UserError(f"{path}: none of {len(found)} annotations has a preference; ask the judge again")
    return list(found.values())


def _annotations(path: Path) -> Iterator[Annotation]:
    for row, where in read_jsonl(path):
        if not isinstance(row, dict) or not Annotations.fits(row):
            raise RecordError(f"{where}: found {str(row)[:60]!r}; expected {Annotations.needs}")
        yield _annotation(row, where)


def _annotation(row: Mapping[str, Any], where: str) -> Annotation:
    outcome = None
    if preference(row["preference"], where) != "failed":
        # 0 is how the first version wrote a tie; 1.0000048, an average of log-probs, stays what it is.
        number = float(row["preference"]) or 1.5
        outcome = min(1.0, max(0.0, number - 1))
    names = {name: str(row.get(name) or UNKNOWN) for name in ("generator_1", "generator_2", "generator", "annotator")}
    if names["generator_2"] == UNKNOWN:
        names["generator_2"] = names["generator"]
    return Annotation(
        instruction=text(row, "instruction", where=where), reference_output=text(row, "output_1", where=where),
        output=text(row, "output_2", where=where), reference=names["generator_1"], generator=names["generator_2"],
        judge=names["annotator"], outcome=outcome, where=where,
    )  # fmt: skip


def check_generator(annotations: Sequence[Annotation], generator: str | None) -> str:
    """Return the name of the model that all annotations judge.

    Args:
        annotations: of one file.
        generator: the name that it should have; None: whatever it is.

    Raises:
        UserError: there are several models, the model and the reference are swapped, or its name is another.
    """
    names, where = sorted({annotation.generator for annotation in annotations}), annotations[0].where
    if len(names) > 1:
        raise UserError(
            f"{where}: generator_2 has several names ({', '.join(names)}); expected annotations of one model"
        )
    (name,) = names
    if generator and name not in (generator, UNKNOWN):
        if generator in {annotation.reference for annotation in annotations}:
            swapped = (
                f"{where}: generator_1, the reference, is {generator}, and generator_2 {name}: the two are swapped"
            )
            raise UserError(f"{swapped}; expected the model in generator_2, or give --generator {name}")
        raise UserError(f"{where}: generator_2 is {name}; expected --generator {generator}")
    return generator or name


def check_outputs(annotations: Sequence[Annotation], outputs: Mapping[str, str], path: Path) -> None:
    """Refuse annotations that were made of other outputs than these.

    The package joins by instruction, reuses what it annotated before, and takes avg_length from the outputs: outputs
    that were generated again silently get the win rate of the old ones.

    Args:
        annotations: of one file.
        outputs: the model's outputs by instruction.
        path: their file.

    Raises:
        UserError: an instruction is missing on one side, or a text differs.
    """
    sizes = f"{len(outputs)} outputs in {path}, {len(annotations)} annotations"
    for annotation in annotations:
        output, asked = outputs.get(annotation.instruction), repr(annotation.instruction[:40])
        if output is None:
            missing = f"{annotation.where}: no output to the instruction {asked} ({sizes})"
            raise UserError(f"{missing}; the annotations are of other outputs: annotate these again")
        if output != annotation.output:
            differs = f"{annotation.where}: output_2 ({len(annotation.output)} characters) is not the output to {asked}"
            raise UserError(
                f"{differs} ({len(output)} characters); the annotations are of other outputs: annotate again"
            )
    if len(outputs) > len(annotations):
        raise UserError(f"{sizes}: the win rate would be that of a part; annotate the rest")


def comparisons_of(annotations: Iterable[Annotation]) -> Comparisons:
    """Return annotations for utils/evaluation/summary.py, which prints their win rate with its intervals."""
    found, judges, references = Comparisons({"annotations": 0}), set(), set()
    for annotation in annotations:
        found.sizes["annotations"] += 1
        prompt = key(annotation.instruction)
        if annotation.outcome is None:
            found.add(prompt, "failed", annotation.output, annotation.reference_output)
        else:
            found.add_outcome(prompt, annotation.outcome, annotation.output, annotation.reference_output)
        judges.add(annotation.judge)
        references.add(annotation.reference)
    found.describe("alpaca_eval", reference=" and ".join(sorted(references)), judge=sorted(judges))
    return found


COLUMNS = ("win_rate", "standard_error", "n_wins", "n_wins_base", "n_draws", "n_total", "discrete_win_rate", "mode",
           "avg_length")  # fmt: skip


def leaderboard_row(annotations: Sequence[Annotation]) -> dict[str, Any]:
    """Return the package's numbers of one model; null is left out, as there."""
    outcomes = [[annotation.outcome] for annotation in annotations if annotation.outcome is not None]
    found = simple_win_rate(outcomes, independent=True)
    error = math.nan
    if found.half_width is not None:
        error = found.half_width / 1.96
    discrete = (found.wins + found.ties / 2) / found.n
    lengths = [len(annotation.output) for annotation in annotations]
    values = (found.percent, error, found.wins, found.losses, found.ties, found.n, 100 * discrete, "community",
              sum(lengths) // len(lengths))  # fmt: skip
    return dict(zip(COLUMNS, values, strict=True))


def write_leaderboard(path: Path, name: str, annotated: Path) -> str:
    """Write leaderboard.csv as the package does: the model's name in a column without one, then COLUMNS.

    Args:
        path: the file to write.
        name: of the model.
        annotated: its annotations.

    Returns:
        What was written, for people.
    """
    annotations = list(_annotations(annotated))
    if not any(annotation.outcome is not None for annotation in annotations):
        return f"{path}: not written, no annotation has a preference"
    row = leaderboard_row(annotations)
    with replacing(path) as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(["", *row])
        writer.writerow([name, *row.values()])
    return f"{path}: win rate of {name} {row['win_rate']:.2f} %, n {row['n_total']}, {row['n_draws']} ties"
