"""Gather prompts of public data sets in one file: dialogues, questions, posts to sum up, instructions.

    python data_collect/gather_prompts.py --data_path hh:hh-rlhf/train.jsonl.gz webgpt:comparisons.jsonl \\
        tldr:train.jsonl --per_task 10000 --max_words 700 --output_path data_collect/data/origin/problems.txt
    python data_collect/gather_prompts.py --data_path dolly:dolly-15k.jsonl self_instruct:user_oriented.jsonl \\
        'natural_instructions:tasks/*.json=1000rows' sharegpt:sharegpt.json --form instructions --output_path all.jsonl

Exact copies of a prompt are kept once. A table shows how many rows of each source were used or left out, and why.
"""

from __future__ import annotations

import glob
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

try:
    import utils.errors  # noqa: F401
except ImportError:
    ArgumentParser().exit(2, "error: no environment is active; at the project's root: source training/environment.sh\n")

from utils.arguments import parse
from utils.arguments.options import expect, option, overwriting, required
from utils.errors import UserError
from utils.feedback.gathering import (
    DUPLICATES,
    KEPT,
    PROMPTS,
    ROWS,
    SEVERAL,
    TOO_LONG,
    TOO_SHORT,
    UNWANTED,
    Gathering,
    all_prompts,
    draw,
    draw_tasks,
)  # fmt: skip
from utils.feedback.prompt_sources import SOURCES, prompts_of
from utils.feedback.source_prompt import RECORDS, SourcePrompt, prompt_of_record
from utils.model.from_scratch import token_counter
from utils.outputs import claim
from utils.provenance import model_files
from utils.raw_datasets.base import LeftOut, did_you_mean
from utils.raw_datasets.named import NAMED
from utils.raw_datasets.reader import BAD, READ, Reader
from utils.raw_datasets.sources import Rows, open_source
from utils.raw_datasets.spec import Spec
from utils.records import RecordError
from utils.records.files import write_jsonl
from utils.reporting import progress, run_program, say, warn, write_json
from utils.tables import aligned

PROGRAM = "gather_prompts.py"


@dataclass
class GatherArguments:
    data_path: list[str] = required(
        f"prompts, each SOURCE:PATH[=Nrows]; SOURCE is one of {', '.join(SOURCES)} or records (what any class reads); "
        "PATH is a file, a folder (its training split), a glob or a Hugging Face name; Nrows draws N of its prompts",
        title="Files",
    )
    output_path: str = required("file to write, JSON Lines")
    form: Literal["lines", "records", "instructions"] = option(
        "lines",
        help="form of a row; lines: prompt, task, source; records: docs/data.md; instructions: with input",
    )
    per_task: int | None = option(help="prompts of each task (dialog, qa, summary); None: all", title="Prompts")
    max_words: int | None = option(help="longest prompt in words; white space parts them")
    max_characters: int | None = option(help="longest prompt in characters")
    max_tokens: int | None = option(help="longest prompt in tokens of --tokenizer_name_or_path")
    min_words: int = option(1, help="shortest prompt in words")
    tokenizer_name_or_path: str | None = option(help="tokenizer that --max_tokens counts with")
    leave_out: list[str] = option([], help="texts that no prompt may contain; e.g. Fact-check")
    num_turns: int = option(1, help="prompts taken of one ShareGPT chat; they are its first human turns")
    keep_answers: bool = option(False, help="also write people's answers, as chosen and reject", title="Files")
    on_bad_row: Literal["error", "skip"] = option("error", help="a row that is not its source's: stop, or leave it out")
    seed: int = option(42, help="seed of what is drawn", title="Prompts")
    summary: str | None = option(help="JSON file for the counts", title="Files")
    overwrite: bool = overwriting()

    def __post_init__(self) -> None:
        expect(self, "1 or more", "per_task", "max_words", "max_tokens")
        expect(self, "1 or more", "max_characters", "min_words", "num_turns")
        if (self.max_tokens is None) != (self.tokenizer_name_or_path is None):
            raise UserError("--max_tokens and --tokenizer_name_or_path go together; give both or neither")
        if self.num_turns > 1 and not any(path.startswith("sharegpt:") for path in self.data_path):
            raise UserError("--num_turns concerns the source sharegpt alone, and --data_path names no sharegpt:PATH")
        if self.keep_answers and self.form == "instructions":
            raise UserError("--form instructions has no place for answers; leave --keep_answers out")


def main(argv: list[str] | None = None) -> None:
    """Gather prompts."""
    (args,) = parse([GatherArguments], argv, description=__doc__)
    sources, seen = [_opened(word) for word in args.data_path], set()
    reads = list(model_files(args.tokenizer_name_or_path, PROGRAM))
    for source in sources:
        reads += _paths(source.spec.path)
    outputs = {"--output_path": args.output_path, "--summary": args.summary}
    claim(PROGRAM, outputs, reads=reads, overwrite=args.overwrite)
    tokens = None
    if args.tokenizer_name_or_path:
        tokens = token_counter(args.tokenizer_name_or_path)
    for number, source in enumerate(sources):
        with progress(f"reading {source.spec.path}", None) as advance:
            for prompt in _read(source, args):
                _take(source, prompt, args, seen, tokens)
                advance()
        if source.spec.rows is not None:
            source.keep(draw(source.prompts, source.spec.rows, f"{args.seed} {number}"))
        # A prompt that one source did not draw may still be taken from the next.
        seen |= {prompt.text for prompt in source.prompts}
    if args.per_task is not None:
        draw_tasks(sources, args.per_task, args.seed)
    # After the draws: a prompt that was not drawn is not kept.
    prompts = all_prompts(sources)
    for source in sources:
        source.tally[KEPT] = len(source.prompts)
    _report(sources, prompts, args)
    if not prompts:
        raise UserError(f"{', '.join(args.data_path)}: no prompt is left; the table above says what became of them")
    write_jsonl(Path(args.output_path), [_written(prompt, args) for prompt in prompts])
    say(f"{args.output_path}: {len(prompts)} prompts")


def _opened(word: str) -> Gathering:
    name, colon, path = word.partition(":")
    if not colon or name not in (*SOURCES, RECORDS):
        closest = "; expected SOURCE:PATH"
        if colon:
            closest = did_you_mean(name, SOURCES)
        kinds = "; ".join(f"{known} ({source.needs})" for known, source in SOURCES.items())
        raise UserError(f"--data_path {word}: unknown source {name!r}{closest}; known: {kinds}")
    spec = Spec.of(path)
    if spec.weight != 1 or (spec.cls and name != RECORDS and spec.path not in NAMED):
        raise UserError(f"--data_path {word}: expected SOURCE:PATH or SOURCE:PATH=Nrows")
    return Gathering(name, spec)


def _paths(path: str) -> list[str]:
    # A file whose name holds a * or a bracket is itself, not a pattern.
    if Path(path).exists() or not glob.has_magic(path):
        return [path]
    return sorted(glob.glob(path, recursive=True))


def _rows(path: str) -> Rows:
    """Yield every row of a file, of a glob, or of the training split of a source that has one."""
    paths = _paths(path)
    if not paths:
        raise UserError(f"{path}: no such files")
    for one in paths:
        # A test split is never trained on, not even its prompts.
        source = open_source(one)
        yield from source.rows(test=not source.has_train)


def _read(source: Gathering, args: GatherArguments) -> Iterator[SourcePrompt]:
    read = _of_rows
    if source.name == RECORDS:
        read = _of_records
    for found in read(source, args):
        if isinstance(found, LeftOut):
            source.tally[found.reason] += 1
        else:
            source.tally[PROMPTS] += 1
            yield found


def _of_records(source: Gathering, args: GatherArguments) -> Iterator[SourcePrompt | LeftOut]:
    opened = open_source(source.spec.path)
    reader = Reader(source.spec, opened, test=not opened.has_train, renamed={}, on_bad_row=args.on_bad_row)
    reader.open()
    yield from map(prompt_of_record, reader.records())
    source.tally[ROWS] = reader.tally.pop(READ)
    source.tally.update(reader.tally)


def _of_rows(source: Gathering, args: GatherArguments) -> Iterator[SourcePrompt | LeftOut]:
    for row, where in _rows(source.spec.path):
        source.tally[ROWS] += 1
        try:
            yield from prompts_of(source.name, row, where, args.num_turns)
        except RecordError as error:
            if args.on_bad_row == "error":
                raise RecordError(f"{error} (--on_bad_row skip leaves such rows out)") from error
            source.tally[BAD] += 1
            # The first is enough to see what is wrong; the others are counted.
            if source.tally[BAD] == 1:
                warn(f"first bad row: {error}")


def _take(
    source: Gathering, prompt: SourcePrompt, args: GatherArguments, seen: set[str], tokens: Callable | None
) -> None:
    """Keep the prompt, or count why not. `seen` are the prompts of the sources before."""
    words, text = len(prompt.text.split()), prompt.text
    too_long = args.max_words is not None and words > args.max_words
    too_long = too_long or (args.max_characters is not None and len(text) > args.max_characters)
    if any(unwanted in text for unwanted in args.leave_out):
        source.tally[UNWANTED] += 1
    elif words < args.min_words:
        source.tally[TOO_SHORT] += 1
    elif too_long or (tokens is not None and tokens(text) > args.max_tokens):
        source.tally[TOO_LONG] += 1
    elif args.form == "instructions" and len(prompt.messages) > 1:
        source.tally[SEVERAL] += 1
    elif text in seen or text in source.seen:
        source.tally[DUPLICATES] += 1
    else:
        source.seen.add(text)
        source.prompts.append(prompt)


def _written(prompt: SourcePrompt, args: GatherArguments) -> Any:
    if args.form == "records":
        return prompt.record(args.keep_answers)
    if args.form == "lines":
        return prompt.line(args.keep_answers)
    return prompt.instruction()


def _report(sources: list[Gathering], prompts: list[SourcePrompt], args: GatherArguments) -> None:
    """Print what became of the rows of every source, and the prompts of each task."""
    fates = []
    for source in sources:
        for what, count in source.tally.items():
            if count and what not in (ROWS, PROMPTS, KEPT, *fates):
                fates.append(what)
    lines = [[what, *(source.tally[what] for source in sources)] for what in (ROWS, PROMPTS, *fates, KEPT)]
    say(aligned(["", *(source.name for source in sources)], lines))
    counts = Counter(prompt.task for prompt in prompts)
    say(", ".join(f"{task} {count}" for task, count in counts.items()))
    if args.summary:
        rows = [{"source": source.name, "path": source.spec.path, **source.tally} for source in sources]
        write_json(Path(args.summary), {"sources": rows, "tasks": counts, "prompts": len(prompts), "seed": args.seed})


if __name__ == "__main__":
    run_program(main)
