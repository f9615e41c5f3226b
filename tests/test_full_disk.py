"""A disk that fills up, at each kind of file: one line of error, exit code 2, no earlier checkpoint lost, and nothing
half-written that looks whole. torch.save, safetensors, SQLite, NumPy and plain writes each fail in their own way."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import subprocess

import pytest
from processes import environment
from stages import command, metrics, run_stage, toy_data, toy_model
from toys import ROOT

from utils.errors import write_failure

pytestmark = pytest.mark.slow
STAGE = "step3_dpo"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    return toy_model(folder / "model"), toy_data(folder / "pairs")


def on_a_full_disk(*args, limit):
    """The stage in a process that can write no file of more than `limit` bytes (Python ignores the signal that comes
    with it, so the write fails as on a full disk); its one line of error."""
    done = subprocess.run(
        command(STAGE, *args), cwd=ROOT / "training" / STAGE, env=environment(), capture_output=True, text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )  # fmt: skip
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.returncode == 2 and len(errors) == 1 and "Traceback" not in done.stderr, done.stderr
    return errors[0]


def test_the_disk_fills_while_a_checkpoint_or_the_model_is_written(world, tmp_path):
    """With room again the same command ends as if nothing had happened."""
    out, whole = tmp_path / "out", tmp_path / "whole"
    run_stage(STAGE, *world, whole, "--checkpoint_every", "3", "--keep_last", "9")
    weights, optimizer = (max(whole.rglob(f), key=lambda f: f.stat().st_size) for f in ("*.safetensors", "*.pt"))
    last = "checkpoints/step-00000009"
    shutil.copytree(whole, out, ignore=shutil.ignore_patterns("finished.json", "config.json", "*.safetensors"))
    shutil.rmtree(out / last)
    before = sorted(p.relative_to(out / "checkpoints") for p in (out / "checkpoints").rglob("*"))
    for every, file, words in [
        ("3", optimizer, f"{out / last}: the checkpoint cannot be written: "),
        ("0", weights, f"{out}: the model cannot be written: "),
    ]:
        line = on_a_full_disk(*world, out, "--checkpoint_every", every, limit=file.stat().st_size - 1)
        assert line.startswith(f"error: {words}") and "is the disk full?" in line
        assert sorted(p.relative_to(out / "checkpoints") for p in (out / "checkpoints").rglob("*")) == before
        assert not {p.suffix or p.name for p in out.iterdir()} & {".safetensors", ".partial"}
        assert not (out / "config.json").exists() and not (out / ".model.partial").exists()
    said = run_stage(STAGE, *world, out, "--checkpoint_every", "3", "--keep_last", "9")
    assert "continuing after step 6" in said and metrics(out) == metrics(whole)


@pytest.mark.parametrize(
    "place, limit, flags",
    [
        ("cache/tokens/", 1000, ()),
        pytest.param("cache/reference/", 7000, (), marks=pytest.mark.full),
        pytest.param("out/metrics.jsonl", 12000, ("--max_steps", "200"), marks=pytest.mark.full),
    ],
)
def test_the_disk_fills_before_anything_is_saved(world, tmp_path, place, limit, flags):
    flags = ("--eval_every", "never", "--checkpoint_every", "0", *flags)
    line = on_a_full_disk(*world, tmp_path / "out", *flags, limit=limit)
    assert line.startswith(f"error: {tmp_path / place}") and "cannot be written" in line
    assert not list(tmp_path.rglob("config.json")) and not list(tmp_path.rglob("*partial*"))
    if place == "cache/tokens/":
        assert not any((tmp_path / place).iterdir())
    if place == "cache/reference/":  # SQLite leaves an empty file behind
        run_stage(STAGE, *world, tmp_path / "out", *flags)


def test_a_disk_that_is_full_and_one_that_is_not():
    full, read_only = (write_failure(OSError(number, os.strerror(number))) for number in (errno.ENOSPC, errno.EROFS))
    assert full == "No space left on device; is the disk full? Free some space, or give another folder"
    assert read_only == "Read-only file system; give a place that can be written"
    assert "is the disk full?" in write_failure(RuntimeError("[enforce fail] writing file data/0"))
