"""Outputs: what a program may write over. One rule for all programs:

1. An output is never an input: it is no file that the command reads, and lies in no folder that it reads.
2. What a program did not write itself, or what was changed since, it replaces only with --overwrite.

    claim("group.py", {"--output_path": args.output_path}, reads=args.answers, overwrite=args.overwrite)
    ...                                 # the work, which may take hours and money
    write_jsonl(args.output_path, rows)  # each function of utils that writes a file ends with move()

The record of a file x is .x.plumbline.json beside it: the program, and digests of what it wrote. The folders
of training runs, and move(), are in utils/provenance.py.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from utils.errors import UserError
from utils.provenance import before_moving, read_record, record_of, refuse_input, write_record


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
        refuse_input(flag, path, reads)
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
    for _, path in _each(outputs):
        before_moving[os.path.abspath(path)] = partial(_record, program, path)


def _record(program: str, path: Path, finished: Path) -> None:
    """Write the record of the file that is about to become `path`."""
    digests = [_digest(finished)]
    old = _digest(path) if path.is_file() else None
    # Not the digest of a file of someone else, which is written over.
    if old in _digests(program, path):
        digests = [old, *digests]
    write_record(record_of(path), {"program": program, "digests": digests})


def remove(path: Path) -> None:
    """Delete a file that is the program's own, and its record."""
    path.unlink(missing_ok=True)
    record_of(path).unlink(missing_ok=True)


def is_own(program: str, path: Path) -> bool:
    """Return whether the program wrote this file, and nobody changed it since."""
    return path.exists() and _foreign(program, path) is None


def has_record(path: Path) -> bool:
    """Return whether a program of the project wrote this file."""
    return record_of(path).is_file()


def _each(outputs: Mapping[str, Any]) -> Iterator[tuple[str, Path]]:
    for flag, paths in outputs.items():
        for path in paths if isinstance(paths, list | tuple) else [paths]:
            if path:
                yield flag, Path(path)


def _foreign(program: str, path: Path) -> str | None:
    """Return why a file is not the program's own to replace; None when it is."""
    if not path.exists():
        return None
    writer = read_record(record_of(path)).get("program")
    if writer is None:
        return f"{path} has no record that {program} wrote it"
    if writer != program:
        return f"{path} was not written by {program} but by {writer}"
    if _digest(path) not in _digests(program, path):
        return f"{path} has been changed since {program} wrote it"
    return None


def _digests(program: str, path: Path) -> list[str]:
    record = read_record(record_of(path))
    if record.get("program") != program:
        return []
    return record.get("digests", [])


def _digest(path: Path) -> str:
    with path.open("rb") as content:
        return hashlib.file_digest(content, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
