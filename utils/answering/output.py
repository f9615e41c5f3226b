"""One output file whose rows are computed in any order by any number of processes, and resumed after a stop.

While `x.jsonl` is being made, `.x.jsonl.parts/` beside it holds one append-only file for each process, in which every
row has its number. Once all rows are there, the parts are merged, and `x.jsonl.args.json` says what made the file.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers

from utils.engine import ranks
from utils.errors import UserError, write_failure
from utils.provenance import move
from utils.reporting import progress, say, write_json

MADE_BY = ".args.json"


def made_by(output: Path) -> Path:
    """Return the file that says what made an output."""
    return output.with_name(output.name + MADE_BY)


def join_ranks() -> None:
    """Join the processes that a launcher started into a group."""
    if torch.cuda.is_available():
        torch.cuda.set_device(ranks.local_rank())
    if ranks.rank() > 0:
        transformers.utils.logging.disable_progress_bar()
    # gloo on GPUs too: only small objects are exchanged. 30 days: ranks wait for the slowest, however long it takes.
    if ranks.world_size() > 1 and not torch.distributed.is_initialized():
        torch.distributed.init_process_group("gloo", timeout=datetime.timedelta(days=30))


class Shards:
    """An output file that is computed in parts, one for each process. Making one is a collective.

    Args:
        output: the file.
        facts: what decides its content: a run with the same facts continues the file, or finds it finished.
        total: how many rows it has.
        overwrite: whether a file that was made with other facts is replaced; else it is refused.

    Raises:
        UserError: the file was made with other facts, or cannot be written.
    """

    def __init__(self, output: Path, facts: dict[str, Any], total: int, overwrite: bool = False) -> None:
        self.output, self.facts, self.total = output, {**json.loads(json.dumps(facts)), "rows": total}, total
        self.parts = output.with_name(f".{output.name}.parts")
        self.made_by = made_by(output)
        self.finished, self.done = ranks.from_rank_0(lambda: self._begin(overwrite))

    def _begin(self, overwrite: bool) -> tuple[bool, set[int]]:
        """Return (whether the output is finished, the numbers of the rows that its parts hold)."""
        begun, made = _read_json(self.parts / "args.json"), _read_json(self.made_by)
        # Parts without a row are no run to be continued or refused: nothing is lost with them.
        if not self._rows(repair=True):
            begun = None
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
        """Turn a failed write into a UserError that names the output."""
        try:
            yield
        except OSError as error:
            what = f"{self.output}: cannot be written: {write_failure(error)}"
            raise UserError(f"{what}; run the same command again once it can", on_this_rank=True) from error

    def _refusal(self, before: dict[str, Any] | None) -> str:
        remedy = "give another --output_path, or --overwrite to make it anew"
        if before is None:
            return f"{self.output} exists already and nothing beside it says what made it; {remedy}"
        for name in sorted(before.keys() | self.facts.keys()):
            old, new = before.get(name), self.facts.get(name)
            if old != new:
                break
        return f"{self.output} was made with another {name} ({old}, now {new}); {remedy}"

    def fill(self, batches: Sequence[Sequence[int]], work: Callable[[Sequence[int]], list[Any]], title: str) -> None:
        """Compute the missing rows, and merge the parts when all are there. A collective.

        Args:
            batches: the numbers of the rows of each batch, which must not depend on the number of ranks.
            work: given the row numbers of a batch, returns a JSON value for each.
            title: of the progress bar.
        """
        # A batch of which a row is missing is computed again as a whole: a row's numbers may depend on its batch.
        missing = [batch for batch in batches if not self.done.issuperset(batch)]
        mine = missing[ranks.rank() :: ranks.world_size()]
        with progress(title, sum(map(len, mine))) as advance:
            for batch in mine:
                self._append(zip(batch, work(batch), strict=True))
                advance(len(batch))
        ranks.barrier()
        if ranks.rank() == 0:
            self._merge()
        ranks.barrier()

    def _append(self, rows: Iterable[tuple[int, Any]]) -> None:
        """Write rows with their numbers to this process's part; they survive a power cut."""
        text = "".join(json.dumps([number, row], ensure_ascii=False) + "\n" for number, row in rows)
        with self._writing(), (self.parts / f"rank-{ranks.rank()}.jsonl").open("a", encoding="utf-8") as part:
            part.write(text)
            part.flush()
            os.fsync(part.fileno())

    def _rows(self, repair: bool = False) -> dict[int, Any]:
        """Return every whole row of the parts by its number. repair: cut off a line without an end.

        A killed process may leave such a line, and the next row must begin on a line of its own.
        """
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
        """Yield the finished rows in order."""
        with self.output.open(encoding="utf-8") as lines:
            yield from map(json.loads, lines)


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError):
        return None
