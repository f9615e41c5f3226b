"""One output file, its rows computed in any order by any number of processes, stopped and started again at will.

Beside `x.jsonl` stand, while it is being made, `.x.jsonl.parts/` with one append-only file a process, and once it is
whole `x.jsonl.args.json`, which says what made it. Every row carries its number until the parts are merged.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers

from utils.engine import ranks
from utils.errors import UserError, write_failure
from utils.outputs import move
from utils.reporting import progress, say, write_json

MADE_BY = ".args.json"


def made_by(output: Path) -> Path:
    """The file that says what made an output."""
    return output.with_name(output.name + MADE_BY)


def join_ranks() -> None:
    """Meet the processes that a launcher started. Only small objects travel, so gloo does on GPUs too; the ranks wait
    for the slowest however long it takes."""
    if torch.cuda.is_available():
        torch.cuda.set_device(ranks.local_rank())
    if ranks.rank() > 0:
        transformers.utils.logging.disable_progress_bar()
    if ranks.world_size() > 1 and not torch.distributed.is_initialized():
        torch.distributed.init_process_group("gloo", timeout=datetime.timedelta(days=30))


class Shards:
    """The file `output` of `total` rows. `facts` say what decides its content: the same facts continue it or find it
    finished, others are refused unless `overwrite`. Making one is a collective."""

    def __init__(self, output: Path, facts: dict[str, Any], total: int, overwrite: bool = False) -> None:
        self.output, self.facts, self.total = output, {**json.loads(json.dumps(facts)), "rows": total}, total
        self.parts = output.with_name(f".{output.name}.parts")
        self.made_by = made_by(output)
        self.finished, self.done = ranks.from_rank_0(lambda: self._begin(overwrite))

    def _begin(self, overwrite: bool) -> tuple[bool, set[int]]:
        begun, made = _read_json(self.parts / "args.json"), _read_json(self.made_by)
        if not self._rows(repair=True):
            begun = None  # nothing to lose
        if begun == self.facts:
            done = set(self._rows())
            if done:
                say(f"{self.output}: continuing, {len(done):,} of {self.total:,} rows are there", style="green")
            return False, done
        if not overwrite:
            if self.output.exists() and made == self.facts:
                say(f"{self.output}: already finished, {self.total:,} rows; nothing to do", style="green")
                return True, set()
            if self.output.exists() or begun is not None:
                raise UserError(self._refusal(made if begun is None else begun))
        shutil.rmtree(self.parts, ignore_errors=True)
        with self._writing():
            self.parts.mkdir(parents=True)
        write_json(self.parts / "args.json", self.facts)
        return False, set()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            what = f"{self.output}: cannot be written: {write_failure(error)}"
            raise UserError(f"{what}; the same command continues once it can", on_this_rank=True) from error

    def _refusal(self, before: dict[str, Any] | None) -> str:
        remedy = "give another --output_path, or --overwrite to make it anew"
        if before is None:
            return f"{self.output} exists already and nothing beside it says what made it; {remedy}"
        name = next(k for k in sorted(before.keys() | self.facts.keys()) if before.get(k) != self.facts.get(k))
        return f"{self.output} was made with another {name} ({before.get(name)}, now {self.facts.get(name)}); {remedy}"

    def fill(self, batches: Sequence[Sequence[int]], work: Callable[[Sequence[int]], list[Any]], title: str) -> None:
        """Compute what is missing and merge. `work(rows)` returns one JSON value per row number. What a batch holds
        must not depend on the number of ranks; a batch of which a row is missing is computed again. A collective."""
        missing = [b for b in batches if not self.done.issuperset(b)]
        mine = missing[ranks.rank() :: ranks.world_size()]
        with progress(title, sum(map(len, mine))) as advance:
            for batch in mine:
                self._append(zip(batch, work(batch), strict=True))
                advance(len(batch))
        ranks.barrier()
        if ranks.rank() == 0:
            self._merge()
        ranks.barrier()

    def _append(self, rows) -> None:
        text = "".join(json.dumps([number, row], ensure_ascii=False) + "\n" for number, row in rows)
        with self._writing(), (self.parts / f"rank-{ranks.rank()}.jsonl").open("a", encoding="utf-8") as part:
            part.write(text)
            part.flush()
            os.fsync(part.fileno())

    def _rows(self, repair: bool = False) -> dict[int, Any]:
        """Every whole row of the parts. A line that a killed process left without its end is cut off, so that what is
        appended next begins a line."""
        found: dict[int, Any] = {}
        for part in sorted(self.parts.glob("rank-*.jsonl")):
            content = part.read_bytes()
            whole = content[: content.rfind(b"\n") + 1]
            if repair and len(whole) < len(content):
                os.truncate(part, len(whole))
            found.update(json.loads(line) for line in whole.splitlines())
        return found

    def _merge(self) -> None:
        rows = self._rows()
        partial = self.parts / "merged.jsonl"
        with self._writing():
            with partial.open("w", encoding="utf-8") as out:
                out.writelines(json.dumps(rows[n], ensure_ascii=False) + "\n" for n in range(self.total))
                out.flush()
                os.fsync(out.fileno())
            move(partial, self.output)
            (self.parts / "args.json").replace(self.made_by)
        shutil.rmtree(self.parts, ignore_errors=True)

    def read(self) -> Iterator[Any]:
        """The finished rows, in order."""
        with self.output.open(encoding="utf-8") as lines:
            yield from map(json.loads, lines)


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError):
        return None
