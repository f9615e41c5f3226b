"""The reference model's log-probs of every answer: computed once, kept by content, used by any loss, order or epoch.

SQLite, one file per model and dtype; a row is (16-byte hash of prompt and answer ids, summed float32 log-prob). It is
filled in chunks of fixed composition, each committed, so a killed pass goes on where it stopped and ends with the same
bits. Nothing in it depends on which data set, template or run asked.
"""

from __future__ import annotations

import dataclasses
import gc
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from utils.arguments.options import ModelArguments, TrainingArguments
from utils.engine import ranks
from utils.engine.deepspeed_engine import Engine
from utils.engine.freezing import frozen, release
from utils.errors import UserError
from utils.model import loading
from utils.model.batch import Batch
from utils.model.measure import measure
from utils.model.passes import Passes, limits_of
from utils.model.scoring import Policy
from utils.reporting import progress, say
from utils.tokens.group import Group
from utils.training.run import cache_folder

CODE_VERSION = 2  # raise it when the numbers would change


class Reference:
    """Summed reference log-probs of one data set's answers."""

    def __init__(self, sums: list[np.ndarray]) -> None:
        self._sums = sums  # per group, one per answer

    def of(self, batch: Batch) -> Tensor:
        """Return log ρ of each answer of the batch, float32 [A]."""
        found = []
        for row, part in zip(batch.rows, batch.parts, strict=True):
            sums = self._sums[row]
            if part is not None:
                sums = sums[list(part)]
            found.append(sums)
        return torch.from_numpy(np.concatenate(found)).to(batch.targets.device)


class NoReference(Reference):
    """The reference of losses that have none: log ρ = 0, so that log-ratios are log-probs."""

    def __init__(self) -> None:
        super().__init__([])

    def of(self, batch: Batch) -> Tensor:
        """Return zeros, float32 [A]."""
        return torch.zeros(len(batch.answer_tokens), device=batch.targets.device)


class TokenReference(Reference):
    """Reference log-probs of every token of one data set's answers: in memory, 4 bytes each, not in the cache."""

    def __init__(self, tokens: list[np.ndarray], groups: Sequence[Group]) -> None:
        self._tokens: list[list[np.ndarray]] = []  # per group, one per answer
        for values, group in zip(tokens, groups, strict=True):
            self._tokens.append(np.split(values, np.cumsum([len(answer) for answer in group.answers])[:-1]))
        super().__init__([np.asarray([values.sum() for values in row], np.float32) for row in self._tokens])

    def tokens_of(self, batch: Batch) -> Tensor:
        """Return log ρ of each token of the batch's answers, float32 [N]."""
        found = []
        for row, part in zip(batch.rows, batch.parts, strict=True):
            answers = self._tokens[row]
            found += answers if part is None else [answers[k] for k in part]
        return torch.from_numpy(np.concatenate(found)).to(batch.targets.device)


@dataclasses.dataclass(frozen=True)
class ReferenceModel:
    """The model that is the reference, and what of it is read.

    Args:
        model_hash: of the starting model.
        other: another model, loaded for this and let go; None: the policy before its first step. It is its own
            reference; so with LoRA, whose adapter starts at zero.
        tokens: whether the log-probs of single tokens are read.
    """

    model_hash: str
    other: str | None = None
    tokens: bool = False


def references(
    engine: Engine, stores: Sequence[Sequence[Group]], model_args: ModelArguments, args: TrainingArguments,
    which: ReferenceModel,
) -> list[Reference]:  # fmt: skip
    """Compute the reference log-probs of all answers, or read them from the cache, before training. A collective.

    Args:
        engine: the policy before its first step.
        stores: the groups of each data set.
        model_args: how models are loaded, and where the cache is.
        args: dtype, seed, and the size of a forward pass.
        which: the model.

    Returns:
        A Reference for each store.
    """
    model_hash, other = which.model_hash, which.other
    if other:
        model_hash = ranks.from_rank_0(lambda: loading.fingerprint(other))
        args_of_other = dataclasses.replace(
            model_args, model_name_or_path=other, from_scratch=False, lora_dim=0, lora_alpha=None,
            lora_target_modules=[], only_optimize_lora=True, merge_dtype=None,
        )  # fmt: skip
        tokenizer = loading.load_tokenizer(model_args.tokenizer_name_or_path or model_args.model_name_or_path)
        reference = Policy(loading.load_causal_lm(args_of_other, tokenizer, args.bf16))
        model, packed = frozen(reference, args), reference.packed
    else:
        model, packed = engine, engine.module.packed
        if model_args.from_scratch:
            # random weights differ from seed to seed under one hash
            model_hash += f"-scratch{args.seed}"
    found: list[Reference] = []
    path = cache_file(cache_folder(model_args) / "reference", f"{model_hash}-{args.dtype_name}")
    for store in stores:
        if which.tokens:
            found.append(TokenReference(measure(model, store, packed=packed, **limits_of(args)), store))
        else:
            found.append(reference_logprobs(model, store, path, packed=packed, **limits_of(args)))
    if other:
        release(model)
        del model, reference
        # It holds itself in circles, and on a GPU its memory is needed at once.
        gc.collect()
    return found


def check_first_step(
    at_start: float | None, args: TrainingArguments, other: str | None
) -> Callable[[dict[str, float]], None] | None:
    """Return a check of the first step's row: a policy that starts as its own reference has Δ = 0, and its loss must be
    `at_start`. With another reference, or a loss that has no such value, nothing is known of the first loss."""
    if other or at_start is None:
        return None
    # bfloat16 rounds log-probs to 1 part in 256
    tolerance = 1e-4 if args.dtype_name == "fp32" else 0.02

    def check(row: dict[str, float]) -> None:
        loss = row["loss"]
        if abs(loss - at_start) > tolerance * max(1.0, at_start):
            raise UserError(
                f"the first loss is {loss:.6g}, and must be {at_start:.6g} while policy and reference agree; likely "
                f"causes: dropout is on; the model in --model_name_or_path changed under its path; the reference cache "
                f"is another dtype's or stale (remove cache_dir/reference); a tokenizer or template that differs"
            )

    return check


def cache_file(folder: Path, name: str) -> Path:
    """Return the cache of one model and dtype, which `name` names."""
    return folder / f"{name}-v{CODE_VERSION}.sqlite"


def reference_logprobs(
    model: Any, groups: Sequence[Group], path: Path, *, packed: bool, count: int, budget: int
) -> Reference:
    """Read summed log-probs from the cache, and compute and write those that are missing. A collective: every rank
    computes its share; rank 0 alone writes, since nodes may share the folder.

    Args:
        model: called with a Batch: the engine before its first step, or a frozen model.
        groups: prompts with their answers.
        path: the cache of this model and dtype.
        packed: whether the model reads packed rows.
        count: the most groups of a forward pass.
        budget: the most tokens of a forward pass; 0: any number.

    Returns:
        The Reference of the groups.
    """
    keys = [[g.answer_key(k) for k in range(len(g.answers))] for g in groups]
    # By rank 0 alone: while another run still writes, each rank would read something else.
    known = ranks.from_rank_0(lambda: _read(path))
    passes = Passes(groups, count, budget, packed=packed)
    missing = [i for i in range(len(passes)) if any(key not in known for row in passes.rows(i) for key in keys[row])]
    total = sum(map(len, keys))
    absent = sum(key not in known for row in keys for key in row)
    say(f"reference log-probs: {total - absent:,} of {total:,} answers known, {absent:,} to compute ({path})")
    world = ranks.world_size()
    with torch.no_grad(), progress("reference", len(missing)) as advance:
        for start in range(0, len(missing), world):
            # a rank too many repeats the last pass: the collectives of a sharded forward pass must match
            batch = passes[missing[min(start + ranks.rank(), len(missing) - 1)]]
            sums = batch.sum_per_answer(model(batch)).tolist()
            new: dict[bytes, float] = {}
            for mine in ranks.gather_objects(dict(zip(_keys_in(batch, keys), sums, strict=True))):
                for key, value in mine.items():
                    if key not in known:
                        new[key] = value
            if ranks.rank() == 0:
                _write(path, new)
            known |= new
            advance(min(world, len(missing) - start))
    return Reference([np.asarray([known[key] for key in row], np.float32) for row in keys])


def _keys_in(batch: Batch, keys: list[list[bytes]]) -> list[bytes]:
    found = []
    for row, part in zip(batch.rows, batch.parts, strict=True):
        found += keys[row] if part is None else [keys[row][k] for k in part]
    return found


def _read(path: Path) -> dict[bytes, float]:
    if not path.is_file():
        return {}
    try:
        with sqlite3.connect(path, timeout=60) as base:
            if not base.execute("SELECT 1 FROM sqlite_master WHERE name = 'reference'").fetchone():
                return {}  # another run is about to make it, or found the disk full
            return dict(base.execute("SELECT key, logprob FROM reference"))
    except sqlite3.DatabaseError as error:
        raise UserError(
            f"{path}: the reference cache cannot be read ({error}); remove the file to compute it again"
        ) from None


def _write(path: Path, rows: dict[bytes, float]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        # 60 seconds: another run may hold the lock, and sqlite3's own 5 would be an error.
        with sqlite3.connect(path, timeout=60) as base:
            base.execute("CREATE TABLE IF NOT EXISTS reference (key BLOB PRIMARY KEY, logprob REAL) WITHOUT ROWID")
            base.executemany("INSERT OR IGNORE INTO reference VALUES (?, ?)", rows.items())
    except sqlite3.Error as error:
        raise UserError(f"{path}: the reference cache cannot be written ({error})", on_this_rank=True) from None
