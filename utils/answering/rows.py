"""Rows of prompts and their answers in two forms: the project's records, and plain rows of any data-set class.

A record's new answers are appended to `answers`, with the model, the settings and the scores of each. A plain row,
`{"prompt": "Human: … Assistant:"}`, keeps its columns and gains `greedy` or `sample`, `greedy_finished` (whether the
answer ended by itself), `score`, `ppl`; numbers have the shape of the answers they belong to: a text, a list of texts,
or texts by name.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from utils.answering.plain import ANSWER_COLUMNS, GENERATOR, SAMPLED, answers_of, numbers_in, shaped_like
from utils.errors import UserError
from utils.raw_datasets.base import RAW_DATASETS, LeftOut, RawDataset, detect
from utils.raw_datasets.dialogue import prompt_of
from utils.raw_datasets.ids import Ids
from utils.raw_datasets.spec import Spec
from utils.raw_datasets.tutoring import Tutoring
from utils.raw_datasets.whole import rows_of
from utils.records import LIKELIHOODS, Answer, Message, Record, RecordError

META = ("dataset", "task", "source", "id")  # columns of a plain row that best-of-n keeps


@dataclass(frozen=True)
class AnswerRow:
    """A row of a file.

    Args:
        record: the prompt and its answers.
        plain: the plain row that the record was read from; None when the file itself holds records.
    """

    record: Record
    plain: dict[str, Any] | None = None

    @property
    def instruction(self) -> str:
        """The prompt for people and judges: the row's own text of it, else the messages as text."""
        for column in ("instruction", "prompt"):
            if self.plain and isinstance(self.plain.get(column), str):
                return self.plain[column]
        if len(self.record.prompt) == 1:
            return self.record.prompt[0].content
        return "\n\n".join(f"{message.role.title()}: {message.content}" for message in self.record.prompt)

    def candidates(self) -> Record:
        """Return the record without references, the answers that the data came with.

        Where answers were sampled by chatbot.py, all others are references; else, where some name their model, those
        that name none. Where neither tells which answers are references, all stay.
        """
        answers = self.record.answers
        sampled = {name: self.plain[name] for name in SAMPLED if self.plain and name in self.plain}
        if sampled:
            # Those of SAMPLED come first.
            kept = answers[: len(list(answers_of(sampled, self.record.where)))]
        else:
            kept = [answer for answer in answers if answer.sampling is not None]
            kept = kept or [answer for answer in answers if answer.model] or answers
        # Verdicts name answers by their number, which others now have.
        return dataclasses.replace(self.record, answers=tuple(kept), verdicts=())

    def with_answers(self, answers: Sequence[Answer], greedy: bool) -> dict[str, Any]:
        """Return the row as JSON with new answers after those it has. A plain row holds the new ones alone."""
        if self.plain is None:
            return dataclasses.replace(self.record, answers=(*self.record.answers, *answers)).to_json()
        name = answers[0].model if answers else None
        if greedy:
            found = {"greedy": answers[0].text, "greedy_finished": answers[0].finished}
            return {**self.plain, **found, f"greedy_{GENERATOR}": name}
        texts, finished, temperatures = [], [], []
        for answer in answers:
            texts.append(answer.text)
            finished.append(answer.finished)
            temperatures.append(answer.sampling["temperature"])
        row = {**self.plain, "sample": texts, "sample_finished": finished, f"sample_{GENERATOR}": name}
        if len(set(temperatures)) > 1:
            row["sample_temperature"] = temperatures
        return row

    def with_scores(self, scores: Sequence[float], scorer: str) -> dict[str, Any]:
        """Return the row as JSON with a score for each answer, by the reward model that signs as `scorer`."""
        if self.plain is None:
            return self._scored([{scorer: score} for score in scores])
        return {**self.plain, "score": self._shaped(scores)}

    def with_likelihood(self, nlls: Sequence[float]) -> dict[str, Any]:
        """Return the row as JSON with nlls, for each answer the mean negative log-likelihood of a token in nats."""
        # Up to 700: the exponential of a larger number is no finite float64.
        perplexities = [math.exp(min(nll, 700.0)) for nll in nlls]
        if self.plain is None:
            pairs = zip(nlls, perplexities, strict=True)
            return self._scored([dict(zip(LIKELIHOODS, pair, strict=True)) for pair in pairs])
        nll = self._shaped(nlls)
        # `ppl` is what other programs call this column, though it is not exponentiated.
        return {**self.plain, "ppl": nll, "nll_per_token": nll, "perplexity": self._shaped(perplexities)}

    def _scored(self, new: Sequence[dict[str, float]]) -> dict[str, Any]:
        scored = []
        for answer, scores in zip(self.record.answers, new, strict=True):
            scored.append(dataclasses.replace(answer, scores={**answer.scores, **scores}))
        return dataclasses.replace(self.record, answers=tuple(scored)).to_json()

    def _shaped(self, numbers: Sequence[float]) -> Any:
        """Return numbers in the shape of the answers; where several columns hold answers, by column."""
        rest, shaped = iter(numbers), {}
        for column in ANSWER_COLUMNS:
            if column in self.plain:
                shaped[column] = shaped_like(self.plain[column], rest)
        if len(shaped) == 1:
            (only,) = shaped.values()
            return only
        return shaped


def read_rows(sources: Sequence[Spec], verbatim: bool = False) -> list[AnswerRow]:
    """Return every row of the data sets. verbatim: a plain row's prompt is one message, its text unchanged.

    Raises UserError when there are no rows, RecordError for a row that cannot be read.
    """
    rows = []
    for spec in sources:
        ids = Ids()
        for row, where in rows_of(spec.path, spec.cls and spec.cls.read):
            rows.append(answer_row(row, where, verbatim=verbatim, cls=spec.cls))
            if rows[-1].plain is None:
                ids.check(rows[-1].record)
    if not rows:
        raise UserError(f"{', '.join(spec.path for spec in sources)}: no rows; expected prompts")
    return rows


def answer_row(row: Any, where: str, verbatim: bool = False, cls: type[RawDataset] | None = None) -> AnswerRow:
    """Return a row of a file as an AnswerRow.

    Args:
        row: as it was read.
        where: FILE:LINE of the row, for errors.
        verbatim: whether a plain row's prompt is one message, its text unchanged.
        cls: the data-set class that --data_path names; the row then becomes a record. None: it is detected.

    Raises:
        RecordError: the row has no prompt, or a column of answers holds no text.
    """
    if not isinstance(row, dict):
        raise RecordError(f"{where}: found {type(row).__name__}; expected an object of columns")
    if cls is None and RAW_DATASETS["records"].fits(row):
        cls = RAW_DATASETS["records"]
    if cls is None and "prompt" in row and not set(SAMPLED) & set(row) and Tutoring.fits(row):
        # A record holds the teacher's turn beside the model's own, as responses-csv wants them.
        cls = Tutoring
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
    elif str(row["prompt"]).rstrip().endswith("Tutorbot:"):
        prompt = Tutoring.record({"prompt": row["prompt"], "chosen": ""}, where).prompt
    else:
        prompt, _ = prompt_of(row["prompt"], where)
    answers, scores = list(answers_of(row, where)), list(numbers_in(row.get("score", [])))
    if len(scores) == len(answers):
        pairs = zip(answers, scores, strict=True)
        answers = [dataclasses.replace(answer, scores={"score": score}) for answer, score in pairs]
    meta = {name: row[name] for name in META if name in row}
    return AnswerRow(Record(prompt, tuple(answers), where=where, meta=meta).check(), row)


def _detected(row: dict[str, Any], where: str) -> type[RawDataset]:
    try:
        return detect(row, where)
    except UserError as error:
        # Names with spaces are prompts rather than columns.
        if any(" " in name for name in row):
            remedy = "one object with a prompt to each key is named, as completions:PATH"
            raise UserError(f"{error}; {remedy}") from None
        raise


def _record(cls: type[RawDataset], row: dict[str, Any], where: str) -> Record:
    try:
        return dataclasses.replace(cls.record(row, where), where=where).check()
    except LeftOut as left:
        raise RecordError(f"{where}: {left.reason}; leave the row out") from None


def content_hash(rows: Sequence[AnswerRow]) -> str:
    """Return a hash of the rows as JSON, 32 hexadecimal digits."""
    digest = hashlib.blake2b(digest_size=16)
    for row in rows:
        content = row.record.to_json() if row.plain is None else row.plain
        digest.update(json.dumps(content, ensure_ascii=False).encode())
    return digest.hexdigest()


def part_of(rows: list[AnswerRow], offset: int, fraction: float) -> list[AnswerRow]:
    """Return `fraction` of all rows, from number `offset` on. Raises UserError when none is left."""
    part = rows[offset : offset + max(1, round(fraction * len(rows)))]
    if not part:
        raise UserError(f"--offset {offset} leaves out all {len(rows)} rows; lower it")
    return part
