"""Making a token store once per machine, or finding it in the cache."""

from __future__ import annotations

import hashlib
import itertools
import operator
import os
import shutil
import time
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path

from utils import raw_datasets
from utils.arguments.options import DataArguments
from utils.errors import UserError, write_failure
from utils.records import Record, RecordError
from utils.reporting import progress, say
from utils.tokens.group import Group
from utils.tokens.store.folder import Columns, TokenStore
from utils.tokens.templates import Kind, Limits, Renderer, Tally, choose, fit

BATCH = 512  # records rendered and tokenised at a time
PATIENCE = 600.0  # seconds that a process waits for another's next batch


def prepare(
    data: DataArguments, split: str, stage: int, kind: Kind, renderer: Renderer, cache_dir: Path, seed: int
) -> TokenStore:
    """The split's records as tokens, from the cache or made now, and what became of them, said. Local rank 0 makes
    them; the machine's other processes wait for the folder, outside any collective. Raises UserError."""
    mixture = raw_datasets.open_mixture(data, split, stage, seed)
    limits = Limits.of(data)
    content = [mixture.fingerprint, renderer.fingerprint, limits, kind, data.train_on, data.on_bad_row, _code()]
    fingerprint = hashlib.blake2b(repr(content).encode(), digest_size=16).hexdigest()
    folder = Path(cache_dir) / "tokens" / fingerprint
    if int(os.environ.get("LOCAL_RANK", 0)) != 0:
        return _wait(folder, fresh=data.rebuild_cache)
    store, reason = _open(folder)
    if store and data.rebuild_cache:
        store, reason = None, "because of --rebuild_cache"
    if store:
        say(f"{split} tokens: from the cache ({folder})")
    else:
        say(f"{split} tokens: made now, {reason} ({folder})")
        store = build(mixture, kind, renderer, limits, folder, fingerprint, data.train_on, data.on_bad_row)
    _report(store, split, limits)
    return store


def build(
    records: Iterable[Record],
    kind: Kind,
    renderer: Renderer,
    limits: Limits,
    folder: Path,
    fingerprint: str = "",
    train_on: str = "last",
    on_bad_row: str = "error",
) -> TokenStore:
    """Write the groups of `records` beside `folder`, rename, open. Raises UserError, also when no group remains.
    `records.notes`, if it has any after its last record, are kept with the tokens."""
    partial = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.partial")
    tally, columns = Tally(), Columns()
    try:
        _sweep(folder)
        partial.mkdir(parents=True)
        with progress("tokenising", operator.length_hint(records) or None) as advance:
            rest = iter(records)
            while batch := list(itertools.islice(rest, BATCH)):
                columns.add(_groups(batch, kind, renderer, limits, tally, train_on, on_bad_row))
                columns.records += len(batch)
                os.utime(partial)  # the sign of life that waiting processes watch
                advance(len(batch))
        if not columns.ids:
            why = "; ".join(line.strip() for line in tally.lines()) or "the data set is empty"
            raise UserError(
                f"none of {columns.records} records can be used as {kind}: {why}; see docs/data.md, or raise the limits"
            )
        notes = list(getattr(records, "notes", ()))
        columns.write(partial, fingerprint, {"notes": notes, "counts": tally.counts, "examples": tally.examples})
        _replace(partial, folder)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written: {write_failure(error)}", on_this_rank=True) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return TokenStore(folder)


def _groups(
    records: list[Record], kind: Kind, renderer: Renderer, limits: Limits, tally: Tally, train_on: str, on_bad_row: str
) -> Iterator[tuple[Record, Group]]:
    rows, rendered = [], []
    for record in records:
        row = choose(record, kind, tally, train_on)
        if row is None:
            continue
        try:
            rendered.append(renderer.render(*row))
            rows.append(row)
        except RecordError:
            if on_bad_row == "error":
                raise
            tally.add("records skipped: the template refuses them", record)
    encoded, apart = renderer.encode(rendered)
    for row, whole, straddling in zip(rows, encoded, apart, strict=True):
        tally.add("answers tokenised apart: they merge with their prompt", row.record, straddling)
        group = fit(renderer, row, whole, limits, tally)
        if group is not None:
            yield row.record, group


def _sweep(folder: Path) -> None:
    """Remove what killed runs left of this folder."""
    for left in folder.parent.glob(f".{folder.name}.*"):
        if time.time() - left.stat().st_mtime > PATIENCE:
            shutil.rmtree(left, ignore_errors=True)


def _replace(partial: Path, folder: Path) -> None:
    """Rename into place. What stands there is moved away first; memory maps that are open in it stay valid."""
    if folder.exists():
        old = partial.with_suffix(".old")
        folder.replace(old)
        shutil.rmtree(old, ignore_errors=True)
    try:
        partial.replace(folder)
    except OSError:
        if _open(folder)[0] is None:  # otherwise another machine made the same entry meanwhile
            raise


def _open(folder: Path) -> tuple[TokenStore | None, str]:
    """(the store, or None and why not)."""
    if not folder.exists():
        return None, "no entry for this data, template, tokenizer and limits"
    try:
        return TokenStore(folder), ""
    except (OSError, ValueError, KeyError, IndexError):
        return None, "the entry is not whole"


def _wait(folder: Path, fresh: bool) -> TokenStore:
    """The store that local rank 0 makes or finds. `fresh` accepts only one that was made under the same launcher."""
    last_sign, since = None, time.monotonic()
    while True:
        store, _ = _open(folder)
        if store and (not fresh or store.launcher == os.getppid()):
            return store
        sign = sum(_modified(path) for path in folder.parent.glob(f".{folder.name}.*.partial"))
        if sign != last_sign:
            last_sign, since = sign, time.monotonic()
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


def _report(store: TokenStore, split: str, limits: Limits) -> None:
    table = store.table
    say(f"{split}: {table['groups']:,} of {table['records']:,} records, {table['tokens']:,} tokens, "
        f"{table['trained_tokens']:,} of them trained ({limits})")  # fmt: skip
    for line in [*table["notes"], *Tally(table["counts"], table["examples"]).lines()]:
        say(line)


def _code() -> str:
    files = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.blake2b(b"".join(path.read_bytes() for path in files), digest_size=8).hexdigest()
