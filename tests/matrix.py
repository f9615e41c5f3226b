"""Every stage x ZeRO 0, 1, 2, 3 x one and two ranks x full and LoRA x every option that generates or evaluates while it
trains: three steps on a toy model, on the CPU. A cell runs, and what it wrote is right, or it is refused with a reason.

    python tests/matrix.py --list                        # the cells (tests/matrix_cells.py)
    python tests/matrix.py                               # run them, two at a time
    python tests/matrix.py --only ppo-zero3-2ranks       # those whose name contains this regular expression
    python tests/matrix.py --sample 20                   # 20 of them, spread over all
    python tests/matrix.py --table docs/matrix.md        # run them all and write the table
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matrix_cells import FACTORS, TOLERANCE, Cell, cells, twins
from matrix_runs import Result, command_of, run_all
from processes import Failure

from utils.arguments import parse
from utils.arguments.options import expect, option
from utils.errors import UserError
from utils.reporting import run_program


@dataclass
class MatrixArguments:
    list: bool = option(False, help="print the cells, run none")
    only: str | None = option(help="a regular expression: cells whose name contains it")
    sample: int | None = option(help="run this many cells, spread over all")
    jobs: int = option(2, help="cells at a time; a cell of two ranks is two processes")
    table: str | None = option(help="Markdown file to write; for the whole matrix")

    def __post_init__(self) -> None:
        expect(self, "1 or more", "jobs", "sample")
        if self.table and (self.only or self.sample):
            raise UserError("--table is of the whole matrix; leave out --only and --sample")


def main(argv: Sequence[str] | None = None) -> None:
    (args,) = parse([MatrixArguments], argv, __doc__)
    wanted = [one for one in cells() if re.search(args.only or "", one.name)]
    if not wanted:
        raise UserError(f"--only {args.only}: no cell has such a name; --list shows them")
    wanted = wanted[:: max(1, len(wanted) // args.sample)][: args.sample] if args.sample else wanted
    if args.list:
        print("\n".join(one.name for one in wanted))
        return
    folder, started = Path(tempfile.mkdtemp(prefix="matrix-")), time.monotonic()
    try:
        results = run_all(wanted, args.jobs, folder, Progress(len(wanted)))
    except Failure as failure:
        raise UserError(str(failure)) from None
    seconds = time.monotonic() - started
    wrong = [result for result in results if result.wrong]
    for result in wrong:
        place = folder / result.cell.name
        words = shlex.join(command_of(result.cell, folder / "world", place / "out"))
        print(f"\n{result.cell.name}\n    {result.wrong}\n    {place / 'log'}\n    {words}")
    print(f"\n{summary(results)}; {seconds:.0f} s")
    if args.table:
        Path(args.table).write_text(markdown(results, seconds), encoding="utf-8")
    if wrong:
        sys.exit(1)
    shutil.rmtree(folder)


class Progress:
    """A line for each cell that is done, with the time left."""

    def __init__(self, total: int) -> None:
        self.total, self.number, self.started = total, 0, time.monotonic()

    def __call__(self, result: Result) -> None:
        self.number += 1
        left = (time.monotonic() - self.started) / self.number * (self.total - self.number)
        done = f"{self.number:4}/{self.total}  {left:4.0f} s left"
        print(f"{done}  {result.cell.name}  {result.seconds:.0f} s  {_found(result)}", flush=True)


def summary(results: Sequence[Result]) -> str:
    wrong, refused = (sum(bool(getattr(r, name)) for r in results) for name in ("wrong", "refused"))
    return f"{len(results)} cells: {len(results) - wrong - refused} run, {refused} are refused, {wrong} are wrong"


TITLES = {"sft": "Supervised fine-tuning", "reward": "Reward model", "dpo": "DPO", "ppo": "PPO"}
DOCUMENT = """# What runs with what

Written by `python tests/matrix.py --table docs/matrix.md`, which takes {minutes} minutes on {cores} CPU cores.
{summary}. `bash test.sh` runs a sample, `bash test.sh --all` all.

A cell is three steps of a stage on a toy model, with one value of each factor below. In at least one cell every layout
(ZeRO stage, ranks, full or LoRA) meets every value of every other factor, and every two values of any two factors meet.
Of each run is checked:

- the exit code is 0, and every metric is a finite number;
- evaluations and samples are there, at the steps and in the number asked for;
- plain transformers loads every folder that was saved (the model, `ema/`, `critic/`, those of `--save_every`), its
  weights are finite, tied embeddings are still tied; what learned differs from what it started from, and what had
  nothing to learn from (PPO with every answer masked) does not;
- with every step saved, `ema/` is their average (full weights, not PPO, which averages each of its updates);
- a run that continues from a checkpoint ends with the metrics and weights of the run that was not stopped, to the bit.

A combination that a program refuses ends with exit code 2 and one line that gives the reason. In float32 the metrics of
a stage agree to {tolerance:g} (relative or absolute), and the samples before training are the same, in these layouts:

{twins}

| factor | what it adds to the command; a row below names it when it is used |
|---|---|
{factors}
"""


def markdown(results: Sequence[Result], seconds: float) -> str:
    """The document of these results."""
    said = {1: "one", 2: "two", 4: "four", 8: "eight"}
    text = DOCUMENT.format(
        summary=summary(results), minutes=max(1, round(seconds / 60)), tolerance=TOLERANCE,
        cores=said.get(os.cpu_count(), os.cpu_count()),
        twins="\n".join("- " + ", ".join(one["layout"] for one in group) for group in twins("sft")),
        factors="\n".join(_factor(*known) for known in _factors().items()),
    )  # fmt: skip
    for stage, title in TITLES.items():
        rows = [f"| {row_of(result.cell)} | {_found(result)} |" for result in results if result.cell.stage == stage]
        head = [f"## {title}", "", "| ZeRO | ranks | tuning | dtype | with | |", "|---|---|---|---|---|---|"]
        text += "\n".join(["", *head, *rows, ""])
    return text


def row_of(one: Cell) -> str:
    """The columns of the table that say which cell it is."""
    zero, ranks, tuning = one["layout"].split("-")
    rest = ", ".join(filter(None, one.values[2:]))
    return f"{zero[4:]} | {ranks[0]} | {tuning} | {one['dtype']} | {rest}"


def _found(result: Result) -> str:
    return f"**wrong**: {result.wrong}" if result.wrong else f"refused: {result.refused}" if result.refused else "runs"


def _factors() -> dict[str, dict[str, Sequence[str]]]:
    known: dict[str, dict[str, Sequence[str]]] = {}
    for factors in FACTORS.values():
        known |= {name: values for name, values in factors.items() if name != "layout"}
    return known


def _factor(name: str, values: dict[str, Sequence[str]]) -> str:
    told = [f"{value or 'else'}: `{' '.join(flags)}`" if flags else value for value, flags in values.items()]
    return f"| {name} | {'; '.join(filter(None, told))} |"


if __name__ == "__main__":
    run_program(main)
