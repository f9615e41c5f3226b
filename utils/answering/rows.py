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

from utils.answering.output import MADE_BY
from utils.errors import UserError
from utils.raw_datasets.base import RAW_DATASETS, LeftOut, RawDataset, detect
from utils.raw_datasets.dialogue import prompt_of
from utils.raw_datasets.ids import Ids
from utils.raw_datasets.sources import SUFFIXES, is_hub_name, rows_of
from utils.raw_datasets.spec import Spec
from utils.records import LIKELIHOODS, Answer, Message, Record, RecordError

LINES = (".jsonl", ".txt")  # what is written
OF_ROWS = tuple(suffix for suffix in SUFFIXES if suffix not in (".json", ".json.gz"))  # what is taken of a folder
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


def read_rows(sources: Sequence[Spec], verbatim: bool = False) -> list[AnswerRow]:
    """Every row of the data sets. verbatim: a plain row's prompt is one message, its text as it stands.
    Raises UserError, RecordError."""
    rows = []
    for spec in sources:
        ids = Ids()
        for row, where in rows_of(spec.path, spec.cls and spec.cls.read):
            rows.append(answer_row(row, where, verbatim, spec.cls))
            if rows[-1].plain is None:
                ids.check(rows[-1].record)
    if not rows:
        raise UserError(f"{', '.join(spec.path for spec in sources)}: no rows; expected prompts")
    return rows


def answer_row(row: Any, where: str, verbatim: bool = False, cls: type[RawDataset] | None = None) -> AnswerRow:
    """A row as read. Of a class that was named, it becomes a record."""
    if not isinstance(row, dict):
        raise RecordError(f"{where}: found {type(row).__name__}; expected an object of columns")
    if cls is None and RAW_DATASETS["records"].fits(row):
        cls = RAW_DATASETS["records"]
    as_it_stands = verbatim and isinstance(row.get("prompt"), str)
    if cls is not None:
        record = _record(cls, row, where)
        if as_it_stands and cls is not RAW_DATASETS["records"]:
            record = dataclasses.replace(record, prompt=(Message("user", row["prompt"]),))
        return AnswerRow(record)
    if "prompt" not in row:
        prompt = _record(_detected(row, where), row, where).prompt
    elif as_it_stands:
        prompt = (Message("user", row["prompt"]),)
    else:
        prompt = prompt_of(row["prompt"], where)[0]
    answers, scores = list(_plain_answers(row, where)), list(numbers_in(row.get("score", [])))
    if len(scores) == len(answers):
        answers = [dataclasses.replace(a, scores={"score": score}) for a, score in zip(answers, scores, strict=True)]
    return AnswerRow(Record(prompt, tuple(answers), where=where).check(), row)


def _detected(row: dict[str, Any], where: str) -> type[RawDataset]:
    try:
        return detect(row, where)
    except UserError as error:
        if any(" " in name for name in row):  # these are prompts rather than columns
            remedy = "one object with a prompt to each key is named, as completions:PATH"
            raise UserError(f"{error}; {remedy}") from None
        raise


def _record(cls: type[RawDataset], row: dict[str, Any], where: str) -> Record:
    try:
        return dataclasses.replace(cls.record(row, where), where=where).check()
    except LeftOut as left:
        raise RecordError(f"{where}: {left.reason}; leave the row out") from None


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


def input_files(paths: Sequence[str], output: Path) -> list[Spec]:
    """What --data_path names: [CLASS:]PATH_OR_NAME each, and a data set for each file of a folder or a glob. The output
    is no input, whatever a folder holds."""
    found: list[Spec] = []
    for text in paths:
        spec = Spec.unweighted(text)
        path = os.path.expanduser(spec.path)
        if os.path.isdir(path):
            inside = sorted(p for p in Path(path).iterdir() if p.name.endswith(OF_ROWS) and p.name[0] != ".")
            known = any(p.resolve() != output.resolve() for p in inside)
            inside = inside if known else [Path(path)]  # perhaps a folder of another kind that raw_datasets reads
        elif glob.has_magic(path) and not os.path.exists(path):
            found_here = (p for p in map(Path, glob.glob(path, recursive=True)) if p.is_file())
            inside = sorted(p for p in found_here if not p.name.endswith(MADE_BY))
            if not inside:
                raise UserError(f"{path}: no such files")
        else:
            if Path(path).resolve() == output.resolve():
                raise UserError(f"{path} is the input and would be the output; give another --output_path")
            found.append(spec)
            continue
        found += [dataclasses.replace(spec, path=str(p)) for p in inside if p.resolve() != output.resolve()]
    return found


def output_file(given: str, data_path: Sequence[str], done: str) -> Path:
    """Where the output goes: --output_path (a folder, or a name without an ending, is completed), or beside the input,
    x.jsonl -> x-generate.jsonl. Several files are named by what their names share, or by their folder."""
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
