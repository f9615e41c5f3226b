"""Outputs: what a program may write over, and the versions it was made with. One rule for all programs:

1. An output is never an input: it is no file that the command reads, and lies in no folder that it reads.
2. What a program did not write itself, or what was changed since, it replaces only with --overwrite.

    claim("group.py", {"--output_path": args.output_path}, reads=args.answers, overwrite=args.overwrite)
    ...                                 # the work, which may take hours and money
    write_jsonl(args.output_path, rows)  # each function of utils that writes a file ends with move()

The record of a file x is .x.plumbline.json beside it: the program, and digests of what it wrote. The record of a
training run is .plumbline.json in its folder: the program alone. Its models have no digest (reading 140 GB again takes
minutes) and need none: a finished run writes nothing more, and one that continues replaces only what it wrote.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from utils.errors import UserError, write_failure

RECORD = ".plumbline.json"
LAUNCHED = ("train.log", "run_*.sh")  # launch.sh puts them into a run's folder before the stage starts
_claimed: dict[str, str] = {}  # absolute path -> the program of this process that writes it


def claim(
    program: str, outputs: Mapping[str, Any], *, reads: Iterable[str | Path] = (), overwrite: bool = False
) -> None:
    """Refuse outputs that break the rule, and have move() keep the records of the others. Call it before any work.

    Args:
        program: the file name of the program, as records have it.
        outputs: by the option that names them, a path or several; None for what is not written.
        reads: every file and folder that the command reads; names that are neither are of the hub.
        overwrite: --overwrite.
    """
    if int(os.environ.get("RANK", 0)):
        # Rank 0 writes, and may have begun to.
        return
    reads, seen = list(reads), set()
    for flag, path in _each(outputs):
        _refuse_input(flag, path, reads)
        if path.is_dir():
            raise UserError(f"{flag} {path} is a folder; expected the name of a file")
        if path.resolve() in seen:
            raise UserError(f"{flag} {path} is another output of this command, too; give another {flag}")
        seen.add(path.resolve())
        if overwrite:
            # Without reading the files: they may be large.
            continue
        why = _foreign(program, path)
        if why:
            raise UserError(f"{why}; give another {flag}, or --overwrite to replace it")
    _claimed.update({os.path.abspath(path): program for _, path in _each(outputs)})


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
    _refuse_input(flag, folder, reads)
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
        _write_record(folder / RECORD, {"program": program})
    except OSError as error:
        raise UserError(f"{folder}: cannot be written: {write_failure(error)}", on_this_rank=True) from error


def move(partial: Path, path: Path) -> None:
    """Rename a finished file into its place. A claimed one gets its record before: a kill between the two leaves the
    old file, and the record still has the digest of that. Raises OSError."""
    program = _claimed.get(os.path.abspath(path))
    if program:
        digests = [_digest(partial)]
        old = _digest(path) if path.is_file() else None
        # Not the digest of a file of someone else, which is written over.
        if old in _digests(program, path):
            digests = [old, *digests]
        _write_record(_record_of(path), {"program": program, "digests": digests})
    partial.replace(path)


def remove(path: Path) -> None:
    """Delete a file that is the program's own, and its record."""
    path.unlink(missing_ok=True)
    _record_of(path).unlink(missing_ok=True)


def is_own(program: str, path: Path) -> bool:
    """Return whether the program wrote this file, and nobody changed it since."""
    return path.exists() and _foreign(program, path) is None


def has_record(path: Path) -> bool:
    """Return whether a program of the project wrote this file."""
    return _record_of(path).is_file()


def model_files(name: str | None, program: str) -> list[Path]:
    """Return the files of a model's local folder, as `reads`: the program may write new files beside them, and those
    again."""
    folder = Path(name or "").expanduser()
    if not name or not folder.is_dir():
        return []
    return [f for f in folder.iterdir() if f.is_file() and _read_record(_record_of(f)).get("program") != program]


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


def _each(outputs: Mapping[str, Any]) -> Iterator[tuple[str, Path]]:
    for flag, paths in outputs.items():
        for path in paths if isinstance(paths, list | tuple) else [paths]:
            if path:
                yield flag, Path(path)


def _refuse_input(flag: str, output: Path, reads: list[str | Path]) -> None:
    for read in filter(None, map(os.path.expanduser, reads)):
        # A hard link is the same file under a path that resolve() cannot tell.
        linked = output.exists() and os.path.exists(read) and os.path.samefile(output, read)
        if linked or output.resolve() == Path(read).resolve():
            raise UserError(f"{flag} {output} is an input of this command; give another {flag}")
        if os.path.isdir(read) and output.resolve().is_relative_to(Path(read).resolve()):
            raise UserError(f"{flag} {output} lies in {read}, which this command reads; give another {flag}")


def _foreign(program: str, path: Path) -> str | None:
    """Return why a file is not the program's own to replace; None when it is."""
    if not path.exists():
        return None
    writer = _read_record(_record_of(path)).get("program")
    if writer is None:
        return f"{path} has no record that {program} wrote it"
    if writer != program:
        return f"{path} was not written by {program} but by {writer}"
    if _digest(path) not in _digests(program, path):
        return f"{path} has been changed since {program} wrote it"
    return None


def _foreign_folder(program: str, folder: Path) -> str | None:
    """Return why a folder is not the run's own; None when it is. Runs from before there were records are known by their
    args.json."""
    if not folder.is_dir():
        return None
    writer = _read_record(folder / RECORD).get("program")
    if writer is None and "TrainingArguments" in _read_record(folder / "args.json"):
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


def _record_of(path: Path) -> Path:
    return path.with_name(f".{path.name}{RECORD}")


def _read_record(path: Path) -> dict[str, Any]:
    """Return a record; {} where there is none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(found, dict):
        return {}
    return found


def _digests(program: str, path: Path) -> list[str]:
    record = _read_record(_record_of(path))
    if record.get("program") != program:
        return []
    return record.get("digests", [])


def _write_record(path: Path, record: dict[str, Any]) -> None:
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps(record) + "\n", encoding="utf-8")
        partial.replace(path)
    finally:
        if path.parent.is_dir():
            partial.unlink(missing_ok=True)


def _digest(path: Path) -> str:
    with path.open("rb") as content:
        return hashlib.file_digest(content, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
