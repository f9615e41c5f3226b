"""The folder of a token store: flat arrays, read through memory maps."""

from __future__ import annotations

import itertools
import json
import operator
import os
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from utils.records import Record
from utils.tokens.group import Group

ARRAYS = ("ids", "lengths", "pairs", "starts")


class TokenStore(Sequence[Group]):
    """The groups in a folder. Opening raises ValueError or OSError when the folder is not whole.

    tokens, trained_tokens, pairs: int64, one number a group: the packed length, its trained tokens, its pairs.
    table: what the records met on their way (records, groups, tokens, counts, examples).
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        about = json.loads((self.folder / "about.json").read_text(encoding="utf-8"))
        self.fingerprint: str = about["fingerprint"]
        self.table: dict[str, Any] = about["table"]
        self.launcher: int = about["launcher"]  # process id of what started the process that wrote this
        # row i of starts: where group i begins in ids, in lengths (prompt, answers …), in pairs; trained tokens so far
        self._ids, self._lengths, self._pairs, self._starts = (self._load(name) for name in ARRAYS)
        self._trained = self._load("trained") if about["trained_prompts"] else None
        ends = (len(self._ids), len(self._lengths), len(self._pairs))
        if tuple(self._starts[-1, :3]) != ends:
            raise ValueError(f"{self.folder} holds {ends} entries; expected {tuple(self._starts[-1, :3])}")
        self.tokens, _, self.pairs, self.trained_tokens = np.diff(self._starts, axis=0).T.astype(np.int64)

    def _load(self, name: str) -> np.ndarray:
        # A memory map: all processes of a machine share one copy of the pages.
        return np.load(self.folder / f"{name}.npy", mmap_mode="r")

    @cached_property
    def longest(self) -> int:
        """Return the tokens of the longest prompt with one of its answers: the positions that a model must have."""
        first = self._starts[:-1, 1]
        answers = self._lengths.copy()
        answers[first] = 0
        return int((self._lengths[first] + np.maximum.reduceat(answers, first)).max())

    @cached_property
    def record_ids(self) -> list[str]:
        """Return the id of the record that each group was made of."""
        return json.loads((self.folder / "record_ids.json").read_text(encoding="utf-8"))

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __getitem__(self, i: int) -> Group:
        # A range raises the IndexError by which a loop over a Sequence ends, and counts negative numbers from the end.
        i = range(len(self))[i]
        (start, length, pair, _), (_, length_end, pair_end, _) = self._starts[i], self._starts[i + 1]
        parts = start + np.concatenate([[0], np.cumsum(self._lengths[length:length_end])])
        prompt, *answers = (np.asarray(self._ids[a:b]) for a, b in itertools.pairwise(parts.tolist()))
        trained = None
        if self._trained is not None:
            trained = np.asarray(self._trained[start : start + len(prompt)])
        pairs = map(tuple, self._pairs[pair:pair_end].tolist())
        return Group(prompt=prompt, answers=tuple(answers), pairs=tuple(pairs), prompt_trained=trained)


class Columns:
    """Groups as flat lists of arrays, in the order of writing."""

    def __init__(self) -> None:
        self.records, self.trained_prompts = 0, False
        self.ids, self.trained, self.lengths, self.pairs, self.record_ids = [], [], [], [], []
        self.starts = [(0, 0, 0, 0)]

    def add(self, groups: Iterable[tuple[Record, Group]]) -> None:
        """Append groups, each with the record that it was made of."""
        for record, group in groups:
            parts = [group.prompt, *group.answers]
            row = np.concatenate(parts)
            trained = np.ones(len(row), bool)
            trained[: len(group.prompt)] = False
            if group.prompt_trained is not None:
                trained[: len(group.prompt)] = group.prompt_trained
            sizes = (group.tokens, len(parts), len(group.pairs), group.trained_tokens)
            self.starts.append(tuple(map(operator.add, self.starts[-1], sizes)))
            self.trained_prompts |= group.prompt_trained is not None
            self.ids.append(row)
            self.trained.append(trained)
            self.lengths += map(len, parts)
            self.pairs += group.pairs
            self.record_ids.append(record.id)

    def write(self, folder: Path, fingerprint: str, counts: dict[str, Any]) -> None:
        """Write an existing folder; `counts` joins the table. Raises OSError."""
        _save(folder / "ids.npy", np.concatenate(self.ids))
        _save(folder / "lengths.npy", np.asarray(self.lengths, np.int32))
        _save(folder / "pairs.npy", np.asarray(self.pairs, np.int32).reshape(-1, 2))
        _save(folder / "starts.npy", np.asarray(self.starts, np.int64))
        if self.trained_prompts:
            _save(folder / "trained.npy", np.concatenate(self.trained))
        (folder / "record_ids.json").write_text(json.dumps(self.record_ids), encoding="utf-8")
        tokens, _, _, trained_tokens = self.starts[-1]
        sizes = {"records": self.records, "groups": len(self.ids), "tokens": tokens, "trained_tokens": trained_tokens}
        about = {"fingerprint": fingerprint, "trained_prompts": self.trained_prompts, "launcher": os.getppid()}
        about["table"] = {**sizes, **counts}
        (folder / "about.json").write_text(json.dumps(about, indent=2), encoding="utf-8")


def _save(path: Path, array: np.ndarray) -> None:
    """Write an array as np.save does. Raises OSError."""
    # np.save loses the last bytes in silence when the disk is full: it writes past the file object's buffer.
    with path.open("wb") as out:
        np.lib.format.write_array_header_1_0(out, np.lib.format.header_data_from_array_1_0(array))
        out.write(np.ascontiguousarray(array).data)
