"""Convert feedback from one file format to another: the project's records, and those of other systems.

    python data_collect/convert.py --list
    python data_collect/convert.py --from responses --to ratings-csv --input sampled.json --output ratings.csv
    python data_collect/convert.py --from generations --to rankings-eval-csv --input a.json b.json --output c.csv

Every direction goes through records (docs/data.md). What a format has no place for is counted and printed; a row that
it cannot hold is an error, or is left out and counted with --on_bad_row skip. A folder of train and test files becomes
another folder when --output has no ending.
"""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from argparse import ArgumentParser
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

try:
    import utils.errors  # noqa: F401
except ImportError:
    ArgumentParser().exit(2, "error: no environment is active; at the project's root: source training/environment.sh\n")

from utils.arguments import parse
from utils.arguments.options import option, overwriting
from utils.errors import UserError, write_failure
from utils.feedback.conversions import STEPS
from utils.formats import FACTS, FORMATS, STRUCTURE, UNCOMPARED, UNRATED, write
from utils.outputs import claim
from utils.provenance import move
from utils.raw_datasets.base import RAW_DATASETS, did_you_mean, named
from utils.raw_datasets.reader import READ, USED, Reader
from utils.raw_datasets.sources import open_source
from utils.raw_datasets.spec import Spec
from utils.records import Record, RecordError
from utils.reporting import progress, run_program, say, warn

# The one direction that makes one file of two.
JOINED = ("generations", "rankings-eval-csv")
IMPLIED = {"preferences", "ties"}  # what ratings imply
# Directions in which the output has the bytes of the source system's own script.
EXACT = {
    ("responses", "ratings-csv"),
    ("responses", "rankings-csv"),
    ("rankings-feedback-csv", "rm-json"),
    ("generations", "ratings-eval-csv"),
    ("generations", "rankings-eval-csv"),
}


@dataclass
class ConvertArguments:
    from_format: str = option(
        "", help="format of the input, or any class of docs/data.md", aliases=["--from"], title="Formats"
    )
    to_format: str = option("", help="format of the output", aliases=["--to"])
    input: list[str] = option(
        [], help="file or folder to read; for rankings-eval-csv two, of a reference and of a model", title="Files"
    )
    output: str = option("", help="file or folder to write")
    overwrite: bool = overwriting()
    on_bad_row: Literal["error", "skip"] = option(
        "error", help="a row that cannot be read or written stops the program, or is left out and counted"
    )
    list_formats: bool = option(
        False,
        help="print formats and what directions lose (of --from, --to)",
        aliases=["--list"],
        title="Formats",
    )

    def __post_init__(self) -> None:
        files, formats = (
            {"--input": self.input, "--output": self.output},
            {"--from": self.from_format, "--to": self.to_format},
        )
        for flag, value in files.items():
            if self.list_formats and value:
                raise UserError(f"{flag} is not used with --list; give one of the two")
        for flag, value in (formats | files).items():
            if not self.list_formats and not value:
                raise UserError(f"{flag} is missing; --list names every format and direction")
        if self.from_format:
            named(self.from_format)
        if self.to_format and self.to_format not in FORMATS:
            closest, known = did_you_mean(self.to_format, FORMATS), ", ".join(FORMATS)
            raise UserError(f"--to {self.to_format}: no such format{closest}; known: {known}")


def main(argv: list[str] | None = None) -> None:
    """Convert files, or list the formats."""
    (args,) = parse([ConvertArguments], argv, description=__doc__)
    if args.list_formats:
        say("\n".join(listing(args)))
        return
    source, target = named(args.from_format).name, args.to_format
    count, wanted = 1, "one file or folder"
    if (source, target) == JOINED:
        count, wanted = 2, "two files, of a reference and of a model"
    if len(args.input) != count:
        raise UserError(f"--input: found {len(args.input)}; --from {source} --to {target} takes {wanted}")
    opened, output = open_source(args.input[0]), Path(args.output)
    both_splits = len(args.input) == 1 and opened.has_train and opened.has_test and not output.suffix
    files = output
    # A folder keeps its division: a row of the test split must not reach the training split of the new one.
    if both_splits:
        files = [output / f"{name}{FORMATS[target].file.suffix}" for name in ("train", "test")]
    claim("convert.py", {"--output": files}, reads=args.input, overwrite=args.overwrite)
    if len(args.input) == 2:
        reference, model = map(partial(read, args=args), args.input)
        convert(beside(reference, model, args), output, args)
    elif both_splits:
        with folder(output) as new:
            for file in files:
                convert(read(args.input[0], args, [file.stem == "test"]), new / file.name, args)
    else:
        convert(read(args.input[0], args), output, args)


def read(path: str, args: ConvertArguments, splits: Iterable[bool] = (False, True)) -> Iterator[Record]:
    """Yield the records of the training split, and of the test split (True), where there is one; then print what became
    of rows that are none."""
    source = open_source(path)
    for test in splits:
        if (test and source.has_test) or (not test and source.has_train):
            spec = Spec(path, named(args.from_format))
            reader = Reader(spec, source, test=test, renamed={}, on_bad_row=args.on_bad_row)
            reader.open()
            yield from reader.records()
            for what, count in reader.tally.items():
                if what not in (READ, USED):
                    warn(f"{path}: {count:,} {what} (first: {reader.first[what]})")


def convert(records: Iterable[Record], output: Path, args: ConvertArguments) -> None:
    """Write the records, and print how many rows there are and what they lost."""
    source, target = named(args.from_format).name, args.to_format
    bad: list[RecordError] = []
    on_bad = None
    if args.on_bad_row == "skip":
        on_bad = bad.append
    with progress(f"{source} to {target}", None) as advance:

        def counted() -> Iterator[Record]:
            for record in STEPS.get((source, target), iter)(records):
                advance()
                yield record

        tally = write(target, output, counted(), on_bad)
    say(f"{output}: {tally.pop('rows'):,} rows of {target}")
    if bad:
        warn(f"{output}: {len(bad):,} bad rows left out (first: {bad[0]})")
    if tally:
        lost = ", ".join(f"{what} ({count:,})" for what, count in tally.most_common())
        warn(f"{output}: what {target} has no place for, and in how many records it was: {lost}")


def beside(reference: Iterable[Record], model: Iterable[Record], args: ConvertArguments) -> Iterator[Record]:
    """Yield the model's records, each with the reference's answer to its prompt (the last, if several)."""
    # In memory: the two files may be in different orders.
    answers = {record.prompt: record.answers for record in reference}
    for record in model:
        if record.prompt in answers:
            yield dataclasses.replace(record, answers=answers[record.prompt] + record.answers, id="")
            continue
        missing = f"{record.where}: {args.input[0]} has no answer to {record.prompt[-1].content[:60]!r}"
        if args.on_bad_row == "error":
            raise UserError(f"{missing} (--on_bad_row skip leaves such rows out)")
        warn(f"left out: {missing}")


@contextlib.contextmanager
def folder(output: Path) -> Iterator[Path]:
    """Open a new folder, whose files go to `output` when all of them are written."""
    try:
        output.mkdir(parents=True, exist_ok=True)
        # In the folder's parent, which is on the same disk, so that the files can be renamed into place.
        with tempfile.TemporaryDirectory(dir=output.parent, prefix=".") as new:
            yield Path(new)
            for file in Path(new).iterdir():
                move(file, output / file.name)
    except OSError as error:
        raise UserError(f"{output}: cannot be written: {write_failure(error)}") from error


def listing(args: ConvertArguments) -> Iterator[str]:
    """Yield the lines of --list: every format, and every direction with what it loses."""
    yield "Formats:"
    yield from (f"  {form.name}: {form.about}" for form in FORMATS.values())
    only_read = {cls.name for cls in RAW_DATASETS.values()} - FORMATS.keys() - {"hh_rlhf"}
    yield f"  only read: {', '.join(sorted(only_read))} (docs/data.md)"
    yield "Directions, and what each loses or refuses (* the bytes of the source's own script):"
    sources, targets = list(FORMATS), list(FORMATS)
    if args.from_format:
        sources = [args.from_format]
    if args.to_format:
        targets = [args.to_format]
    for source in sources:
        ways: dict[str, list[str]] = {}
        for target in targets:
            if source != target and (lost := loss(source, target)) is not None:
                ways.setdefault(lost, []).append(target + "*" * ((source, target) in EXACT))
        for lost, names in ways.items():
            yield f"  {source} -> {', '.join(names)}: {lost}"


def loss(source: str, target: str) -> str | None:
    """Return what a direction loses, in words; None where there is no such direction."""
    here, there = FORMATS.get(source), FORMATS[target]
    if here is None:
        return "drops what a run of it says"
    facts = set(here.keeps)
    if "ratings" in facts:
        facts |= IMPLIED
    given = set(facts)
    if (named(source).name, target) == JOINED:
        given.add("several answers")
    if there.needs and not given & set(there.needs):
        return None
    # Without ratings nothing can be unrated, and without preferences nothing uncompared.
    if "ratings" not in facts:
        facts.discard(UNRATED)
    if "preferences" not in facts:
        facts.discard(UNCOMPARED)
    dropped, refused = [here.reading], []
    for fact in FACTS:
        if fact in there.keeps or fact not in facts or (fact in IMPLIED and fact not in here.keeps):
            continue
        if fact in STRUCTURE:
            refused.append(fact)
        else:
            dropped.append(fact)
    dropped = list(filter(None, [*dropped, there.writing]))
    parts = []
    if dropped:
        parts.append("drops " + ", ".join(dropped))
    if refused:
        parts.append("refuses " + ", ".join(refused))
    return "; ".join(parts) or "drops nothing"


if __name__ == "__main__":
    run_program(main)
