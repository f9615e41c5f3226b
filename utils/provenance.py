"""Provenance: which program wrote a folder or a file, and with which versions. utils/outputs.py has the rule.

The record of a training run is .plumbline.json in its folder: the program alone. Its models have no digest (reading 140
GB again takes minutes) and need none: a finished run writes nothing more, and one that continues replaces only what it
wrote.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from utils.errors import UserError, write_failure

RECORD = ".plumbline.json"
LAUNCHED = ("train.log", "run_*.sh")  # launch.sh puts them into a run's folder before the stage starts
# absolute path -> what is done with the finished file before move() gives it that name (utils/outputs.py, claim)
before_moving: dict[str, Callable[[Path], None]] = {}


def move(partial: Path, path: Path) -> None:
    """Rename a finished file into its place. A claimed one gets its record before: a kill between the two leaves the
    old file, and the record still has the digest of that. Raises OSError."""
    record = before_moving.get(os.path.abspath(path))
    if record:
        record(partial)
    partial.replace(path)


def check_folder(program: str, flag: str, folder: Path, *, reads: Iterable[str | Path], overwrite: bool) -> None:
    """Refuse the folder of a training run that breaks the rule; it must hold no input either.

    Args:
        program: the file name of the program, as records have it.
        flag: the option that names the folder.
        folder: the run's folder.
        reads: every file and folder that the command reads.
        overwrite: --overwrite.
    """
    if int(os.environ.get("RANK", 0)):
        return
    reads = list(reads)
    refuse_input(flag, folder, reads)
    for read in filter(os.path.exists, map(os.path.expanduser, reads)):
        if Path(read).resolve().is_relative_to(folder.resolve()):
            raise UserError(f"{flag} {folder} holds {read}, which this command reads; give another {flag}")
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{flag} {folder} is a file; expected a folder")
    why = _foreign_folder(program, folder)
    if why and not overwrite:
        raise UserError(f"{why}; give another {flag}, or --overwrite to write over it")


def record_folder(program: str, folder: Path) -> None:
    """Write the record of a run, which passed check_folder() and is about to take its first step."""
    try:
        write_record(folder / RECORD, {"program": program})
    except OSError as error:
        raise UserError(f"{folder}: cannot be written: {write_failure(error)}", on_this_rank=True) from error


def model_files(name: str | None, program: str) -> list[Path]:
    """Return the files of a model's local folder, as `reads`: the program may write new files beside them, and those
    again."""
    folder = Path(name or "").expanduser()
    if not name or not folder.is_dir():
        return []
    return [f for f in folder.iterdir() if f.is_file() and read_record(record_of(f)).get("program") != program]


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that numbers depend on."""
    found = {"python": sys.version.split()[0]}
    for name in ("torch", "transformers", "deepspeed", "datasets", "peft"):
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def commit() -> str | None:
    """Return the checkout's commit, with + when files differ from it; None outside git."""
    root = Path(__file__).resolve().parents[1]
    try:
        # Without tags (--exclude): git describe would name the nearest one instead of the commit.
        command = ["git", "-C", str(root), "describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*"]
        run = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return run.stdout.strip() or None


def refuse_input(flag: str, output: Path, reads: list[str | Path]) -> None:
    """Raise UserError for an output that is one of the inputs `reads`, or lies in one of these folders."""
    for read in filter(None, map(os.path.expanduser, reads)):
        # A hard link is the same file under a path that resolve() cannot tell.
        linked = output.exists() and os.path.exists(read) and os.path.samefile(output, read)
        if linked or output.resolve() == Path(read).resolve():
            raise UserError(f"{flag} {output} is an input of this command; give another {flag}")
        if os.path.isdir(read) and output.resolve().is_relative_to(Path(read).resolve()):
            raise UserError(f"{flag} {output} lies in {read}, which this command reads; give another {flag}")


def _foreign_folder(program: str, folder: Path) -> str | None:
    """Return why a folder is not the run's own; None when it is. Runs from before there were records are known by their
    args.json."""
    if not folder.is_dir():
        return None
    writer = read_record(folder / RECORD).get("program")
    if writer is None and "TrainingArguments" in read_record(folder / "args.json"):
        return None
    if writer == program:
        return None
    if writer is not None:
        return f"{folder} was not written by {program} but by {writer}"
    # Hidden files are of editors and systems, LAUNCHED of launch.sh.
    for file in sorted(folder.iterdir()):
        if not file.name.startswith(".") and not any(map(file.match, LAUNCHED)):
            return f"{folder} holds {file.name}, which was not written by {program}"
    return None


def record_of(path: Path) -> Path:
    """Return where the record of a file is."""
    return path.with_name(f".{path.name}{RECORD}")


def read_record(path: Path) -> dict[str, Any]:
    """Return a record; {} where there is none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(found, dict):
        return {}
    return found


def write_record(path: Path, record: dict[str, Any]) -> None:
    """Write a record beside its place and rename. Raises OSError."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps(record) + "\n", encoding="utf-8")
        partial.replace(path)
    finally:
        if path.parent.is_dir():
            partial.unlink(missing_ok=True)
