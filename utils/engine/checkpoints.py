"""Checkpoints to continue from: the whole state of a run, so that a kill at any moment loses few steps.

checkpoints/step-00000200/ holds DeepSpeed's state (trained weights, optimizer, schedule), per rank the random
generators and what else the stage carries, and manifest.json with the size and hash of each file and the facts of the
run, among them the hash of its starting model, whose frozen weights are not written. A checkpoint is written under
another name and renamed; the newest intact one is loaded.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import random
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from utils.engine import ranks
from utils.errors import UserError, write_failure
from utils.reporting import say, warn


@dataclass(frozen=True)
class Snapshot:
    """How far a run is, besides the states of its engines."""

    step: int
    facts: dict[str, Any]  # of the run, for all ranks; as JSON
    extra: Any  # this rank's own


def save(engine, folder: Path, snapshot: Snapshot, *, keep_last: int, others: Mapping[str, Any] | None = None) -> None:
    """Write a checkpoint and drop all but the newest ones. A collective.

    Args:
        engine: the engine that trains.
        folder: holds the checkpoints of the run.
        snapshot: the step, and what else to keep.
        keep_last: how many checkpoints stay.
        others: further engines by the names of their folders.

    Raises:
        UserError: it cannot be written; earlier checkpoints are intact.
    """
    tag = f"step-{snapshot.step:08d}"
    partial = folder / f"{tag}.partial"
    if ranks.rank() == 0:
        for leftover in folder.glob("*.partial"):
            shutil.rmtree(leftover, ignore_errors=True)
        partial.mkdir(parents=True, exist_ok=True)
    ranks.barrier()
    try:
        # every rank writes its own shards and generators, then reads back and hashes about its share of the bytes
        engine.save_states(folder, partial.name, {"step": snapshot.step, **snapshot.facts})
        for name, other in (others or {}).items():
            other.save_states(partial, name, {})
        torch.save({"random": _random_states(), "extra": snapshot.extra}, partial / f"rank-{ranks.rank()}.pt")
        ranks.barrier()
        sizes = ranks.from_rank_0(lambda: _sizes(partial))
        mine = {name: _digest(partial / name) for name in shared_out(sizes)[ranks.rank()]}
        manifest = _united(ranks.gather_objects(mine))
        if ranks.rank() == 0:
            # Everything is on the disk before the rename: after a power failure the name means a whole checkpoint.
            for name in manifest:
                _flush(partial / name)
            (partial / "manifest.json").write_text(json.dumps({"facts": snapshot.facts, "files": manifest}, indent=1))
            _flush(partial / "manifest.json")
            shutil.rmtree(folder / tag, ignore_errors=True)  # one of this step that was damaged
            partial.replace(folder / tag)
            _flush(folder)
            for old in _steps(folder)[keep_last:]:
                shutil.rmtree(folder / old, ignore_errors=True)
    except (OSError, RuntimeError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise UserError(
            f"{folder / tag}: the checkpoint cannot be written: {write_failure(error)} (a rank that ended looks the "
            f"same). Earlier checkpoints are kept",
            on_this_rank=True,
        ) from error
    ranks.barrier()


def write(path: Path, value: Any) -> None:
    """Write something of this rank's that is kept between checkpoints, under another name that is then changed."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(value, partial)
        _flush(partial)
        partial.replace(path)
    except (OSError, RuntimeError) as error:
        partial.unlink(missing_ok=True)
        raise UserError(f"{path}: cannot be written: {write_failure(error)}", on_this_rank=True) from error


def read(path: Path) -> Any:
    """Return what write() wrote; None where there is no intact file."""
    try:
        return torch.load(path, weights_only=False)
    except (OSError, EOFError, RuntimeError, pickle.UnpicklingError):
        return None


def newest(folder: Path) -> tuple[int, dict[str, Any]] | None:
    """Return (step, facts) of the newest intact checkpoint, None when there is none. A collective: each rank checks its
    share of the files, and all take the same checkpoint. Raises UserError where all are damaged."""
    damaged = []
    for tag in ranks.from_rank_0(lambda: _steps(folder)):
        manifest = ranks.from_rank_0(lambda at=folder / tag: _manifest(at))
        fault = "its manifest.json cannot be read"
        if manifest is not None:
            fault = _fault(folder / tag, manifest["files"])
        if fault is None:
            return int(tag.removeprefix("step-")), manifest["facts"]
        warn(f"{folder / tag}: {fault}; taking an earlier checkpoint")
        damaged.append(tag)
    if damaged:
        raise UserError(f"{folder}: no checkpoint is intact ({', '.join(damaged)}); remove that folder to start again")
    return None


def load(engine, folder: Path, step: int, others=None) -> Any:
    """Restore the engines and this rank's random generators.

    Args:
        engine: the engine that trains.
        folder: holds the checkpoints of the run.
        step: which of them, by newest().
        others: further engines by the names of their folders.

    Returns:
        The `extra` that this rank saved.
    """
    tag = f"step-{step:08d}"
    engine.load_states(folder, tag)
    for name, other in (others or {}).items():
        other.load_states(folder / tag, name)
    mine = torch.load(folder / tag / f"rank-{ranks.rank()}.pt", weights_only=False, map_location="cpu")
    _restore_random(mine["random"])
    return mine["extra"]


def _manifest(checkpoint: Path) -> dict[str, Any] | None:
    try:
        manifest = json.loads((checkpoint / "manifest.json").read_text())
    except (OSError, json.JSONDecodeError):
        return None
    if not manifest.keys() >= {"facts", "files"}:
        return None
    return manifest


def _fault(checkpoint: Path, files: dict[str, tuple[int, str]]) -> str | None:
    """Return what is wrong with a checkpoint, None if nothing: the first fault of any rank's share, by file name."""
    sizes = {name: size for name, (size, _) in files.items()}
    say(f"checking {checkpoint.name} ({sum(sizes.values()) / 1e6:,.0f} MB)")
    mine = {name: _fault_of(checkpoint / name, *files[name]) for name in shared_out(sizes)[ranks.rank()]}
    faults = _united(ranks.gather_objects(mine))
    for name in sorted(faults):
        if faults[name]:
            return f"{name} {faults[name]}"
    return None


def _fault_of(path: Path, size: int, digest: str) -> str | None:
    if not path.is_file():
        return "is missing"
    # the size first: it costs nothing, and a write that was cut short is the usual damage
    if path.stat().st_size != size or _digest(path) != (size, digest):
        return "is damaged"
    return None


def _united(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the ranks' dictionaries, of which no two share a key, as one."""
    whole: dict[str, Any] = {}
    for part in parts:
        whole |= part
    return whole


def shared_out(sizes: dict[str, int]) -> list[list[str]]:
    """Return the names of files for each rank, of about as many bytes: the largest first, each to the rank that has
    least (Graham 1969, https://doi.org/10.1137/0117039)."""
    shares: list[list[str]] = [[] for _ in range(ranks.world_size())]
    loads = [0] * len(shares)
    for name in sorted(sizes, key=lambda n: (-sizes[n], n)):
        least = loads.index(min(loads))
        shares[least].append(name)
        loads[least] += sizes[name]
    return shares


def _sizes(folder: Path) -> dict[str, int]:
    return {str(p.relative_to(folder)): p.stat().st_size for p in sorted(folder.rglob("*")) if p.is_file()}


def _steps(folder: Path) -> list[str]:
    """Return the tags of the checkpoints in a folder, newest first."""
    return sorted((p.name for p in folder.glob("step-*") if p.name[5:].isdigit()), reverse=True)


def _digest(path: Path) -> tuple[int, str]:
    with path.open("rb") as content:
        return path.stat().st_size, hashlib.file_digest(content, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def _flush(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _random_states() -> dict[str, Any]:
    cuda = None
    if torch.cuda.is_available():
        cuda = torch.cuda.get_rng_state()
    return {"python": random.getstate(), "numpy": np.random.get_state(), "torch": torch.get_rng_state(), "cuda": cuda}


def _restore_random(states: dict[str, Any]) -> None:
    random.setstate(states["python"])
    np.random.set_state(states["numpy"])
    torch.set_rng_state(states["torch"])
    if states["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])
