"""Starting many programs quickly: every process is forked from one that has imported torch, transformers and DeepSpeed
already, so that it starts at once, and is as separate from the others as one that a shell starts."""

from __future__ import annotations

import functools
import multiprocessing
import os
import sys
import threading
import time
from multiprocessing import connection, forkserver
from pathlib import Path

from toys import ROOT

from utils.engine.ranks import free_port

LIMIT = 180.0  # seconds for one process; the slowest takes 20 on two busy cores, so a longer one hangs
PRELOAD = [
    "deepspeed", "deepspeed.runtime.zero.muon.muon_optimizer", "peft", "rich.progress", "transformers",
    "transformers.hf_argparser", "transformers.models.llama.modeling_llama", "transformers.optimization",
]  # fmt: skip


class Failure(Exception):  # noqa: N818
    """What a run did wrong, in one line."""


LOCK = threading.Lock()  # multiprocessing keeps the state of children in one place, unguarded


def environment(**extra: str) -> dict[str, str]:
    """That of this process without what a launcher sets, and with `extra`: of one process of a program."""
    kept = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_PORT")}
    return {**kept, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **extra}


@functools.cache
def start_server() -> None:
    """Start the process that every other is forked from, with an environment of its own."""
    kept = dict(os.environ)
    os.environ.update(OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false", DS_ACCELERATOR="cpu",
                      CUDA_VISIBLE_DEVICES="")  # fmt: skip
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        os.environ.pop(name, None)
    try:
        multiprocessing.get_context("forkserver").set_forkserver_preload(PRELOAD)
        forkserver.ensure_running()
    finally:
        os.environ.clear()
        os.environ.update(kept)


def _begin(log: Path, variables: dict[str, str]) -> None:
    """A new process: its output, its stack before the time is over, its environment."""
    out = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.dup2(out, 1)
    os.dup2(out, 2)
    import faulthandler

    faulthandler.dump_traceback_later(LIMIT - 5, file=2)
    os.environ.clear()
    os.environ.update(variables)


def run_program(log: Path, variables: dict[str, str], words: list[str]) -> None:
    _begin(log, variables)
    import runpy

    os.chdir(Path(words[0]).parent)
    sys.argv = words
    runpy.run_path(words[0], run_name="__main__")


def run_function(log: Path, variables: dict[str, str], module: str, name: str, *arguments) -> None:
    _begin(log, variables)
    import importlib

    getattr(importlib.import_module(module), name)(*arguments)


def together(target, log: Path, *arguments, ranks: int = 1) -> int:
    """Run `target` in `ranks` processes at once, their output in `log`; when one fails, the others are killed, as
    torchrun does. Returns the first exit code that is not 0. Raises Failure when they take longer than LIMIT."""
    context, deadline = multiprocessing.get_context("forkserver"), time.monotonic() + LIMIT
    several = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(ranks)}
    told = [several | {"RANK": str(n), "LOCAL_RANK": str(n)} if ranks > 1 else {} for n in range(ranks)]
    told = [environment(DS_ACCELERATOR="cpu", CUDA_VISIBLE_DEVICES="", **one) for one in told]
    with LOCK:
        start_server()
        running = [context.Process(target=target, args=(log, one, *arguments)) for one in told]
        for process in running:
            process.start()
    try:
        while running:
            done = connection.wait([p.sentinel for p in running], max(0.0, deadline - time.monotonic()))
            if not done:
                raise Failure(f"not done after {LIMIT:.0f} s; its stack is in {log}")
            with LOCK:
                codes = [p.exitcode for p in running if p.sentinel in done]
            running = [p for p in running if p.sentinel not in done]
            if any(codes):
                return next(code for code in codes if code)
    finally:
        with LOCK:
            for process in running:
                process.kill()
                process.join()
    return 0
