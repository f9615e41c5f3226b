"""The parts of the GPU suite, by name: bash tests/gpu/run.sh list | all | PART …

Each part takes at most eight minutes and writes what it found into one JSON file; `table` puts the numbers of a GPU
into docs/numbers.md. Without a GPU the same code runs on tiny shapes, and nothing is written into documents.
"""

from __future__ import annotations

import argparse
import importlib
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from gpu import table
from gpu.common import BUDGET, RESULTS, Part, device_name, kill, on_gpu, sizes
from toys import ROOT

from utils.errors import UserError
from utils.reporting import run_program, say

GRACE = 60  # seconds: a part ends by itself at its budget, unless it hangs inside a library


@dataclass(frozen=True)
class Entry:
    """`module` of this folder measures it; `minutes` is what a part may need on one GPU; `sized`: SIZE selects."""

    module: str
    minutes: int
    sized: bool
    what: str


PARTS = {
    "parity": Entry("parity", 3, False, "packed rows against padded ones: values and gradients, fp32 and bf16"),
    "decoding": Entry("decoding", 3, False, "answers of the shared back end against model.generate, token by token"),
    "stages": Entry("stages", 5, False, "every stage's main.py at ZeRO 0 to 3, fp32 and bf16, on a toy model"),
    "resume": Entry("resume", 8, False, "killed twice and started again: the same files, byte for byte"),
    "speed_sft": Entry("speed", 8, True, "main.py of SFT: peak memory and tokens/s"),
    "speed_reward": Entry("speed", 8, True, "main.py of the reward model"),
    "speed_dpo": Entry("speed", 8, True, "main.py of DPO"),
    "speed_ppo": Entry("speed", 8, True, "main.py of PPO: rollouts and updates"),
    "speed_generation": Entry("speed", 5, True, "64 answers to one prompt"),
    "peers_sft": Entry("peers_training", 8, False, "SFT against TRL 1.16, equal losses first"),
    "peers_reward": Entry("peers_training", 8, False, "the reward model against TRL 1.16"),
    "peers_dpo": Entry("peers_training", 8, False, "DPO against TRL 1.16"),
    "peers_generation": Entry("peers_generation", 8, True, "generation against generate, generate_batch and vLLM"),
}


def run_part(name: str, size: str, results: Path, budget: float) -> bool:
    """In this process; True when nothing failed."""
    if not on_gpu():
        say(f"{name}: no CUDA device here: the tiny form, on the CPU", style="yellow")
    part = Part(name, results, size if PARTS[name].sized else "", budget, alarm=True)
    importlib.import_module(f"gpu.{PARTS[name].module}").main(part)
    failed = [row["case"] for row in part.rows if not row["ok"]]
    passed = len(part.rows) - len(failed)
    say(f"{name}: {passed} passed, {len(failed)} failed, {len(part.left_out)} left out; {results}")
    return not failed


def run_each(names: list[str], size: str, results: Path, budget: float) -> bool:
    """Each part, and each size of it, in a process and a time of its own: what one leaves behind slows no other."""
    passed = True
    for name in names:
        chosen = [s.name for s in sizes(size)] if PARTS[name].sized else [""]
        for one in chosen:
            words = [sys.executable, "-m", "gpu.suite", name, "--results", str(results), "--budget", str(budget)]
            words += ["--size", one] if one and on_gpu() else []
            process = subprocess.Popen(words)
            try:
                passed &= process.wait(budget + GRACE) == 0
            except subprocess.TimeoutExpired:
                say(f"{name} {one}: hangs; killed after {budget + GRACE:.0f} s", style="red")
                passed = False
            finally:
                kill(process)
    return passed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="+", help="list, all, table, or names of parts")
    parser.add_argument("--size", default="", help="0.5b, 1.5b, 8b-lora, several with commas; empty: all")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the JSON file")
    parser.add_argument("--budget", type=float, default=BUDGET, help="seconds of a part")
    parser.add_argument("--document", type=Path, default=ROOT / "docs/numbers.md", help="where `table` writes")
    args = parser.parse_args()
    args.results = args.results.resolve()
    unknown = [name for name in args.parts if name not in (*PARTS, "all", "list", "table")]
    if unknown:
        raise UserError(f"the part {unknown[0]!r} is unknown; known: all, list, table, {', '.join(PARTS)}")
    if "list" in args.parts:
        for name, entry in PARTS.items():
            say(f"{name:17} up to {entry.minutes} min  {entry.what}")
        return
    sizes(args.size)  # an unknown one is refused before anything runs
    say(f"device: {device_name()}; results: {args.results}")
    passed, names = True, list(PARTS) if "all" in args.parts else [name for name in args.parts if name in PARTS]
    if len(names) == 1:
        passed = run_part(names[0], args.size, args.results, args.budget)
    elif names:
        passed = run_each(names, args.size, args.results, args.budget)
    if "all" in args.parts or "table" in args.parts:
        table.write(args.results, args.document)
    if "all" in args.parts:  # models of 20 GB in all, which parts share
        shutil.rmtree(args.results.parent / "speed", ignore_errors=True)
    if not passed:
        raise UserError(f"checks failed; {args.results} says which and why")


if __name__ == "__main__":
    run_program(main)
