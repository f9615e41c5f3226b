"""Token stores, made once per machine or found in the cache."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import operator
import os
import shutil
import time
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from utils import raw_datasets
from utils.arguments.options import DataArguments
from utils.errors import UserError, write_failure
from utils.records import Record, RecordError
from utils.reporting import progress, say
from utils.tokens.group import Group
from utils.tokens.store.folder import Columns, TokenStore
from utils.tokens.templates import Kind, LengthLimits, Renderer, Tally, choose, feedback_of, fit

# Records rendered and tokenised at a time: the fast tokenizers use every core only for many texts at once.
BATCH = 512
PATIENCE = 600.0  # seconds that a process waits for another's next batch


@dataclass(frozen=True)
class DataPart:
    """The part of the data that a stage trains on or is evaluated on."""

    split: Literal["train", "eval"]
    stage: int  # 1, 2 or 3
    kind: Kind
    seed: int  # of what is drawn: weights, --max_train_samples
    pairs_from_ratings: bool = False  # whether ratings and ranks make pairs, too


@dataclass(frozen=True)
class TokenSettings:
    """What decides the tokens of a record."""

    kind: Kind
    renderer: Renderer
    limits: LengthLimits
    train_on: str = "last"  # last | all: which assistant turns are trained
    on_bad_row: str = "error"  # error | skip
    pairs_from_ratings: bool = False


def prepare(data: DataArguments, part: DataPart, renderer: Renderer, cache_dir: Path) -> TokenStore:
    """Return a part of the data as tokens, from the cache or made now, and print what became of its records. Local rank
    0 makes them; the machine's other processes wait for the folder, outside any collective.

    Args:
        data: the options of the data.
        part: which part.
        renderer: the tokenizer and its template.
        cache_dir: the folder whose `tokens` holds the stores.

    Returns:
        The opened store.

    Raises:
        UserError: the data, the template or the limits do not fit one another.
    """
    mixture = raw_datasets.open_mixture(data, split=part.split, stage=part.stage, seed=part.seed)
    limits = LengthLimits.of(data)
    settings = TokenSettings(
        part.kind, renderer, limits, train_on=data.train_on, on_bad_row=data.on_bad_row,
        pairs_from_ratings=part.pairs_from_ratings,
    )  # fmt: skip
    chosen = [part.kind, part.pairs_from_ratings, data.train_on, data.on_bad_row]
    content = [mixture.fingerprint, renderer.fingerprint, limits, *chosen, _code()]
    fingerprint = hashlib.blake2b(repr(content).encode(), digest_size=16).hexdigest()
    folder = Path(cache_dir) / "tokens" / fingerprint
    if int(os.environ.get("LOCAL_RANK", 0)) != 0:
        return _wait(folder, fresh=data.rebuild_cache)
    store, reason = _open(folder)
    if store and data.rebuild_cache:
        store, reason = None, "because of --rebuild_cache"
    if store:
        say(f"{part.split} tokens: from the cache ({folder})")
    else:
        say(f"{part.split} tokens: made now, {reason} ({folder})")
        store = build(mixture, settings, folder, fingerprint=fingerprint)
    _report(store, part.split, limits)
    return store


def build(records: Iterable[Record], settings: TokenSettings, folder: Path, fingerprint: str = "") -> TokenStore:
    """Write the groups of records beside `folder`, rename, and open it.

    Args:
        records: what to tokenise; `records.notes`, if there are any after the last record, are kept with the tokens.
        settings: what decides the tokens.
        folder: the folder of the store.
        fingerprint: what the store is known by.

    Returns:
        The opened store.

    Raises:
        UserError: a record that the template refuses, no group that remains, or a folder that cannot be written.
    """
    partial = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.partial")
    tally, columns = Tally(), Columns()
    try:
        _sweep(folder)
        partial.mkdir(parents=True)
        with progress("tokenising", operator.length_hint(records) or None) as advance:
            rest = iter(records)
            while batch := list(itertools.islice(rest, BATCH)):
                columns.add(_groups(batch, settings, tally))
                columns.records += len(batch)
                # The sign of life that waiting processes watch.
                os.utime(partial)
                advance(len(batch))
        if not columns.ids:
            why = "; ".join(line.strip() for line in tally.lines()) or "the data set is empty"
            raise UserError(
                f"none of {columns.records} records can be used as {settings.kind}: {why}; "
                "see docs/data.md, or raise the limits"
            )
        notes = list(getattr(records, "notes", ()))
        columns.write(partial, fingerprint, {"notes": notes, "counts": tally.counts, "examples": tally.examples})
        _replace(partial, folder)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written: {write_failure(error)}", on_this_rank=True) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return TokenStore(folder)


def _groups(records: list[Record], settings: TokenSettings, tally: Tally) -> Iterator[tuple[Record, Group]]:
    rows, rendered = [], []
    for record in records:
        row = choose(
            record, settings.kind, tally, train_on=settings.train_on, pairs_from_ratings=settings.pairs_from_ratings
        )
        if row is None:
            continue
        try:
            rendered.append(settings.renderer.render(*row))
            rows.append(row)
        except RecordError:
            if settings.on_bad_row == "error":
                raise
            tally.add("records skipped: the template refuses them", record)
    encoded, apart = settings.renderer.encode(rendered)
    for row, whole, straddling in zip(rows, encoded, apart, strict=True):
        tally.add("answers tokenised apart: they merge with their prompt", row.record, straddling)
        known = feedback_of(row.record, settings.kind, row.answers, row.pairs)
        whole = dataclasses.replace(whole, feedback=known)
        group = fit(settings.renderer, row, whole, limits=settings.limits, tally=tally)
        if group is not None:
            yield row.record, group


def _sweep(folder: Path) -> None:
    """Remove what killed runs left of this folder."""
    for left in folder.parent.glob(f".{folder.name}.*"):
        # A younger one may be of a process that still writes it.
        if time.time() - left.stat().st_mtime > PATIENCE:
            shutil.rmtree(left, ignore_errors=True)


def _replace(partial: Path, folder: Path) -> None:
    """Rename into place. An older folder is moved away first; memory maps that are open in it stay valid."""
    if folder.exists():
        old = partial.with_suffix(".old")
        folder.replace(old)
        shutil.rmtree(old, ignore_errors=True)
    try:
        partial.replace(folder)
    except OSError:
        store, _ = _open(folder)
        if store is None:  # otherwise another machine made the same entry meanwhile
            raise


def _open(folder: Path) -> tuple[TokenStore | None, str]:
    """Return (the store, or None and why not)."""
    if not folder.exists():
        return None, "no entry for this data, template, tokenizer and limits"
    try:
        return TokenStore(folder), ""
    except (OSError, ValueError, KeyError, IndexError):
        return None, "the entry is not whole"


def _wait(folder: Path, fresh: bool) -> TokenStore:
    """Wait for the store that local rank 0 makes or finds, and return it. `fresh` accepts only one that was made under
    the same launcher."""
    last_sign, since = None, time.monotonic()
    while True:
        store, _ = _open(folder)
        if store and (not fresh or store.launcher == os.getppid()):
            return store
        sign = sum(_modified(path) for path in folder.parent.glob(f".{folder.name}.*.partial"))
        if sign != last_sign:
            last_sign, since = sign, time.monotonic()
        # A collective would time out or hang here: the watched folder also tells a slow rank 0 from a dead one.
        if time.monotonic() - since > PATIENCE:
            raise UserError(
                f"{folder}: local rank 0 has tokenised nothing for {PATIENCE:.0f} s; see its messages, "
                "or point --cache_dir at a folder that all processes of this machine share",
                on_this_rank=True,
            )
        time.sleep(0.2)


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:  # renamed since it was listed
        return 0.0


def _report(store: TokenStore, split: str, limits: LengthLimits) -> None:
    table = store.table
    say(f"{split}: {table['groups']:,} of {table['records']:,} records, {table['tokens']:,} tokens, "
        f"{table['trained_tokens']:,} of them trained ({limits})")  # fmt: skip
    for line in [*table["notes"], *Tally(table["counts"], table["examples"]).lines()]:
        say(line)


def _code() -> str:
    # The code is part of the fingerprint: tokens of an older version of it are made again and not trusted.
    files = sorted(Path(__file__).parent.parent.rglob("*.py"))
    return hashlib.blake2b(b"".join(path.read_bytes() for path in files), digest_size=8).hexdigest()
