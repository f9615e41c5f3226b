"""Killed with SIGKILL twice after the checkpoint of step 3, and started again: the same files, byte for byte.

On a GPU only the deterministic option promises that; it is given where main.py knows it.
"""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from gpu.common import Part, kill
from gpu.stages import command_of, flags_of, run, toys
from processes import environment
from stages import metrics
from toys import ROOT

from utils.arguments.options import TrainingArguments

STEPS = 6
CASES = (
    ("step1_sft", "bf16", 1, ("--ema_decay", "0.9")),
    ("step1_sft", "fp32", 0, ("--dropout", "0.1")),
    ("step2_reward", "bf16", 2, ()),
    ("step3_dpo", "bf16", 3, ()),
    ("step3_dpo", "bf16", 2, ("--lora_dim", "4")),
    ("step3_ppo", "bf16", 1, ()),
)


def deterministic() -> tuple[str, ...]:
    """The flag, where the programs have it."""
    known = {field.name for field in dataclasses.fields(TrainingArguments)}
    return ("--deterministic",) if "deterministic" in known else ()


def kill_after(line: str, words: list[str], stage: str, log: Path, timeout: float) -> None:
    """Start the program, wait until it prints `line`, kill it and its children with SIGKILL."""
    with log.open("w", encoding="utf-8") as out:
        process = subprocess.Popen(words, cwd=ROOT / "training" / stage, env=environment(), stdout=out, stderr=out)
        deadline = time.monotonic() + timeout
        try:
            while process.poll() is None and line not in log.read_text(encoding="utf-8", errors="replace"):
                if time.monotonic() > deadline:
                    raise TimeoutError(f"{log} has no line {line!r} after {timeout:.0f} s")
                time.sleep(0.002)
            alive = process.poll() is None
        finally:
            kill(process)
    text = log.read_text(encoding="utf-8", errors="replace")
    assert line in text, f"it ended before {line!r}: {text[-1800:]}"
    assert alive, f"it had ended before it could be killed at {line!r}"


def files(out: Path) -> dict[str, bytes]:
    """The weights that a run has saved: the model, its average, a critic, an adapter."""
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*.safetensors"))}


def check(stage: str, dtype: str, zero: int, more: tuple[str, ...], made: Path, folder: Path) -> dict[str, float]:
    name = "-".join((stage, dtype, f"zero{zero}", *(flag.strip("-") for flag in more[:1])))
    whole, killed = folder / f"{name}-whole", folder / f"{name}-killed"
    for out in (whole, killed):
        shutil.rmtree(out, ignore_errors=True)
    flags = (
        "--max_steps", str(STEPS), "--checkpoint_every", "3", "--eval_every", "never", *deterministic(),
        *flags_of(dtype, zero), *more,
    )  # fmt: skip
    run(stage, made, whole, *flags)
    words = command_of(stage, made, killed, *flags)
    for attempt in (1, 2):
        kill_after(f"step 4/{STEPS}", words, stage, folder / f"{name}-killed-{attempt}.log", 240)
        saved = sorted(path.name for path in (killed / "checkpoints").glob("step-*"))
        assert saved and saved[-1].endswith("3"), f"checkpoints are {saved}; expected that of step 3"
    run(stage, made, killed, *flags)
    said = (folder / f"{name}-killed.log").read_text(encoding="utf-8")
    assert "continuing after step 3" in said, "the last run did not continue"
    theirs, ours = files(whole), files(killed)
    assert ours.keys() == theirs.keys() and len(ours), f"files {sorted(ours)}, expected {sorted(theirs)}"
    differing = [name for name in ours if ours[name] != theirs[name]]
    assert not differing, f"{', '.join(differing)}: other bytes than those of a run that was not killed"
    assert metrics(killed) == metrics(whole), "metrics.jsonl differs from that of a run that was not killed"
    return {"files": len(ours), "steps": STEPS, "deterministic": bool(deterministic())}


def cases(made: Path, folder: Path, chosen) -> Iterator[tuple[str, Callable]]:
    for stage, dtype, zero, more in chosen:
        name = " ".join((f"{stage}, {dtype}, ZeRO {zero}", *more))
        yield name, lambda c=(stage, dtype, zero, more): check(*c, made, folder)


def main(part: Part, chosen=CASES) -> None:
    folder = part.folder / "resume"
    made = toys(folder / "toys")
    part.run(cases(made, folder, chosen))
