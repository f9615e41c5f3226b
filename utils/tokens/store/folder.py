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
from utils.tokens.group import OF_ANSWERS, OF_PAIRS, Feedback, Group, Unit

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
        self._feedback = {name: self._load(name) for name in about["feedback"]}
        ends = (len(self._ids), len(self._lengths), len(self._pairs))
        if tuple(self._starts[-1, :3]) != ends:
            raise ValueError(f"{self.folder} holds {ends} entries; expected {tuple(self._starts[-1, :3])}")
        answers = len(self._lengths) - len(self)
        for name, values in self._feedback.items():
            if len(values) != (len(self._pairs) if name in OF_PAIRS else answers):
                raise ValueError(f"{self.folder} holds {len(values)} entries of {name}")
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

    def units(self, unit: Unit) -> np.ndarray:
        """Return what a loss of this unit is averaged over, one number a group."""
        if unit == "token":
            return self.trained_tokens
        if unit == "pair":
            return self.pairs
        if unit == "prompt":
            return np.ones(len(self), np.int64)
        first = self._starts[:, 1] - np.arange(len(self) + 1)  # where the answers of each group begin
        if unit == "answer":
            return np.diff(first)
        votes = np.cumsum(self._feedback["good"].astype(np.int64) + self._feedback["bad"])
        return np.diff(np.concatenate([[0], votes])[first])

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
        pairs, known = map(tuple, self._pairs[pair:pair_end].tolist()), {}
        for name, values in self._feedback.items():
            of_answers = slice(length - i, length_end - i - 1)  # among the lengths before them are i prompts
            known[name] = np.asarray(values[slice(pair, pair_end) if name in OF_PAIRS else of_answers])
        return Group(prompt, tuple(answers), tuple(pairs), trained, feedback=Feedback(**known))


class Columns:
    """Groups as flat lists of arrays, in the order of writing."""

    def __init__(self) -> None:
        self.records, self.trained_prompts = 0, False
        self.ids, self.trained, self.lengths, self.pairs, self.record_ids = [], [], [], [], []
        self.feedback: dict[str, list[np.ndarray]] = {name: [] for name in (*OF_ANSWERS, *OF_PAIRS)}
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
            for name, values in vars(group.feedback).items():
                if values is not None:
                    self.feedback[name].append(values)
            self.record_ids.append(record.id)

    def write(self, folder: Path, fingerprint: str, counts: dict[str, Any]) -> None:
        """Write an existing folder; `counts` joins the table. Raises OSError."""
        _save(folder / "ids.npy", np.concatenate(self.ids))
        _save(folder / "lengths.npy", np.asarray(self.lengths, np.int32))
        _save(folder / "pairs.npy", np.asarray(self.pairs, np.int32).reshape(-1, 2))
        _save(folder / "starts.npy", np.asarray(self.starts, np.int64))
        if self.trained_prompts:
            _save(folder / "trained.npy", np.concatenate(self.trained))
        known = {name: np.concatenate(values) for name, values in self.feedback.items() if values}
        for name, values in known.items():
            _save(folder / f"{name}.npy", values)
        (folder / "record_ids.json").write_text(json.dumps(self.record_ids), encoding="utf-8")
        tokens, _, _, trained_tokens = self.starts[-1]
        sizes = {"records": self.records, "groups": len(self.ids), "tokens": tokens, "trained_tokens": trained_tokens}
        about = {"fingerprint": fingerprint, "trained_prompts": self.trained_prompts, "launcher": os.getppid()}
        about["feedback"] = list(known)
        about["table"] = {**sizes, **counts}
        (folder / "about.json").write_text(json.dumps(about, indent=2), encoding="utf-8")


def _save(path: Path, array: np.ndarray) -> None:
    """Write an array as np.save does. Raises OSError."""
    # np.save loses the last bytes in silence when the disk is full: it writes past the file object's buffer.
    with path.open("wb") as out:
        np.lib.format.write_array_header_1_0(out, np.lib.format.header_data_from_array_1_0(array))
        out.write(np.ascontiguousarray(array).data)
