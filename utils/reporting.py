"""Output of a run: lines and bars on rank 0, metrics.jsonl, args.json, TensorBoard. No other module prints."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rich import progress as bars
from rich.console import Console

from utils.errors import UserError, write_failure
from utils.provenance import commit, move, versions

# Seconds that other ranks wait with an error that all ranks meet: rank 0 prints it, and the launcher ends the others
# meanwhile. Without the wait every rank would print it.
GRACE = 5.0
console = Console(highlight=False, soft_wrap=True, emoji=False)  # texts that people wrote come out as they are
_begun = False  # a bar was opened: there is something to continue


def launched_rank() -> int:
    """Return the rank that the launcher gave this process. It needs no torch, as utils/engine/ranks.py does, so that
    data_collect runs without."""
    return int(os.environ.get("RANK", 0))


def say(message: str, style: str | None = None) -> None:
    """Print a line on rank 0. `message` is plain text: square brackets are shown as they are."""
    if launched_rank() == 0:
        console.print(message, style=style, markup=False)


def warn(message: str) -> None:
    say(f"warning: {message}", style="yellow")


def run_program(main: Callable[[], Any]) -> None:
    """Run a program's main, which may return an exit code. A UserError is one line on stderr and exit code 2 (3 where
    the same command may succeed later), Ctrl-C is 130."""
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # in place of utils/__init__.py's
    if "ACCELERATE_USE_CPU" in os.environ and "WORLD_SIZE" not in os.environ:
        say("accelerate launch started one process; on CPUs --use_deepspeed --num_processes N starts N")
    try:
        code = main()
    except UserError as error:
        if launched_rank() != 0 and not error.on_this_rank:
            time.sleep(GRACE)
        sys.stderr.write(f"error: {error}\n")
        sys.stderr.flush()
        _leave(error.code)
    except KeyboardInterrupt:
        if launched_rank() == 0:
            sys.stderr.write(f"interrupted{'; run the same command again to continue' if _begun else ''}\n")
        _leave(130)
    if code:
        _leave(code)


def _leave(code: int) -> None:
    """Exit without waiting for other ranks: a destructor that waits for a collective would hang the job."""
    # os._exit() writes out nothing that is still in a buffer.
    sys.stdout.flush()
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        os._exit(code)
    sys.exit(code)


@contextlib.contextmanager
def progress(title: str, total: int | None) -> Iterator[Callable[..., None]]:
    """Show a bar on rank 0. Yields advance(n=1, **numbers): the numbers are shown beside the bar. Without a terminal it
    prints a line every ten seconds instead."""
    global _begun
    _begun = True
    if launched_rank() != 0:
        yield lambda n=1, **numbers: None
        return
    if not console.is_terminal:
        yield _plain_progress(title, total)
        return
    columns = [bars.SpinnerColumn(), bars.TextColumn("{task.description}", markup=False), bars.BarColumn()]
    columns += [bars.MofNCompleteColumn(), bars.TextColumn("{task.fields[numbers]}", markup=False)]
    columns += [bars.TimeElapsedColumn(), bars.TimeRemainingColumn()]
    with bars.Progress(*columns, console=console, transient=False) as bar:
        task = bar.add_task(title, total=total, numbers="")

        def advance(n: int = 1, **numbers: float) -> None:
            shown = {"numbers": _short(numbers)} if numbers else {}
            bar.update(task, advance=n, **shown)

        yield advance


def _plain_progress(title: str, total: int | None) -> Callable[..., None]:
    state = {"done": 0, "start": time.monotonic(), "said": time.monotonic()}

    def advance(n: int = 1, **numbers: float) -> None:
        state["done"] += n
        now = time.monotonic()
        if now - state["said"] >= 10 and state["done"] != total:
            state["said"] = now
            rate = state["done"] / (now - state["start"])
            of = left = ""
            if total:
                of = f"/{total}"
                left = f", {(total - state['done']) / rate:.0f} s left" if rate else ""
            say(f"{title}: {state['done']}{of}{left}  {_short(numbers)}")

    return advance


def _short(numbers: dict[str, Any]) -> str:
    return "  ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in numbers.items())


class Report:
    """The log of one run in `folder`: args.json once, one metrics.jsonl row per optimizer step, TensorBoard.

    `start` drops the rows past the loaded checkpoint, so that the file of a resumed run ends bit-identical to that of a
    run that was never stopped (the fields of WALL_CLOCK aside).

    Args:
        folder: the run's folder.
        report_to: where numbers go besides metrics.jsonl: tensorboard, wandb.
        run_name: the run's name for wandb.
        enabled: False writes nothing.
    """

    WALL_CLOCK = (
        "seconds", "tokens_per_second", "gemm_share", "generation_seconds", "scoring_seconds", "training_seconds",
    )  # fmt: skip

    def __init__(self, folder: Path, report_to: list[str], run_name: str, enabled: bool = True) -> None:
        self.folder, self.enabled = Path(folder), enabled and launched_rank() == 0
        self.path = self.folder / "metrics.jsonl"
        self._report_to, self._run_name, self._writers = set(report_to), run_name, []
        if self.enabled:
            with _writing(self.folder):
                self.folder.mkdir(parents=True, exist_ok=True)

    def start(self, step: int) -> None:
        """Begin (step 0) or continue after `step`: drop later rows, open the writers."""
        if not self.enabled:
            return
        rows = []
        if step and self.path.exists():
            lines = self.path.read_text(encoding="utf-8").splitlines()
            # A killed run may have left half a line.
            rows = [line for line in lines if line.endswith("}") and json.loads(line)["step"] <= step]
        write_text(self.path, "".join(row + "\n" for row in rows))
        if "tensorboard" in self._report_to:
            # Imported here: data_collect runs without torch.
            from torch.utils.tensorboard import SummaryWriter

            # purge_step hides the events of steps that are taken again, which would be drawn twice.
            writer = SummaryWriter(str(self.folder / "tensorboard"), purge_step=step + 1)
            self._writers.append(lambda n, row: [writer.add_scalar(k, v, n) for k, v in row.items()] and writer.flush())
        if "wandb" in self._report_to:
            self._writers.append(_wandb_writer(self._run_name, self.folder))

    def log(self, step: int, row: dict[str, float]) -> None:
        """Write one row, the numbers of an optimizer step, to disk."""
        if not self.enabled:
            return
        with _writing(self.path):
            # Opened for each row: a run that is killed has lost none.
            with self.path.open("a", encoding="utf-8") as out:
                out.write(json.dumps({"step": step, **row}) + "\n")
            for write in self._writers:
                write(step, row)

    def write_json(self, name: str, value: Any) -> None:
        if self.enabled:
            write_json(self.folder / name, value)

    def write_args(self, groups: list[Any], **facts: Any) -> None:
        """Write args.json: every option, the versions, the commit and `facts` (the data's hash, say)."""
        options = {type(group).__name__: dataclasses.asdict(group) for group in groups}
        self.write_json("args.json", {**options, **facts, "versions": versions(), "commit": commit()})


def _wandb_writer(run_name: str, folder: Path) -> Callable[[int, dict], None]:
    try:
        import wandb
    except ImportError:
        raise UserError("--report_to wandb needs the wandb package: pip install -e '.[wandb]'") from None
    # An id made of the folder: a resumed run continues its own curves.
    run_id = hashlib.blake2b(str(folder.resolve()).encode(), digest_size=8).hexdigest()
    run = wandb.init(name=run_name, dir=str(folder), resume="allow", id=run_id)
    return lambda step, row: run.log(row, step=step)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as JSON beside `path` and rename."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8 beside `path` and rename. Raises UserError."""
    partial = path.with_name(f".{path.name}.partial")
    with _writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            partial.write_text(text, encoding="utf-8")
            move(partial, path)
        finally:
            partial.unlink(missing_ok=True)


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {write_failure(error)}", on_this_rank=True) from error
