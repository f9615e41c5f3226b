"""Feedback from one file format to another: the project's records, and those of other systems.

    python data_collect/convert.py --list
    python data_collect/convert.py --from responses --to ratings-csv --input sampled.json --output ratings.csv
    python data_collect/convert.py --from generations --to rankings-eval-csv --input a.json b.json --output c.csv

Every direction goes through records (docs/data.md). What a format has no place for is counted and said; a row that it
cannot hold is an error, or is left out and counted with --on_bad_row skip. A folder of train and test files becomes
another when --output has no ending.
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
from utils.formats import FACTS, FORMATS, STRUCTURE, UNCOMPARED, UNRATED, write
from utils.outputs import claim, move
from utils.raw_datasets.base import RAW_DATASETS, did_you_mean, named
from utils.raw_datasets.reader import READ, USED, Reader
from utils.raw_datasets.sources import open_source
from utils.raw_datasets.spec import Spec
from utils.records import Answer, Message, Record, RecordError, Verdict
from utils.reporting import progress, run_program, say, warn

JOINED = ("generations", "rankings-eval-csv")  # two files into one
IMPLIED = {"preferences", "ties"}  # what ratings say beside themselves
EXACT = {  # the bytes of the sources' own scripts
    ("responses", "ratings-csv"),
    ("responses", "rankings-csv"),
    ("rankings-feedback-csv", "rm-json"),
    ("generations", "ratings-eval-csv"),
    ("generations", "rankings-eval-csv"),
}


@dataclass
class ConvertArguments:
    from_format: str = option("", help="format of the input, or any class of docs/data.md", aliases=["--from"])
    to_format: str = option("", help="format of the output", aliases=["--to"])
    input: list[str] = option([], help="the file, or folder; for rankings-eval-csv two: of a reference and of a model")
    output: str = option("", help="the file, or folder, to write")
    overwrite: bool = overwriting()
    on_bad_row: Literal["error", "skip"] = option("error", help="what cannot be read or written stops, or is counted")
    list_formats: bool = option(
        False, help="print formats and what directions lose (of --from, --to)", aliases=["--list"]
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
    (args,) = parse([ConvertArguments], argv, description=__doc__)
    if args.list_formats:
        say("\n".join(listing(args)))
        return
    source, target = named(args.from_format).name, args.to_format
    if len(args.input) != 1 + ((source, target) == JOINED):
        wanted = "two files, of a reference and of a model" if (source, target) == JOINED else "one file or folder"
        raise UserError(f"--input: found {len(args.input)}; --from {source} --to {target} takes {wanted}")
    opened, output = open_source(args.input[0]), Path(args.output)
    both_splits = len(args.input) == 1 and opened.has_train and opened.has_test and not output.suffix
    files = [output / f"{name}{FORMATS[target].file.suffix}" for name in ("train", "test")] if both_splits else output
    claim("convert.py", {"--output": files}, reads=args.input, overwrite=args.overwrite)
    if len(args.input) == 2:
        reference, model = (read(path, args) for path in args.input)
        convert(beside(reference, model, args), output, args)
    elif both_splits:
        with folder(output) as new:
            for file in files:
                convert(read(args.input[0], args, [file.stem == "test"]), new / file.name, args)
    else:
        convert(read(args.input[0], args), output, args)


def read(path: str, args: ConvertArguments, splits: Iterable[bool] = (False, True)) -> Iterator[Record]:
    """The records of the training split, and of the test split (True), where there is one; then what became of rows
    that are none."""
    source = open_source(path)
    for test in splits:
        if source.has_test if test else source.has_train:
            spec = Spec(path, named(args.from_format))
            reader = Reader(spec, source, test=test, renamed={}, on_bad_row=args.on_bad_row)
            reader.open()
            yield from reader.records()
            for what, count in reader.tally.items():
                if what not in (READ, USED):
                    warn(f"{path}: {count:,} {what} (first: {reader.first[what]})")


def convert(records: Iterable[Record], output: Path, args: ConvertArguments) -> None:
    """Write the records, and say how many rows there are and what they lost."""
    source, target = named(args.from_format).name, args.to_format
    bad: list[RecordError] = []
    with progress(f"{source} to {target}", None) as advance:
        counted = (record for record in STEPS.get((source, target), iter)(records) if advance() is None)
        tally = write(target, output, counted, bad.append if args.on_bad_row == "skip" else None)
    say(f"{output}: {tally.pop('rows'):,} rows of {target}")
    if bad:
        warn(f"{output}: {len(bad):,} bad rows left out (first: {bad[0]})")
    if tally:
        lost = ", ".join(f"{what} ({count:,})" for what, count in tally.most_common())
        warn(f"{output}: what {target} has no place for, and in how many records it was: {lost}")


def beside(reference: Iterable[Record], model: Iterable[Record], args: ConvertArguments) -> Iterator[Record]:
    """The model's records in their order, each with the reference's answer to its prompt (the last, if several)."""
    answers = {record.prompt: record.answers for record in reference}
    for record in model:
        if record.prompt in answers:
            yield dataclasses.replace(record, answers=answers[record.prompt] + record.answers, id="")
            continue
        missing = f"{record.where}: {args.input[0]} has no answer to {record.prompt[-1].content[:60]!r}"
        if args.on_bad_row == "error":
            raise UserError(f"{missing} (--on_bad_row skip leaves such rows out)")
        warn(f"left out: {missing}")


def each_turn(records: Iterable[Record]) -> Iterator[Record]:
    """A record for every answer of a conversation, after what was said before it."""
    for record in records:
        said = [*record.prompt, *(Message("assistant", answer.text) for answer in record.answers)]
        for n, message in enumerate(said):
            if message.role == "assistant":
                yield Record(tuple(said[:n]), (Answer(message.content),), where=record.where)


def without_repeats(records: Iterable[Record]) -> Iterator[Record]:
    """Verdicts that are exact copies of earlier ones on the same prompt are left out."""
    for record in records:
        unlike: dict[tuple[str, str, str], Verdict] = {}
        for v in record.verdicts:
            unlike.setdefault((record.answers[v.a].text, record.answers[v.b].text, v.preferred), v)
        yield dataclasses.replace(record, verdicts=tuple(unlike.values()))


def together(records: Iterable[Record], distinct: bool = False) -> Iterator[Record]:
    """One record a prompt, with all its answers; `distinct` leaves out texts that it has."""
    found: dict[tuple, Record] = {}
    for record in records:
        first = found.setdefault(record.prompt, dataclasses.replace(record, answers=()))
        new = [a for a in record.answers if not (distinct and a.text in {each.text for each in first.answers})]
        found[record.prompt] = dataclasses.replace(first, answers=(*first.answers, *new), id="")
    return iter(found.values())


STEPS = {  # (class that reads, format to write) -> what is done in between
    ("conversations", "formatted"): each_turn,
    ("tutoring", "formatted"): each_turn,
    ("rankings-feedback-csv", "rm-json"): without_repeats,
    **{("ratings-csv", target): together for target in ("responses", "generations-n", "completions")},
    **{("rankings-csv", target): partial(together, distinct=True) for target in ("responses", "generations-n")},
}


@contextlib.contextmanager
def folder(output: Path) -> Iterator[Path]:
    """A new folder, whose files go to `output` when all of them are written."""
    try:
        output.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=output.parent, prefix=".") as new:
            yield Path(new)
            for file in Path(new).iterdir():
                move(file, output / file.name)
    except OSError as error:
        raise UserError(f"{output}: cannot be written: {write_failure(error)}") from error


def listing(args: ConvertArguments) -> Iterator[str]:
    """Every format, and every direction with what it loses."""
    yield "Formats:"
    yield from (f"  {form.name}: {form.about}" for form in FORMATS.values())
    only_read = {cls.name for cls in RAW_DATASETS.values()} - FORMATS.keys() - {"hh_rlhf"}
    yield f"  only read: {', '.join(sorted(only_read))} (docs/data.md)"
    yield "Directions, and what each loses or refuses (* the bytes of the source's own script):"
    for source in FORMATS if not args.from_format else [args.from_format]:
        ways: dict[str, list[str]] = {}
        for target in FORMATS if not args.to_format else [args.to_format]:
            if source != target and (lost := loss(source, target)) is not None:
                ways.setdefault(lost, []).append(target + "*" * ((source, target) in EXACT))
        yield from (f"  {source} -> {', '.join(targets)}: {lost}" for lost, targets in ways.items())


def loss(source: str, target: str) -> str | None:
    """What a direction loses, in words; None where there is no such direction."""
    here, there = FORMATS.get(source), FORMATS[target]
    if here is None:
        return "drops what a run of it says"
    says = here.keeps | (IMPLIED if "ratings" in here.keeps else set())
    can = says | {"several answers"} if (named(source).name, target) == JOINED else says
    if there.needs and not can & set(there.needs):
        return None
    says = says - (set() if "ratings" in says else {UNRATED}) - (set() if "preferences" in says else {UNCOMPARED})
    beyond = [fact for fact in FACTS if fact in says - there.keeps]
    beyond = [fact for fact in beyond if fact not in IMPLIED or fact in here.keeps]
    lost = [*filter(None, (here.reading, *(fact for fact in beyond if fact not in STRUCTURE), there.writing))]
    refused = [fact for fact in beyond if fact in STRUCTURE]
    parts = ["drops " + ", ".join(lost)] * bool(lost) + ["refuses " + ", ".join(refused)] * bool(refused)
    return "; ".join(parts) or "drops nothing"


if __name__ == "__main__":
    run_program(main)
