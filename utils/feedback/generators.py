"""The answers of two named generators to the same instructions, to be compared.

A generator's file is found by its name in a folder: NAME.json, NAME.jsonl, *_NAME_completions.json, and for a name that
ends with a temperature (temp1.0, mistral7b_1.0) the samples *temp1.0.json and *temp1.0/*.json.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from utils.errors import UserError
from utils.feedback.cases import Case
from utils.raw_datasets import base
from utils.raw_datasets.sources import open_source
from utils.records import Answer, Message, Record, RecordError, read_jsonl

Prompt = tuple[Message, ...]


def files_of(name: str, folder: Path) -> list[Path]:
    """The files of a generator. Raises UserError."""
    patterns = [f"{name}.json", f"{name}.jsonl", f"*_{name}_completions.json"]
    temperature = re.search(r"(?:\A|_)(?:temp)?(\d+(?:\.\d+)?)\Z", name)
    if temperature:
        patterns += [f"*temp{temperature[1]}.json", f"*temp{temperature[1]}/*.json"]
    if not folder.is_dir():
        raise UserError(f"--base_dir {folder}: no such folder")
    for pattern in patterns:
        found = sorted(folder.glob(pattern))
        if found:
            return found
    looked = ", ".join(patterns)
    raise UserError(f"{folder}: no answers of {name!r}; looked for {looked}; or name two files with --input_files")


def read_generations(paths: Iterable[Path]) -> dict[Prompt, str]:
    """{prompt: its first answer} of an object {instruction or prompt: [text, …]}, or of rows that a raw-dataset class
    reads. Raises UserError."""
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
            formatted = any(key.lstrip().startswith("Human:") for key in whole)
            cls = base.named("samples" if formatted else "completions")
            return [cls.record(row, where).check() for row, where in cls.read(path)]
    rows = open_source(str(path)).rows(False)
    return [dataclasses.replace(base.detect(row, where).record(row, where), where=where) for row, where in rows]


def matched(
    first: tuple[str, list[Path]], second: tuple[str, list[Path]], left_out: float, most: int
) -> tuple[list[Case], Counter[str]]:
    """(comparisons, what was left out) of two (name, files). The first generator is the one in question: its answer is
    the second of each comparison. Prompts are in the reference's order, without its first `left_out` share; `most`
    bounds the comparisons. Raises UserError."""
    ours, reference = read_generations(first[1]), read_generations(second[1])
    prompts = list(reference)[int(len(reference) * left_out) :]
    common = [prompt for prompt in prompts if prompt in ours]
    tally = Counter({f"prompts of {second[0]} without an answer of {first[0]}": len(prompts) - len(common),
                     f"prompts of {first[0]} without an answer of {second[0]}": len(ours.keys() - reference.keys()),
                     "prompts left out by --filter_out_fraction": len(reference) - len(prompts),
                     "comparisons beyond --max_num_comparisons": max(0, len(common) - most)})  # fmt: skip
    if not common:
        raise UserError(f"{first[1][0]} and {second[1][0]}: no prompt in common, of {len(ours)} and {len(reference)}")
    cases = []
    for number, prompt in enumerate(common[:most], start=1):
        answers = (Answer(reference[prompt], second[0]), Answer(ours[prompt], first[0]))
        record = Record(prompt, answers, where=f"comparison {number}")
        cases.append(Case(record, "label", "dialogue", (0, 1)))
    return cases, tally
