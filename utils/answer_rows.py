"""Prompts and their answers in files, in two spellings: the project's records, and plain rows of any data-set class.

A record's answers are appended to `answers`, with what is known of them. A plain row, `{"prompt": "Human: …
Assistant:"}`, keeps its columns and gains `greedy` or `sample`, `greedy_finished` (did it end by itself), `score`,
`ppl`; numbers have the shape of the answers they belong to: a text, a list of texts, or texts by name.
"""

from __future__ import annotations

import dataclasses
import glob
import hashlib
import json
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utils.errors import UserError
from utils.raw_datasets.base import RAW_DATASETS, detect
from utils.raw_datasets.dialogue import prompt_of
from utils.records import LIKELIHOODS, Answer, Message, Record, RecordError, read_jsonl
from utils.shards import MADE_BY

SUFFIXES = (".jsonl", ".txt", ".json", ".jsonl.gz")
ANSWER_COLUMNS = ("greedy", "sample", "output", "response")  # of plain rows


@dataclass(frozen=True)
class AnswerRow:
    """A record, and the plain row that it was read from; None when the file itself holds records."""

    record: Record
    plain: dict[str, Any] | None = None

    @property
    def instruction(self) -> str:
        """The prompt for people and judges: what the row calls it, else the messages as text."""
        for column in ("instruction", "prompt"):
            if self.plain and isinstance(self.plain.get(column), str):
                return self.plain[column]
        if len(self.record.prompt) == 1:
            return self.record.prompt[0].content
        return "\n\n".join(f"{message.role.title()}: {message.content}" for message in self.record.prompt)

    def with_answers(self, answers: Sequence[Answer], greedy: bool) -> dict[str, Any]:
        """The row as JSON with new answers after those it has. A plain row holds the new ones alone."""
        if self.plain is None:
            return dataclasses.replace(self.record, answers=(*self.record.answers, *answers)).to_json()
        if greedy:
            return {**self.plain, "greedy": answers[0].text, "greedy_finished": answers[0].finished}
        temperatures = [answer.sampling["temperature"] for answer in answers]
        several = {"sample_temperature": temperatures} if len(set(temperatures)) > 1 else {}
        finished = [answer.finished for answer in answers]
        return {**self.plain, "sample": [a.text for a in answers], "sample_finished": finished, **several}

    def with_scores(self, scores: Sequence[float], scorer: str) -> dict[str, Any]:
        if self.plain is None:
            return self._scored([{scorer: score} for score in scores])
        return {**self.plain, "score": self._shaped(scores)}

    def with_likelihood(self, nlls: Sequence[float]) -> dict[str, Any]:
        """nlls: the mean negative log-likelihood of a token, per answer. `ppl` is the name it goes by elsewhere, though
        it is not exponentiated."""
        perplexities = [math.exp(min(nll, 700.0)) for nll in nlls]
        if self.plain is None:
            pairs = zip(nlls, perplexities, strict=True)
            return self._scored([dict(zip(LIKELIHOODS, pair, strict=True)) for pair in pairs])
        nll = self._shaped(nlls)
        return {**self.plain, "ppl": nll, "nll_per_token": nll, "perplexity": self._shaped(perplexities)}

    def _scored(self, new: Sequence[dict[str, float]]) -> dict[str, Any]:
        answers = zip(self.record.answers, new, strict=True)
        scored = tuple(dataclasses.replace(a, scores={**a.scores, **scores}) for a, scores in answers)
        return dataclasses.replace(self.record, answers=scored).to_json()

    def _shaped(self, numbers: Sequence[float]) -> Any:
        columns = [c for c in ANSWER_COLUMNS if c in self.plain]
        rest = iter(numbers)
        shaped = {c: _like(self.plain[c], rest) for c in columns}
        return shaped[columns[0]] if len(columns) == 1 else shaped


def _like(value: Any, numbers: Iterable[float]) -> Any:
    """The next numbers in the shape of `value`."""
    if isinstance(value, list):
        return [next(numbers) for _ in value]
    return {name: next(numbers) for name in value} if isinstance(value, dict) else next(numbers)


def read_rows(files: Sequence[Path], verbatim: bool = False) -> list[AnswerRow]:
    """Every row of the files. verbatim: a plain row's prompt is one message, its text as it stands.
    Raises UserError, RecordError."""
    rows = [answer_row(row, where, verbatim) for file in files for row, where in read_jsonl(file)]
    if not rows:
        raise UserError(f"{', '.join(map(str, files))}: no rows; expected one JSON object a line")
    return rows


def answer_row(row: Any, where: str, verbatim: bool = False) -> AnswerRow:
    if not isinstance(row, dict):
        raise RecordError(f"{where}: found {type(row).__name__}; expected a JSON object")
    records = RAW_DATASETS["records"]
    if records.fits(row):
        return AnswerRow(records.record(row, where))
    if all(isinstance(value, list) for value in row.values()) and any(" " in name for name in row):
        raise RecordError(
            f"{where}: found one object of {len(row):,} prompts with their answers; expected one JSON object a line: "
            f"data_collect/convert.py --from completions --to records makes that of it"
        )
    if "prompt" not in row:
        prompt = detect(row, where).record(row, where).prompt
    elif verbatim and isinstance(row["prompt"], str):
        prompt = (Message("user", row["prompt"]),)
    else:
        prompt = prompt_of(row["prompt"], where)[0]
    answers, scores = list(_plain_answers(row, where)), list(numbers_in(row.get("score", [])))
    if len(scores) == len(answers):
        answers = [dataclasses.replace(a, scores={"score": score}) for a, score in zip(answers, scores, strict=True)]
    return AnswerRow(Record(prompt, tuple(answers), where=where).check(), row)


def numbers_in(value: Any) -> Iterator[float]:
    """The numbers of a value that has the shape of answers."""
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from numbers_in(item)
    else:
        yield value


def _plain_answers(row: dict[str, Any], where: str) -> Iterable[Answer]:
    for column in ANSWER_COLUMNS:
        if column not in row:
            continue
        value = row[column]
        texts = value if isinstance(value, list) else list(value.values()) if isinstance(value, dict) else [value]
        if not all(isinstance(text, str) for text in texts):
            raise RecordError(f"{where}: column {column!r} is {str(value)[:60]!r}; expected text, or a list of texts")
        known = row.get(f"{column}_finished", True)
        finished = known if isinstance(known, list) and len(known) == len(texts) else [known is not False] * len(texts)
        yield from (Answer(text, finished=bool(end)) for text, end in zip(texts, finished, strict=True))


def input_files(paths: Sequence[str], output: Path) -> list[Path]:
    """The files of --data_path: each a file, a folder or a glob. The output is no input, whatever a folder holds."""
    found: list[Path] = []
    for path in map(os.path.expanduser, paths):
        if os.path.isdir(path):
            inside = sorted(p for p in Path(path).iterdir() if p.name.endswith(SUFFIXES[:2]) and p.name[0] != ".")
        elif glob.has_magic(path) and not os.path.exists(path):
            found_here = (p for p in map(Path, glob.glob(path, recursive=True)) if p.is_file())
            inside = sorted(p for p in found_here if not p.name.endswith(MADE_BY))
        else:
            if Path(path).resolve() == output.resolve():
                raise UserError(f"{path} is the input and would be the output; give another --output_path")
            inside = [Path(path)]
        inside = [p for p in inside if p.resolve() != output.resolve()]
        if not inside:
            raise UserError(f"{path}: no .jsonl or .txt files there; expected at least one")
        found += inside
    return found


def output_file(given: str, paths: Sequence[str], done: str) -> Path:
    """Where the output goes: --output_path (a folder, or a name without an ending, is completed), or beside the input,
    x.jsonl -> x-generate.jsonl. Several files are named by what their names share, or by their folder."""
    stem = _stem(paths)
    if not given:
        return stem.with_name(f"{stem.name}-{done}.jsonl")
    if given.endswith("/") or os.path.isdir(given):
        return Path(given).expanduser() / f"{stem.name}-{done}.jsonl"
    path = Path(given).expanduser()
    return path if path.name.endswith(SUFFIXES[:2]) else path.with_name(path.name + ".jsonl")


def _stem(paths: Sequence[str]) -> Path:
    path = Path(os.path.expanduser(paths[0])).absolute()
    if len(paths) > 1 or (glob.has_magic(path.name) and not path.exists()):
        names = [Path(p).name for p in paths] if len(paths) > 1 else [path.name.partition("*")[0].partition("?")[0]]
        shared = os.path.commonprefix(names).partition(".")[0].rstrip("-_.[")
        return path.with_name(shared or path.parent.name)
    suffix = next((s for s in sorted(SUFFIXES, key=len, reverse=True) if path.name.endswith(s)), "")
    return path.with_name(path.name.removesuffix(suffix))


def content_hash(rows: Sequence[AnswerRow]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for row in rows:
        digest.update(json.dumps(row.record.to_json() if row.plain is None else row.plain, ensure_ascii=False).encode())
    return digest.hexdigest()


def part_of(rows: list[AnswerRow], offset: int, fraction: float) -> list[AnswerRow]:
    """`fraction` of all rows, from number `offset` on."""
    part = rows[offset : offset + max(1, round(fraction * len(rows)))]
    if not part:
        raise UserError(f"--offset {offset} leaves out all {len(rows)} rows; lower it")
    return part
