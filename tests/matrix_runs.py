"""Running the cells of matrix.py."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path

from matrix_cells import STAGES, Cell, refusal, twins
from processes import Failure, run_function, run_program, together
from stages import command, program


@dataclass(frozen=True)
class Result:
    cell: Cell
    refused: str  # the program's reason, the expected one; empty when it ran
    wrong: str  # empty when it did what it should
    seconds: float


def command_of(one: Cell, world: Path, out: Path) -> list[str]:
    """The command that a person would give."""
    return command(*_words(one, world, out), ranks=one.ranks)


def _words(one: Cell, world: Path, out: Path) -> tuple:
    model = world / ("tied" if one["embeddings"] else "model")
    data = world / ("demos" if one.stage == "sft" else "pairs")
    return STAGES[one.stage], model, data, out, *one.flags(world)


def make_world(folder: Path) -> None:
    """The toys that all cells share. Raises Failure."""
    log = folder.parent / "world.log"
    if together(run_function, log, "matrix_checks", "toys", folder):
        raise Failure(f"the toys cannot be made; see {log}")


def run_cell(one: Cell, world: Path, folder: Path) -> Result:
    """Run it in `folder`, where its log and what it wrote stay."""
    started = time.monotonic()
    expected = refusal(one.chosen)
    folder.mkdir(parents=True)
    try:
        reason, wrong = _run(one, world, folder), ""
        if (expected or reason) and not reason.startswith(expected or "it runs"):
            wrong = f"expected {f'a refusal: {expected} ...' if expected else 'a run'}; found {reason or 'a run'}"
    except Failure as failure:
        reason, wrong = "", str(failure)
    shutil.rmtree(folder / "out" / "checkpoints", ignore_errors=True)
    return Result(one, "" if wrong else reason, wrong.replace(f"{folder}/", ""), time.monotonic() - started)


def _run(one: Cell, world: Path, folder: Path) -> str:
    """The reason for which it was refused; "" when it ran and wrote what it should. Raises Failure otherwise."""
    out, log = folder / "out", folder / "log"
    words = program(*_words(one, world, out), ranks=one.ranks)
    for turn in range(2 if one["end"] else 1):
        code = together(run_program, log, words, ranks=one.ranks)
        errors = re.findall(r"^error: (.*)", log.read_text(encoding="utf-8"), re.MULTILINE)
        if code == 2 and len(set(errors)) == 1:
            return errors[0]
        if code:
            raise Failure(f"exit code {code}: {errors[0] if errors else _last_words(log)}")
        what = "stopped" if one["end"] and not turn else "finished"
        if together(run_function, log, "matrix_checks", what, one, world, out):
            raise Failure(_last_words(log))
    return ""


def _last_words(log: Path) -> str:
    """The line of a log that tells what went wrong."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    telling = r"(\[rank\d\]: *)?([\w.]*(Error|Exception|Failure)\b| *what\(\):)"
    found = [line for line in lines if re.match(telling, line)] or lines or ["it said nothing"]
    return found[-1].strip().removeprefix("processes.Failure: ")[:300]


def run_all(wanted: Sequence[Cell], jobs: int, folder: Path, done: Callable[[Result], None]) -> list[Result]:
    """Every cell, `jobs` at a time, in folders of their names; then twins are compared. Raises Failure."""
    make_world(folder / "world")
    results: dict[Cell, Result] = {}
    with ThreadPoolExecutor(jobs) as pool:
        futures = [pool.submit(run_cell, one, folder / "world", folder / one.name) for one in wanted]
        try:
            for future in as_completed(futures):
                results[future.result().cell] = future.result()
                done(future.result())
        finally:
            pool.shutdown(cancel_futures=True)
    return [compared(results[one], results, folder) for one in wanted]


def compared(result: Result, results: dict[Cell, Result], folder: Path) -> Result:
    """The result; wrong when its metrics are not those of the first of its twins."""
    for group in twins(result.cell.stage):
        other = results.get(group[0])
        if result.cell in group[1:] and not result.wrong and other and not other.wrong:
            outs = [folder / one.name / "out" for one in (group[0], result.cell)]
            log = folder / result.cell.name / "agreement.log"
            if together(run_function, log, "matrix_checks", "agree", outs):
                return replace(result, wrong=_last_words(log))
    return result
