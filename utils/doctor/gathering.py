"""Reading what the doctor looks at: a sample of the rows, drawn by prompt, through the functions of the stage."""

from __future__ import annotations

import heapq
import itertools
from dataclasses import dataclass, replace
from typing import Any, Literal

from utils import raw_datasets
from utils.arguments.declarations import expect
from utils.arguments.options import DataArguments, ModelArguments, SamplingArguments, TrainingArguments, option
from utils.arguments.ppo import PPOArguments
from utils.doctor.subject import Item, Split, StageData, Subject, draw_key
from utils.errors import UserError
from utils.model import loading
from utils.raw_datasets.mixture import TIES
from utils.records import Record, RecordError
from utils.reporting import progress
from utils.tokens.templates import LengthLimits, Renderer, Tally, choose, fit

BATCH = 512  # records tokenised at a time


@dataclass
class DoctorArguments:
    """Options of the doctor beside those of the stage."""

    max_rows: int = option(
        20_000, help="most rows of a split to look at; drawn by prompt with --seed", title="Doctor", first=True
    )
    gpus: int = option(1, help="GPUs of the run; for the estimates of memory and time", first=True)
    gpu_tflops: float | None = option(
        help="TFLOP/s of matrix products on one of them; None: measured on this machine", first=True
    )
    gpu_gb: float | None = option(help="memory of one of them in GB; None: of this machine's GPU", first=True)

    def __post_init__(self) -> None:
        expect(self, "1 or more", "max_rows", "gpus")
        expect(self, "above 0", "gpu_tflops", "gpu_gb")


def gather(stage: StageData, groups: list[Any], options: DoctorArguments) -> Subject:
    """Return what the checks look at.

    Args:
        stage: the stage.
        groups: its options, one object a group.
        options: those of the doctor.

    Raises:
        UserError: what the stage itself would refuse in its data, its tokenizer or its config.
    """
    by_type = {type(group): group for group in groups}
    for group in groups:
        if hasattr(group, "objective"):  # the options of a loss, which decides what is read
            stage = replace(stage, kind=group.objective().data, pairs_from_ratings=group.pairs_from_ratings)
    model_args, data_args, args = (by_type[t] for t in (ModelArguments, DataArguments, TrainingArguments))
    name = model_args.model_name_or_path
    renderer = Renderer(loading.load_tokenizer(model_args.tokenizer_name_or_path or name), model_args.template)
    sample = Sample(stage, data_args, args.seed, renderer, options.max_rows)
    train = sample.split("train")
    held_out = None if args.eval_every == "never" else sample.split("eval")
    ppo = by_type.get(PPOArguments)
    return Subject(
        stage=stage, model_args=model_args, data_args=data_args, args=args, ppo=ppo, renderer=renderer,
        config=loading.read_config(model_args), train=train, held_out=held_out,
        others=_tokenizers(groups, model_args, ppo), devices=options.gpus, gpu_gb=options.gpu_gb,
    )  # fmt: skip


def _tokenizers(groups: list[Any], model_args: ModelArguments, ppo: PPOArguments | None) -> dict[str, Any]:
    """Return the tokenizers of the run's other models, by their role."""
    named: dict[str, str | None] = {}
    for group in groups:
        if isinstance(group, PPOArguments | SamplingArguments):
            named["reward model"] = group.reward_model_name_or_path
        if hasattr(group, "reference_model_name_or_path"):
            named["reference"] = group.reference_model_name_or_path
    if ppo:
        named["critic"] = ppo.critic_start
    if model_args.tokenizer_name_or_path and not model_args.from_scratch:
        named["model"] = model_args.model_name_or_path
    return {role: loading.load_tokenizer(name) for role, name in named.items() if name}


@dataclass(frozen=True)
class Sample:
    """Rows of the data of a stage, at most `most` of a split."""

    stage: StageData
    data: DataArguments
    seed: int
    renderer: Renderer
    most: int

    def split(self, name: Literal["train", "eval"]) -> Split:
        """Return a split. Raises UserError."""
        mixture = raw_datasets.open_mixture(self.data, split=name, stage=self.stage.number, seed=self.seed)
        kept: list[tuple[int, int, Record]] = []  # a heap, the largest hash first
        total = 0
        with progress(f"reading {name}", None) as advance:
            for total, record in enumerate(mixture, start=1):
                # All rows of a prompt are drawn or left together, in both splits: duplicates, contradictions and leaks
                # would else be torn apart.
                entry = (-draw_key(record, self.seed), -total, record)
                if len(kept) < self.most:
                    heapq.heappush(kept, entry)
                else:
                    heapq.heappushpop(kept, entry)
                advance(1)
        reach = None
        if total > self.most:
            reach = max(-key for key, _, _ in kept)
        by_number = {-number: record for _, number, record in kept}
        records = [by_number[number] for number in sorted(by_number)]
        tally = Tally()
        items = self._items(records, tally, name)
        if not any(item.group for item in items):
            why = "; ".join(line.strip() for line in tally.lines()) or "the data set is empty"
            raise UserError(f"none of {len(records)} records can be used as {self.stage.kind}: {why}; see docs/data.md")
        notes, ties = [*mixture.notes, *tally.lines()], mixture.counts[TIES]
        return Split(name, records, items, total=total, ties=ties, reach=reach, notes=notes)

    def _items(self, records: list[Record], tally: Tally, name: str) -> list[Item]:
        found, limits = [], LengthLimits.of(self.data)
        with progress(f"tokenising {name}", len(records)) as advance:
            rest = iter(records)
            while batch := list(itertools.islice(rest, BATCH)):
                rows, rendered = [], []
                for record in batch:
                    row = choose(
                        record, self.stage.kind, tally, train_on=self.data.train_on,
                        pairs_from_ratings=self.stage.pairs_from_ratings,
                    )  # fmt: skip
                    if row is None:
                        continue
                    try:
                        rendered.append(self.renderer.render(*row))
                        rows.append(row)
                    except RecordError:
                        if self.data.on_bad_row == "error":
                            raise
                        tally.add("records skipped: the template refuses them", record)
                groups, _ = self.renderer.encode(rendered)
                for row, text, whole in zip(rows, rendered, groups, strict=True):
                    found.append(Item(row, text, whole, fit(self.renderer, row, whole, limits=limits, tally=tally)))
                advance(len(batch))
        return found
