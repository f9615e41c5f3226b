"""What a large ledger and many rows cost: 64 instant requests beside many answers, and the planning of many rows.

PYTHONPATH=.:tests python tests/benchmarks/ledger_size.py --rows 200000 --rounds 11
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from large_ledger import fill, save_answers, seconds_of

from utils.arguments import parse
from utils.arguments.options import option

SMALL, REQUESTS = 2000, 64
PROGRAM = Path(__file__).parents[2] / "data_collect/request.py"


@dataclass
class Options:
    rows: int = option(200_000, help="answers of 3 kB in the large ledger, and rows to plan")
    rounds: int = option(11, help="times that each measurement is repeated, in turns")


def write_rows(path: Path, count: int) -> None:
    """Write rows of 2.2 kB; a request for a rating of one is 3 kB."""
    rng, words = random.Random(0), [f"w{number:04d}" for number in range(3000)]
    with path.open("w") as out:
        for number in range(count):
            question, answer = " ".join(rng.choices(words, k=100)), " ".join(rng.choices(words, k=250))
            row = {"id": f"row {number}", "prompt": question, "answers": [{"text": answer, "model": "m"}]}
            out.write(json.dumps(row) + "\n")


def cost_of(*command: object) -> str:
    """Run a command; return its CPU seconds and its peak memory."""
    process = subprocess.Popen([*map(str, command)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, _, used = os.wait4(process.pid, 0)
    return f"{used.ru_utime + used.ru_stime:.1f} s of CPU, peak {used.ru_maxrss / 1024:.0f} MB"


def two_processes(path: Path, folder: Path, first: int) -> float:
    """Let two processes ask for the same 400 requests; return the seconds from the first send to the last answer."""
    go = folder / f"go.{path.name}.{first}"
    worker = Path(__file__).parents[1] / "large_ledger.py"
    command = [sys.executable, worker, path, folder / "saved", first, 400, go]
    running = [subprocess.Popen([*map(str, command)], stdout=subprocess.DEVNULL) for _ in range(2)]
    while len(list(folder.glob(f"{go.name}.*.ready"))) < 2:
        time.sleep(0.01)
    began = time.perf_counter()
    go.touch()
    if any(process.wait() for process in running):
        raise SystemExit("a worker failed")
    return time.perf_counter() - began


def main(argv: list[str] | None = None) -> None:
    (options,) = parse([Options], argv, __doc__)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_answers(folder / "saved", options.rounds * 500)
        one, two = {SMALL: [], options.rows: []}, {SMALL: [], options.rows: []}
        for rows in one:
            fill(folder / str(rows), rows)
        for turn in range(options.rounds):
            for rows in one:
                path = folder / str(rows)
                one[rows].append(seconds_of(path, folder / "saved", 500 * turn, REQUESTS))
                two[rows].append(two_processes(path, folder, 500 * turn + REQUESTS))
        for title, found in (("64 requests", one), ("400 requests, two processes", two)):
            small, large = median(found[SMALL]), median(found[options.rows])
            sys.stdout.write(f"{title}: {small:.3f} s beside {SMALL}, {large:.3f} s beside {options.rows}, ")
            sys.stdout.write(f"ratio {large / small:.2f}\n")
        write_rows(folder / "rows.jsonl", options.rows)
        saved = ("--provider", "replay", "--base_url", folder / "saved")
        words = ("--kind", "rating", "--input_files", folder / "rows.jsonl", "--output_file", folder / "out.jsonl")
        dry = cost_of(sys.executable, PROGRAM, *words, *saved, "--dry_run")
        sys.stdout.write(f"dry run of {options.rows} rows: {dry}\n")
        # One request, so that all else is the plan and the output of every row.
        planned = cost_of(sys.executable, PROGRAM, *words, *saved, "--max_requests", 1)
        sys.stdout.write(f"plan and output of {options.rows} rows: {planned}\n")


if __name__ == "__main__":
    main()
