"""Running the cells of matrix.py. Every rank of main.py is a process forked from one that has imported torch,
transformers and DeepSpeed already: a cell starts at once and cannot harm another."""

from __future__ import annotations

import multiprocessing
import os
import re
import shutil
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from multiprocessing import connection, forkserver
from pathlib import Path

from matrix_cells import STAGES, Cell, Failure, refusal, twins

from utils.ranks import free_port

LIMIT = 180.0  # seconds for one run of a stage; the slowest takes 10 on two busy cores, so a longer one hangs
PRELOAD = [
    "deepspeed", "deepspeed.runtime.zero.muon.muon_optimizer", "peft", "rich.progress", "transformers",
    "transformers.hf_argparser", "transformers.models.llama.modeling_llama", "transformers.optimization",
]  # fmt: skip


@dataclass(frozen=True)
class Result:
    cell: Cell
    refused: str  # the program's reason, the expected one; empty when it ran
    wrong: str  # empty when it did what it should
    seconds: float


LOCK = threading.Lock()  # multiprocessing keeps the state of children in one place, unguarded


def start_server() -> None:
    """Start the process that every run is forked from, with an environment of its own."""
    kept = dict(os.environ)
    os.environ.update(OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false", DS_ACCELERATOR="cpu",
                      CUDA_VISIBLE_DEVICES="")  # fmt: skip
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        os.environ.pop(name, None)
    try:
        multiprocessing.get_context("forkserver").set_forkserver_preload(PRELOAD)
        forkserver.ensure_running()
    finally:
        os.environ.clear()
        os.environ.update(kept)


def _begin(log: Path, environment: dict[str, str]) -> None:
    """A new process: its output, its stack before the time is over, what it is told by the environment."""
    out = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.dup2(out, 1)
    os.dup2(out, 2)
    import faulthandler

    faulthandler.dump_traceback_later(LIMIT - 5, file=2)
    os.environ.update(environment)


def _run_program(log: Path, environment: dict[str, str], words: list[str]) -> None:
    _begin(log, environment)
    import runpy

    os.chdir(Path(words[0]).parent)
    sys.argv = words
    runpy.run_path(words[0], run_name="__main__")


def _run_function(log: Path, environment: dict[str, str], module: str, name: str, *arguments) -> None:
    _begin(log, environment)
    import importlib

    getattr(importlib.import_module(module), name)(*arguments)


def together(target, log: Path, *arguments, ranks: int = 1) -> int:
    """`target` in so many processes at once; when one fails, the others are killed, as torchrun does. Returns the first
    exit code that is not 0. Raises Failure when they take longer than LIMIT."""
    context, deadline = multiprocessing.get_context("forkserver"), time.monotonic() + LIMIT
    several = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(ranks)}
    told = [several | {"RANK": str(n), "LOCAL_RANK": str(n)} if ranks > 1 else {} for n in range(ranks)]
    with LOCK:
        running = [context.Process(target=target, args=(log, one, *arguments)) for one in told]
        for process in running:
            process.start()
    try:
        while running:
            done = connection.wait([p.sentinel for p in running], max(0.0, deadline - time.monotonic()))
            if not done:
                raise Failure(f"not done after {LIMIT:.0f} s; its stack is in {log}")
            with LOCK:
                codes = [p.exitcode for p in running if p.sentinel in done]
            running = [p for p in running if p.sentinel not in done]
            if any(codes):
                return next(code for code in codes if code)
    finally:
        with LOCK:
            for process in running:
                process.kill()
                process.join()
    return 0


def command_of(one: Cell, world: Path, out: Path) -> list[str]:
    """The command that a person would give."""
    from stages import command

    model = world / ("tied" if one["embeddings"] else "model")
    data = world / ("demos" if one.stage == "sft" else "pairs")
    return command(STAGES[one.stage], model, data, out, *one.flags(world), ranks=one.ranks)


def make_world(folder: Path) -> None:
    """The toys that all cells share. Raises Failure."""
    log = folder.parent / "world.log"
    if together(_run_function, log, "matrix_checks", "toys", folder):
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
    words = command_of(one, world, out)
    words = words[next(i for i, word in enumerate(words) if word.endswith("main.py")) :]
    for turn in range(2 if one["end"] else 1):
        code = together(_run_program, log, words, ranks=one.ranks)
        errors = re.findall(r"^error: (.*)", log.read_text(encoding="utf-8"), re.MULTILINE)
        if code == 2 and len(set(errors)) == 1:
            return errors[0]
        if code:
            raise Failure(f"exit code {code}: {errors[0] if errors else _last_words(log)}")
        what = "stopped" if one["end"] and not turn else "finished"
        if together(_run_function, log, "matrix_checks", what, one, world, out):
            raise Failure(_last_words(log))
    return ""


def _last_words(log: Path) -> str:
    """The line of a log that tells what went wrong."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    telling = r"(\[rank\d\]: *)?([\w.]*(Error|Exception|Failure)\b| *what\(\):)"
    found = [line for line in lines if re.match(telling, line)] or lines or ["it said nothing"]
    return found[-1].strip().removeprefix("matrix_cells.Failure: ")[:300]


def run_all(wanted: Sequence[Cell], jobs: int, folder: Path, done: Callable[[Result], None]) -> list[Result]:
    """Every cell, `jobs` at a time, in folders of their names; then twins are compared. Raises Failure."""
    start_server()
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
            if together(_run_function, log, "matrix_checks", "agree", outs):
                return replace(result, wrong=_last_words(log))
    return result
