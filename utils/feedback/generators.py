"""The answers of two named generators to the same instructions, to be compared.

A generator's file is found by its name in a folder: NAME.json, NAME.jsonl, *_NAME_completions.json, and for a name that
ends with a temperature (temp1.0, mistral7b_1.0) the samples *temp1.0.json and *temp1.0/*.json.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from utils.errors import UserError
from utils.feedback.cases import Case
from utils.raw_datasets import base
from utils.raw_datasets.sources import open_source
from utils.records import Answer, Message, Record, RecordError
from utils.records.lines import read_jsonl

Prompt = tuple[Message, ...]


@dataclass(frozen=True)
class Generator:
    """A model or a sampling setting whose answers are compared: its name and its files."""

    name: str
    files: list[Path]


def files_of(name: str, folder: Path) -> list[Path]:
    """Return the files of a generator. Raises UserError."""
    patterns = [f"{name}.json", f"{name}.jsonl", f"*_{name}_completions.json"]
    temperature = re.search(r"(?:\A|_)(?:temp)?(\d+(?:\.\d+)?)\Z", name)
    if temperature:
        patterns += [f"*temp{temperature[1]}.json", f"*temp{temperature[1]}/*.json"]
    if not folder.is_dir():
        raise UserError(f"--base_dir {folder}: no such folder")
    # The patterns in their order, the most exact first: the files of the first that matches are taken.
    for pattern in patterns:
        found = sorted(folder.glob(pattern))
        if found:
            return found
    looked = ", ".join(patterns)
    raise UserError(f"{folder}: no answers of {name!r}; looked for {looked}; or name two files with --input_files")


def generators_of(names: Sequence[str], files: Sequence[str], folder: str | None) -> list[Generator]:
    """Return the named generators, with one of `files` each, or with the files found in the folder. Raises
    UserError."""
    generators = []
    for number, name in enumerate(names):
        if files:
            generators.append(Generator(name, [Path(files[number])]))
        else:
            generators.append(Generator(name, files_of(name, Path(folder or "."))))
    return generators


def read_generations(paths: Iterable[Path]) -> dict[Prompt, str]:
    """Return {prompt: its first answer} of an object {instruction or prompt: [text, …]}, or of rows that a raw-dataset
    class reads. Raises UserError."""
    answers: dict[Prompt, str] = {}
    for path in paths:
        for record in _records(path):
            if not record.answers:
                raise RecordError(f"{record.where}: no answer; expected one to every instruction")
            answers.setdefault(record.prompt, record.answers[0].text)
    return answers


def _records(path: Path) -> Iterable[Record]:
    if path.suffix == ".json":
        whole = next((row for row, _ in read_jsonl(path)), None)
        if isinstance(whole, dict) and whole and all(isinstance(value, list) for value in whole.values()):
            # Keys that open with a turn are whole prompts; others are bare instructions.
            formatted = any(key.lstrip().startswith("Human:") for key in whole)
            cls = base.named("completions")
            if formatted:
                cls = base.named("samples")
            return [cls.record(row, where).check() for row, where in cls.read(path)]
    records = []
    for row, where in open_source(str(path)).rows(False):
        records.append(dataclasses.replace(base.detect(row, where).record(row, where), where=where))
    return records


def matched(ours: Generator, reference: Generator, left_out: float, most: int) -> tuple[list[Case], Counter[str]]:
    """Compare the answers of two generators to the same prompts.

    Args:
        ours: the generator in question; its answer is the second of each comparison.
        reference: the generator that it is compared with, whose order of prompts counts.
        left_out: the share of the reference's prompts to leave out, from the first.
        most: the most comparisons.

    Returns:
        The comparisons, and counts of what was left out.

    Raises:
        UserError: where no prompt is in both.
    """
    our_answers, reference_answers = read_generations(ours.files), read_generations(reference.files)
    prompts = list(reference_answers)[int(len(reference_answers) * left_out) :]
    common = [prompt for prompt in prompts if prompt in our_answers]
    only_ours = len(our_answers.keys() - reference_answers.keys())
    tally = Counter({f"prompts of {reference.name} without an answer of {ours.name}": len(prompts) - len(common),
                     f"prompts of {ours.name} without an answer of {reference.name}": only_ours,
                     "prompts left out by --filter_out_fraction": len(reference_answers) - len(prompts),
                     "comparisons beyond --max_num_comparisons": max(0, len(common) - most)})  # fmt: skip
    if not common:
        counts = f"{len(our_answers)} and {len(reference_answers)}"
        raise UserError(f"{ours.files[0]} and {reference.files[0]}: no prompt in common, of {counts}")
    cases = []
    for number, prompt in enumerate(common[:most], start=1):
        answers = (Answer(reference_answers[prompt], reference.name), Answer(our_answers[prompt], ours.name))
        record = Record(prompt, answers, where=f"comparison {number}")
        cases.append(Case(record, "label", "dialogue", (0, 1)))
    return cases, tally
