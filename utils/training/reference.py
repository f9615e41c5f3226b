"""What the reference model says of every answer: computed once, kept by content, used by any loss, order or epoch.

SQLite, one file per model and dtype; a row is (16-byte hash of prompt and answer ids, summed float32 log-prob). It is
filled in chunks of fixed composition, each committed, so a killed pass goes on where it stopped and ends with the same
bits. Nothing in it depends on which data set, template or run asked.
"""

from __future__ import annotations

import dataclasses
import gc
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from utils.arguments.options import ModelArguments, TrainingArguments
from utils.engine import ranks
from utils.engine.freezing import frozen, release
from utils.errors import UserError
from utils.model import loading
from utils.model.batch import Batch
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
        """log ρ of each answer of the batch, float32 [A]."""
        known = (self._sums[row] for row in batch.rows)
        parts = [s if part is None else s[list(part)] for s, part in zip(known, batch.parts, strict=True)]
        return torch.from_numpy(np.concatenate(parts)).to(batch.targets.device)


def references(engine, policy: Policy, stores, model_args: ModelArguments, args: TrainingArguments, model_hash: str,
               other: str | None) -> list[Reference]:  # fmt: skip
    """A Reference for each of `stores`, before training. The reference is the policy as it starts (an adapter starts at
    zero, so with LoRA too), or the model named `other`, loaded for this and let go."""
    model, packed = engine, policy.packed
    if other:
        model_hash = ranks.from_rank_0(lambda: loading.fingerprint(other))
        args_of_other = dataclasses.replace(
            model_args, model_name_or_path=other, from_scratch=False, lora_dim=0, lora_alpha=None,
            lora_target_modules=[], only_optimize_lora=True, merge_dtype=None,
        )  # fmt: skip
        tokenizer = loading.load_tokenizer(model_args.tokenizer_name_or_path or model_args.model_name_or_path)
        reference = Policy(loading.load_causal_lm(args_of_other, tokenizer, args.bf16))
        model, packed = frozen(reference, args), reference.packed
    elif model_args.from_scratch:
        model_hash += f"-scratch{args.seed}"
    name, folder = f"{model_hash}-{args.dtype_name}", cache_folder(model_args) / "reference"
    found = [reference_logprobs(model, packed, store, folder, name, **limits_of(args)) for store in stores]
    if other:
        release(model)
        del model, reference
        gc.collect()  # it holds itself in circles; on a GPU its memory is needed at once
    return found


def check_first_step(at_start: float, args: TrainingArguments, other: str | None):
    """A check of the first loss: a policy that starts as its own reference has Δ = 0, and the loss must say so."""

    def check(loss: float, metrics: dict[str, float]) -> None:
        if other is None and abs(loss - at_start) > (1e-4 if args.dtype_name == "fp32" else 0.02) * max(1.0, at_start):
            raise UserError(
                f"the first loss is {loss:.6g}, and must be {at_start:.6g} while policy and reference agree; likely "
                f"causes: dropout is on; the model in --model_name_or_path changed under its path; the reference cache "
                f"is another dtype's or stale (remove cache_dir/reference); a tokenizer or template that differs"
            )

    return check


def reference_logprobs(
    model, packed: bool, groups: Sequence[Group], folder: Path, name: str, count: int, budget: int
) -> Reference:
    """The Reference of `groups` under `model` (the engine, before its first step). `name` says which model and dtype it
    is: the cache file's name. count, budget: the most groups and tokens of a forward pass. A collective: every rank
    calls it, each computes its share of what is missing; rank 0 alone writes, since nodes may share the folder."""
    path = folder / f"{name}-v{CODE_VERSION}.sqlite"
    keys = [[g.answer_key(k) for k in range(len(g.answers))] for g in groups]
    known = ranks.from_rank_0(lambda: _read(path))  # while another rank still writes, each would read something else
    passes = Passes(groups, count, budget, packed=packed)
    missing = [i for i in range(len(passes)) if any(key not in known for row in passes.rows(i) for key in keys[row])]
    total = sum(map(len, keys))
    absent = sum(key not in known for row in keys for key in row)
    say(f"reference log-probs: {total - absent:,} of {total:,} answers known, {absent:,} to compute ({path})")
    world = ranks.world_size()
    with torch.no_grad(), progress("reference", len(missing)) as advance:
        for start in range(0, len(missing), world):
            batch = passes[missing[min(start + ranks.rank(), len(missing) - 1)]]  # a rank too many repeats the last
            sums = batch.sum_per_answer(model(batch)).tolist()
            mine = dict(zip(_keys_in(batch, keys), sums, strict=True))
            new = {key: value for part in ranks.gather_objects(mine) for key, value in part.items()}
            new = {key: value for key, value in new.items() if key not in known}
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
        with sqlite3.connect(path, timeout=60) as base:
            base.execute("CREATE TABLE IF NOT EXISTS reference (key BLOB PRIMARY KEY, logprob REAL) WITHOUT ROWID")
            base.executemany("INSERT OR IGNORE INTO reference VALUES (?, ?)", rows.items())
    except sqlite3.Error as error:
        raise UserError(f"{path}: the reference cache cannot be written ({error})", on_this_rank=True) from None
