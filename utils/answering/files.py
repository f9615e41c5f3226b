"""The files that a program reads (--data_path) and writes (--output_path, or beside what it reads)."""

from __future__ import annotations

import dataclasses
import glob
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from utils.answering.output import MADE_BY, made_by
from utils.answering.rows import AnswerRow, part_of, read_rows
from utils.errors import UserError
from utils.outputs import claim, has_record
from utils.provenance import model_files
from utils.raw_datasets.sources import SUFFIXES, is_hub_name
from utils.raw_datasets.spec import Spec

LINES = (".jsonl", ".txt")  # the endings of what is written
OF_ROWS = tuple(suffix for suffix in SUFFIXES if suffix not in (".json", ".json.gz"))  # what is taken of a folder


def open_files(
    args: Any, done: str, program: str, written: Callable[[Path], list[Path]] | None = None
) -> tuple[list[AnswerRow], Path]:
    """Read the rows of --data_path, and claim the output.

    Args:
        args: the options of the program, a FileArguments and ReaderArguments.
        done: ends the output's name when --output_path does not give one.
        program: the file name of the program, as records have it.
        written: what the program writes for an output; None: the output itself, by run_job().

    Returns:
        (the rows to work on, the output).

    Raises:
        UserError: an input cannot be read, or an output is another program's file, or was changed since.
    """
    if not args.data_path:
        raise UserError("--data_path is missing; expected [CLASS:]PATH_OR_NAME (docs/data.md)")
    output = output_file(args.output_path, args.data_path, done)
    sources = input_files(args.data_path, output)
    if written:
        claim_outputs(args, program, outputs=written(output), sources=sources)
    else:
        claim_shards(args, program, output=output, sources=sources)
    rows = read_rows(sources, verbatim=args.template == "plain")
    return part_of(rows, args.offset, args.data_fraction), output


def claim_outputs(args: Any, program: str, outputs: list[Path], sources: Sequence[Spec]) -> None:
    """Refuse outputs that are inputs or that another program wrote, and claim the others.

    Args:
        args: the options of the program, a FileArguments and ReaderArguments.
        program: the file name of the program.
        outputs: what it writes.
        sources: the data sets that it reads.

    Raises:
        UserError: another program wrote an output, or the command reads it.
    """
    reads = [spec.path for spec in sources]
    for name in (args.model_name_or_path, args.tokenizer_name_or_path, args.config_name_or_path):
        reads += model_files(name, program)
    claim(program, {"--output_path": outputs}, reads=reads, overwrite=args.overwrite)


def claim_shards(args: Any, program: str, output: Path, sources: Sequence[Spec]) -> None:
    """Claim an output of run_job(), with the parameters of claim_outputs(), but a single output.

    Args:
        args: the options of the program, a FileArguments and ReaderArguments.
        program: the file name of the program.
        output: what it writes.
        sources: the data sets that it reads.
    """
    # An output that is older than the records of outputs is known by the file beside it that says what made it.
    known = made_by(output).is_file() and not has_record(output)
    claim_outputs(
        dataclasses.replace(args, overwrite=args.overwrite or known), program, outputs=[output], sources=sources
    )


def input_files(paths: Sequence[str], output: Path) -> list[Spec]:
    """Return the data sets that --data_path names, [CLASS:]PATH_OR_NAME each, one for each file of a folder or a glob.

    The output is no input, whatever a folder holds. Raises UserError where it is named, or a glob matches no file.
    """
    found: list[Spec] = []
    for text in paths:
        spec = Spec.unweighted(text)
        path = os.path.expanduser(spec.path)
        if os.path.isdir(path):
            files = _of_folder(Path(path), output)
        elif glob.has_magic(path) and not os.path.exists(path):
            files = _of_glob(path)
        else:
            if Path(path).resolve() == output.resolve():
                raise UserError(f"{path} is the input and would be the output; give another --output_path")
            found.append(spec)
            continue
        for file in files:
            if file.resolve() != output.resolve():
                found.append(dataclasses.replace(spec, path=str(file)))
    return found


def _of_folder(folder: Path, output: Path) -> list[Path]:
    files = []
    for file in sorted(folder.iterdir()):
        if file.name.endswith(OF_ROWS) and file.name[0] != "." and file.resolve() != output.resolve():
            files.append(file)
    # Without such a file it may be a folder of another kind that raw_datasets reads.
    return files or [folder]


def _of_glob(pattern: str) -> list[Path]:
    files = []
    for path in sorted(map(Path, glob.glob(pattern, recursive=True))):
        if path.is_file() and not path.name.endswith(MADE_BY):
            files.append(path)
    if not files:
        raise UserError(f"{pattern}: no such files")
    return files


def output_file(given: str, data_path: Sequence[str], done: str) -> Path:
    """Return where the output goes: --output_path, or beside the input, x.jsonl -> x-generate.jsonl.

    An --output_path that is a folder, or a name without an ending, is completed. Several inputs are named by what their
    names share, or by their folder.

    Args:
        given: --output_path, or "".
        data_path: the inputs.
        done: ends the name when `given` does not name a file.
    """
    paths = [Spec.of(text).path for text in data_path]
    stem = _stem(paths)
    if not given:
        if not os.path.exists(os.path.expanduser(paths[0])) and is_hub_name(paths[0]):
            raise UserError(f"--output_path is missing: {paths[0]} is no file here, beside which the output could go")
        return stem.with_name(f"{stem.name}-{done}.jsonl")
    if given.endswith("/") or os.path.isdir(given):
        return Path(given).expanduser() / f"{stem.name}-{done}.jsonl"
    path = Path(given).expanduser()
    return path if path.name.endswith(LINES) else path.with_name(path.name + ".jsonl")


def _stem(paths: Sequence[str]) -> Path:
    """Return the inputs' common path without an ending."""
    path = Path(os.path.expanduser(paths[0])).absolute()
    if len(paths) > 1:
        names = [Path(other).name for other in paths]
    elif glob.has_magic(path.name) and not path.exists():
        names = [path.name.partition("*")[0].partition("?")[0]]
    else:
        # The longest ending first: .jsonl.gz before .gz.
        for suffix in sorted(SUFFIXES, key=len, reverse=True):
            if path.name.endswith(suffix):
                return path.with_name(path.name.removesuffix(suffix))
        return path
    shared = os.path.commonprefix(names).partition(".")[0].rstrip("-_.[")
    return path.with_name(shared or path.parent.name)


def named_files(words: list[str]) -> dict[str, Path]:
    """Return {name: file} of an option --answers NAME=FILE. Raises UserError."""
    found = {}
    for word in words:
        name, separator, file = word.partition("=")
        if not (name and separator and file):
            raise UserError(f"--answers {word!r}: expected NAME=FILE, as in sft=output/tutor/sft.jsonl")
        if name in found:
            raise UserError("--answers gives a name twice; expected NAME=FILE with different names")
        found[name] = Path(file)
    return found
