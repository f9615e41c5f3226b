"""What the doctor looks at: options, records and their tokens, the tokenizer, the model's config."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from utils.arguments.options import DataArguments, ModelArguments, TrainingArguments
from utils.arguments.ppo import PPOArguments
from utils.model.batch import collate
from utils.records import Answer, Record, prompt_hash
from utils.tokens.group import Group
from utils.tokens.templates import Kind, LengthLimits, Rendered, Renderer, Row


class Symptom(NamedTuple):
    """What a check found: the place, the facts, and whether they would ruin the run (else it is a warning)."""

    where: str
    what: str
    severe: bool = True


@dataclass(frozen=True)
class StageData:
    """A stage, its number in --data_split and what it takes of a record."""

    name: str
    number: int
    kind: Kind  # of a stage with --loss: what its default loss reads
    pairs_from_ratings: bool = False


@dataclass(frozen=True)
class Item:
    """A record that the stage can use: its text, its tokens (`whole`), and what the limits leave of them (`group`;
    None: dropped)."""

    row: Row
    rendered: Rendered
    whole: Group
    group: Group | None

    @property
    def record(self) -> Record:
        return self.row.record

    @property
    def answers(self) -> list[Answer]:
        """Return the answers in the order of `whole.answers`."""
        return [self.record.answers[place] for place in self.row.answers]

    def pairs(self) -> Iterator[tuple[Answer, Answer]]:
        """Yield (chosen, rejected)."""
        answers = self.answers
        for winner, loser in self.whole.pairs:
            yield answers[winner], answers[loser]


@dataclass(frozen=True)
class Split:
    """The rows of a split that are looked at."""

    name: str
    records: Sequence[Record]
    items: Sequence[Item]
    total: int  # rows that the stage would read
    ties: int = 0  # rows left out since chosen equals rejected
    reach: int | None = None  # largest hash of a prompt that was drawn; None: every row is here
    notes: Sequence[str] = ()  # how the rows were read, and what was cut and dropped

    @property
    def groups(self) -> list[Group]:
        return [item.group for item in self.items if item.group is not None]


def trained_answers(group: Group) -> list[np.ndarray]:
    """Return the tokens of each answer that a batch of the stage trains, in order."""
    batch = collate([group])
    targets_N, answer_of_N = batch.targets.numpy(), batch.answer_of.numpy()
    return [targets_N[answer_of_N == answer] for answer in range(len(group.answers))]


@dataclass
class Subject:
    """All that the checks read. `others`: the tokenizers of further models, by their role. `devices`: GPUs of the run,
    each with `gpu_gb` GB (None: as this machine's). `trained`: which tokens of the answers are trained."""

    stage: StageData
    model_args: ModelArguments
    data_args: DataArguments
    args: TrainingArguments
    ppo: PPOArguments | None
    renderer: Renderer
    config: Any
    train: Split
    held_out: Split | None
    others: dict[str, Any] = field(default_factory=dict)
    devices: int = 1
    gpu_gb: float | None = None
    trained: Callable[[Group], list[np.ndarray]] = trained_answers

    @property
    def tokenizer(self) -> Any:
        return self.renderer.tokenizer

    @property
    def limits(self) -> LengthLimits:
        return LengthLimits.of(self.data_args)

    @property
    def splits(self) -> list[Split]:
        return [split for split in (self.train, self.held_out) if split is not None]

    @property
    def positions(self) -> int | None:
        """Return the longest row that the model can read; None: unlimited."""
        return getattr(self.config.get_text_config(), "max_position_embeddings", None)

    @property
    def longest(self) -> int:
        """Return the tokens of the longest prompt with an answer; of rollouts, with the longest one allowed."""
        found = 0
        for group in [group for split in self.splits for group in split.groups]:
            answer = max(map(len, group.answers), default=self.limits.answer)
            found = max(found, len(group.prompt) + answer)
        return found

    @property
    def steps(self) -> int:
        """Return the optimizer steps of the run, as far as the rows tell."""
        args, rows = self.args, self.train.total * len(self.train.groups) / max(1, len(self.train.records))
        updates = 1
        if self.ppo:
            per_step, updates = self.ppo.prompts_per_rollout, self.ppo.updates
        else:
            at_once = args.per_device_train_batch_size * self.devices
            per_step = args.global_batch_size or at_once * (args.gradient_accumulation_steps or 1)
        steps = max(1, round(args.num_train_epochs * max(1, rows / per_step)))
        if args.max_steps > 0:
            steps = min(steps, args.max_steps)
        return steps * updates


def draw_key(record: Record, seed: int) -> int:
    """Return the number that decides whether a prompt's rows are drawn: the smallest ones are."""
    text = f"doctor {seed} {prompt_hash(record.prompt)}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def place(record: Record) -> str:
    """Return the record's file and line, without the folder."""
    return record.where.rpartition("/")[2] or record.id


def by_share(hits: Iterable[Record], total: int, what: str, *, severe: float, warned: float = 0.0) -> Iterator[Symptom]:
    """Yield one finding where the share of hits calls for one.

    Args:
        hits: the record of each hit.
        total: of how many.
        what: the words behind the count, as "of 20 answers are empty".
        severe: share from which the run is ruined.
        warned: share from which it is worth a warning; 0: from the first hit on.
    """
    places = [place(record) for record in hits]
    share = len(places) / max(1, total)
    if places and share >= min(severe, warned):
        where = ", ".join(dict.fromkeys(places[:3]))
        yield Symptom(where, f"{len(places):,} of {total:,} {what} ({share:.1%})", severe=share >= severe)
