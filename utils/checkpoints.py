"""Checkpoints to continue from: everything a run is, so that a kill at any moment costs nothing.

checkpoints/step-00000200/ holds DeepSpeed's state (weights, optimizer, schedule), per rank the random generators and
whatever else the stage carries, and manifest.json with the size and hash of each file. It is written beside and
renamed; the newest intact one is taken.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch

from utils import ranks
from utils.errors import UserError
from utils.reporting import say, warn


def save(engine, folder: Path, step: int, facts: dict[str, Any], extra: Any, keep_last: int, others=None) -> None:
    """Write step `step` and drop all but the newest `keep_last`. `facts` are shared (JSON), `extra` is this
    rank's own; `others` are further engines by the name of their folder."""
    tag = f"step-{step:08d}"
    partial = folder / f"{tag}.partial"
    if ranks.rank() == 0:
        for leftover in folder.glob("*.partial"):
            shutil.rmtree(leftover, ignore_errors=True)
        partial.mkdir(parents=True, exist_ok=True)
    ranks.barrier()
    try:
        engine.save_states(folder, partial.name, {"step": step, **facts})
        for name, other in (others or {}).items():
            other.save_states(partial, name, {})
        torch.save({"random": _random_states(), "extra": extra}, partial / f"rank-{ranks.rank()}.pt")
        ranks.barrier()
        files = sorted(p.relative_to(partial) for p in partial.rglob("*") if p.is_file())
        mine = {str(f): _digest(partial / f) for f in files[ranks.rank() :: ranks.world_size()]}
        manifest = {name: digest for part in ranks.gather_objects(mine) for name, digest in part.items()}
        if ranks.rank() == 0:
            for name in manifest:
                _flush(partial / name)
            (partial / "manifest.json").write_text(json.dumps({"facts": facts, "files": manifest}, indent=1))
            _flush(partial / "manifest.json")
            shutil.rmtree(folder / tag, ignore_errors=True)  # one of this step that was damaged
            partial.replace(folder / tag)
            _flush(folder)
            for old in _steps(folder)[keep_last:]:
                shutil.rmtree(folder / old, ignore_errors=True)
    except (OSError, RuntimeError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise UserError(
            f"{folder / tag}: the checkpoint cannot be written: {reason}; is the disk full? (a rank that ended "
            f"looks the same) Earlier checkpoints are kept",
            on_this_rank=True,
        ) from error
    ranks.barrier()


def write(path: Path, value: Any) -> None:
    """Something of one rank's that is worth keeping between checkpoints, written beside and renamed."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(value, partial)
        _flush(partial)
        partial.replace(path)
    except (OSError, RuntimeError) as error:
        partial.unlink(missing_ok=True)
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise UserError(f"{path}: cannot be written: {reason}; is the disk full?", on_this_rank=True) from error


def read(path: Path) -> Any:
    """What write() kept; None where there is nothing whole."""
    try:
        return torch.load(path, weights_only=False)
    except (OSError, EOFError, RuntimeError, pickle.UnpicklingError):
        return None


def newest(folder: Path) -> tuple[int, dict[str, Any]] | None:
    """(step, facts) of the newest intact checkpoint, None when there is none. All ranks take the same one."""
    found = _newest_intact(folder) if ranks.rank() == 0 else None
    return ranks.gather_objects(found)[0]


def load(engine, folder: Path, step: int, others=None) -> Any:
    """Restore engine, further ones (by the name of their folder) and random generators; returns the `extra` that this
    rank saved."""
    tag = f"step-{step:08d}"
    engine.load_states(folder, tag)
    for name, other in (others or {}).items():
        other.load_states(folder / tag, name)
    mine = torch.load(folder / tag / f"rank-{ranks.rank()}.pt", weights_only=False)
    _restore_random(mine["random"])
    return mine["extra"]


def _newest_intact(folder: Path) -> tuple[int, dict[str, Any]] | None:
    damaged = []
    for tag in _steps(folder):
        fault = _fault(folder / tag)
        if fault is None:
            facts = json.loads((folder / tag / "manifest.json").read_text())["facts"]
            return int(tag.removeprefix("step-")), facts
        warn(f"{folder / tag}: {fault}; taking an earlier checkpoint")
        damaged.append(tag)
    if damaged:
        raise UserError(f"{folder}: no checkpoint is intact ({', '.join(damaged)}); remove that folder to start again")
    return None


def _fault(checkpoint: Path) -> str | None:
    try:
        files = json.loads((checkpoint / "manifest.json").read_text())["files"]
    except (OSError, json.JSONDecodeError, KeyError):
        return "its manifest.json cannot be read"
    say(f"checking {checkpoint.name} ({sum(size for size, _ in files.values()) / 1e6:,.0f} MB)")
    for name, (size, digest) in files.items():
        path = checkpoint / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != size or _digest(path)[1] != digest:
            return f"{name} is damaged"
    return None


def _steps(folder: Path) -> list[str]:
    """Tags, newest first."""
    return sorted((p.name for p in folder.glob("step-*") if p.name[5:].isdigit()), reverse=True)


def _digest(path: Path) -> tuple[int, str]:
    with path.open("rb") as content:
        return path.stat().st_size, hashlib.file_digest(content, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _random_states() -> dict[str, Any]:
    cuda = torch.cuda.get_rng_state() if torch.cuda.is_available() else None
    return {"python": random.getstate(), "numpy": np.random.get_state(), "torch": torch.get_rng_state(), "cuda": cuda}


def _restore_random(states: dict[str, Any]) -> None:
    random.setstate(states["python"])
    np.random.set_state(states["numpy"])
    torch.set_rng_state(states["torch"])
    if states["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])
