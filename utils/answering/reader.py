"""Models that answer prompts, and models that read answers, row by row of a file: what chatbot.py, rerank.py and the
evaluators have in common."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from utils.answering.output import Shards, made_by
from utils.answering.rows import AnswerRow, content_hash, input_files, output_file, part_of, read_rows
from utils.arguments.inference import AnswerArguments, FileArguments, ReaderArguments
from utils.arguments.options import ModelArguments
from utils.engine import ranks
from utils.errors import UserError
from utils.generation import check_positions, complete, generating
from utils.generation.sampling import Sampling
from utils.model import loading
from utils.model.batch import Batch
from utils.model.passes import Passes
from utils.model.scoring import Policy, RewardModel
from utils.outputs import claim, has_record, model_files
from utils.raw_datasets.spec import Spec
from utils.records import Answer, Record
from utils.reporting import say
from utils.tokens.group import Group, group
from utils.tokens.templates import LengthLimits, Renderer, Row, Tally, fit

HUMAN = "\n\nHuman:"
NO_LIMIT = 1 << 30
Work = Callable[[Sequence[int]], list[Any]]  # row numbers -> output rows


def signature(name: str) -> str:
    """How a model signs its answers and scores: the last two parts of a folder's path, or its name on the hub."""
    return "/".join(Path(name).resolve().parts[-2:]) if Path(name).is_dir() else name


@contextlib.contextmanager
def _with_config(model: str, config: str | None) -> Iterator[str]:
    """The model's folder, or one of links to its files that has the config.json of another."""
    if config is None:
        yield model
        return
    for folder in (model, config):
        if not (Path(folder) / "config.json").is_file():
            raise UserError(f"--config_name_or_path: {folder} is no folder with a config.json; expected local folders")
    with tempfile.TemporaryDirectory() as links:
        for file in (*Path(model).glob("[!.]*"), Path(config) / "config.json"):
            if file.name != "config.json" or file.parent == Path(config):
                (Path(links) / file.name).symlink_to(file.resolve())
        yield links


class Reader:
    """A model that is only read, with its tokenizer and template. `tally` counts what was cut to length."""

    def __init__(self, args: ReaderArguments, reward: bool = False) -> None:
        name = args.model_name_or_path
        if not name:
            raise UserError("--model_name_or_path is missing; expected a Hugging Face name or a local folder")
        if reward:
            loading.require_reward_model(name)
        tokenizer = loading.load_tokenizer(args.tokenizer_name_or_path or name)
        self.renderer = Renderer(tokenizer, args.template)
        options = ModelArguments(name, tokenizer_name_or_path=args.tokenizer_name_or_path, template=args.template)
        load = loading.load_reward_model if reward else loading.load_causal_lm
        with _with_config(name, args.config_name_or_path) as options.model_name_or_path:
            model = load(options, tokenizer, args.bf16)
        self.model = model.eval().requires_grad_(False).to(ranks.device())
        self.scorer = (RewardModel if reward else Policy)(self.model)
        self.name, self.tally = signature(name), Tally()
        self.backend = getattr(args, "generation_backend", "shared")

    def prompt(self, record: Record, longest: int, truncation: str = "keep_end") -> list[int]:
        """The ids of its prompt, cut to `longest`."""
        row, limits = Row(record), LengthLimits(longest, NO_LIMIT, 2 * NO_LIMIT, truncation)
        return fit(self.renderer, row, self.renderer.group(*row), limits, self.tally).prompt.tolist()

    def group(self, record: Record, max_seq_len: int, max_prompt_seq_len: int = NO_LIMIT) -> Group:
        """A record with all its answers, each with its prompt within max_seq_len tokens (0: the model's limit)."""
        positions = getattr(self.model.config.get_text_config(), "max_position_embeddings", None) or NO_LIMIT
        total = max_seq_len or positions
        if total > positions:
            raise UserError(f"--max_seq_len {total} exceeds the model's {positions} positions; lower it")
        row = Row(record, tuple(range(len(record.answers))))
        whole, end = self.renderer.group(*row), self.renderer.stop_token_ids[:1]
        whole = group(whole.prompt, [answer if len(answer) else end for answer in whole.answers])
        limits = LengthLimits(min(total, max_prompt_seq_len), total, total, "keep_end")
        return fit(self.renderer, row, whole, limits, self.tally)

    def scores(
        self, records: Sequence[Record], max_seq_len: int, max_prompt_seq_len: int = NO_LIMIT, *, budget: int = 0
    ) -> list[list[float]]:
        """Of every answer: a reward model's scores, or a language model's mean negative log-likelihood of a token (its
        end token counts if it ended). All answers of a record stand in one packed row, or in several where they exceed
        `budget` tokens. Lengths: as of group()."""
        groups = [self.group(record, max_seq_len, max_prompt_seq_len) for record in records]

        def score(batch: Batch) -> Tensor:
            if isinstance(self.scorer, Policy):
                return batch.sum_per_answer(-self.scorer(batch)) / batch.answer_tokens
            return self.scorer(batch)

        passes = Passes(groups, len(groups), budget, packed=self.scorer.packed)
        with torch.no_grad():
            values = iter([value for batch in passes for value in score(batch).tolist()])
        return [[next(values) for _ in record.answers] for record in records]

    def answers(self, prompts: Sequence[Sequence[int]], rows: Sequence[int], how: Sequence[Sampling]):
        """For each of the prompts, whose row numbers these are, a list of Answers, those of how[0] first."""
        found: list[list[Answer]] = [[] for _ in prompts]
        with generating(self.model):
            for sampling in how:
                completions = complete(self.model, self.renderer, prompts, sampling, rows, backend=self.backend)
                for answers, new in zip(found, completions, strict=True):
                    answers += [Answer(c.text, self.name, sampling.to_json(), c.finished) for c in new]
        return found


def open_files(
    args: Any, done: str, program: str, written: Callable[[Path], list[Path]] | None = None
) -> tuple[list[AnswerRow], Path]:
    """(the rows to work on, the output, claimed); `done` ends the output's name when --output_path does not give one.
    A `program` that does not write the output by work_on() claims `written(output)`."""
    if not args.data_path:
        raise UserError("--data_path is missing; expected [CLASS:]PATH_OR_NAME (docs/data.md)")
    output = output_file(args.output_path, args.data_path, done)
    sources = input_files(args.data_path, output)
    if written:
        claim_outputs(args, program, written(output), sources)
    else:
        claim_shards(args, program, output, sources)
    rows = read_rows(sources, verbatim=args.template == "plain")
    return part_of(rows, args.offset, args.data_fraction), output


def claim_outputs(args: Any, program: str, outputs: list[Path], sources: Sequence[Spec]) -> None:
    """Claim what a program makes of `sources` and its model."""
    models = (args.model_name_or_path, args.tokenizer_name_or_path, args.config_name_or_path)
    reads = [*(spec.path for spec in sources), *(file for name in models for file in model_files(name, program))]
    claim(program, {"--output_path": outputs}, reads=reads, overwrite=args.overwrite)


def claim_shards(args: Any, program: str, output: Path, sources: Sequence[Spec]) -> None:
    """The same for an output of work_on(). One from before there were records is known by the file beside it that says
    what made it."""
    known = made_by(output).is_file() and not has_record(output)
    claim_outputs(dataclasses.replace(args, overwrite=args.overwrite or known), program, [output], sources)


def work_on(
    rows: Sequence[AnswerRow],
    args: FileArguments,
    output: Path,
    facts: dict[str, Any],
    make: Callable[[], tuple[Work, Sequence[int]]],
) -> Shards:
    """Compute one output row for every row, resumable, on all ranks. make() loads what it takes and returns (work on a
    batch, sizes to batch by); it is not called when the output is finished. A collective."""
    shards = Shards(output, {**facts, "data": content_hash(rows)}, len(rows), args.overwrite)
    if not shards.finished:
        work, sizes = make()
        order = sorted(range(len(rows)), key=lambda n: (-sizes[n], n))  # like lengths together, the longest first
        starts = range(0, len(order), args.batch_size)
        shards.fill([order[i : i + args.batch_size] for i in starts], work, facts["what"])
        say(f"written to {output}")
    return shards


def model_facts(args: ReaderArguments) -> dict[str, Any]:
    """What names the model by content, and how it reads."""
    name, tokenizer = args.model_name_or_path, args.tokenizer_name_or_path
    if not name:
        raise UserError("--model_name_or_path is missing; expected a Hugging Face name or a local folder")
    return {
        "model": str(Path(name).resolve()) if Path(name).is_dir() else name,
        "weights": ranks.from_rank_0(lambda: loading.fingerprint(name)),
        **({"tokenizer": tokenizer} if tokenizer else {}),
        **({"config": args.config_name_or_path} if args.config_name_or_path else {}),
        "template": args.template,
        "bf16": args.bf16,
    }


def samplings(args: AnswerArguments, temperatures: Sequence[float], num_samples=1, **more: Any) -> list[Sampling]:
    """One Sampling a temperature."""
    shared = dict(
        max_new_tokens=args.max_new_tokens, min_new_tokens=args.min_new_tokens, num_samples=num_samples,
        repetition_penalty=args.repetition_penalty, no_repeat_ngram_size=args.no_repeat_ngram_size,
        stop_strings=(HUMAN,) if args.additional_human_stopword else (), **more,
    )  # fmt: skip
    return [Sampling(temperature=temperature, **shared) for temperature in temperatures]


def answering(
    reader: Reader,
    rows: Sequence[AnswerRow],
    how: Sequence[Sampling],
    max_prompt_seq_len: int,
    finish: Callable[[AnswerRow, list[Answer]], Any],
    only: Sequence[int] | None = None,
) -> tuple[Work, Sequence[int]]:
    """(work, sizes) for work_on: answers every row (or those numbered `only`) and writes finish(row, answers)."""
    numbers = range(len(rows)) if only is None else only
    prompts = {n: reader.prompt(rows[n].record, max_prompt_seq_len) for n in numbers}
    for line in reader.tally.lines():
        say(line, style="yellow")
    check_positions(reader.model, max(map(len, prompts.values()), default=0), how[0].max_new_tokens)

    def work(batch: Sequence[int]) -> list[Any]:
        found = reader.answers([prompts[n] for n in batch], batch, how)
        return [finish(rows[n], answers) for n, answers in zip(batch, found, strict=True)]

    return work, [len(prompts.get(n, ())) for n in range(len(rows))]


def score_rows(rows: Sequence[AnswerRow], args: Any, output: Path, finish=AnswerRow.with_scores) -> Shards:
    """Every answer of every row scored by the reward model args.model_name_or_path; writes finish(row, scores, name).
    A collective."""
    for row in rows:
        if not row.record.answers:
            raise UserError(f"{row.record.where}: no answer to score; expected what chatbot.py --mode generate writes")

    def make() -> tuple[Work, Sequence[int]]:
        reader = Reader(args, reward=True)

        def work(batch: Sequence[int]) -> list[Any]:
            found = reader.scores([rows[n].record for n in batch], args.max_seq_len, budget=args.tokens_per_batch)
            return [finish(rows[n], scores, reader.name) for n, scores in zip(batch, found, strict=True)]

        return work, [0] * len(rows)

    facts = {"what": "scoring", "max_seq_len": args.max_seq_len, **model_facts(args)}
    return work_on(rows, args, output, facts, make)
