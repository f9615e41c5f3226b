"""Options of data as people write them: --data_path [CLASS:]PATH[=WEIGHT|=Nrows], --data_split 2,4,4, --columns
OURS=THEIRS."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from utils.errors import UserError
from utils.raw_datasets.base import RAW_DATASETS, RawDataset, did_you_mean, named
from utils.raw_datasets.named import class_of

_AMOUNT = re.compile(r"(?P<path>.*)=(?P<number>-?\d+\.?\d*|-?\.\d+)(?P<rows>rows)?", re.DOTALL)
STAGES = {1: "SFT", 2: "the reward model", 3: "step 3"}


@dataclass(frozen=True)
class Spec:
    """One value of --data_path."""

    path: str
    cls: type[RawDataset] | None = None
    weight: float = 1.0  # how often its rows are used
    rows: int | None = None  # how many of its rows are used; None: as the weight gives

    @staticmethod
    def of(text: str) -> Spec:
        """Return what a value of --data_path names. Raises UserError."""
        # First of all: the name of a file may look like a class or a weight.
        if text and os.path.exists(os.path.expanduser(text)):
            return Spec(text)
        amount = _AMOUNT.fullmatch(text)
        path, weight, rows = text, 1.0, None
        if amount:
            path = amount["path"]
        if amount and amount["rows"]:
            if not amount["number"].isdigit() or int(amount["number"]) < 1:
                raise UserError(f"{text}: found ={amount['number']}rows; expected a whole number of rows, 1 or more")
            rows = int(amount["number"])
        elif amount:
            weight = float(amount["number"])
            if weight <= 0:
                raise UserError(f"{text}: found the weight {amount['number']}; expected above 0")
        head, colon, tail = path.partition(":")
        cls = None
        # A name of the hub has its slash before its colon: owner/name:config.
        if colon and "/" not in head:
            cls, path = named(head), tail
        own = class_of(path)
        if not path:
            raise UserError(f"{text!r} names no data; expected [CLASS:]PATH_OR_NAME[=WEIGHT|=Nrows]")
        if cls is None and own:
            cls = named(own)
        return Spec(path, cls=cls, weight=weight, rows=rows)

    @staticmethod
    def unweighted(text: str) -> Spec:
        """Return `of` for programs that use every row once. Raises UserError for =WEIGHT and =Nrows."""
        spec = Spec.of(text)
        if spec.weight != 1 or spec.rows is not None:
            raise UserError(f"{text}: =WEIGHT and =Nrows are for training data; expected [CLASS:]PATH_OR_NAME")
        return spec


def slice_of(data_split: str | None, stage: int) -> tuple[float, float]:
    """Return the part [low, high) of the unit interval that is the stage's. Raises UserError."""
    if stage not in STAGES:
        raise ValueError(f"stage {stage}; expected 1, 2 or 3")
    if data_split is None:
        return 0.0, 1.0
    words = data_split.split(",")
    if len(words) != 3 or not all(re.fullmatch(r"\s*\d+(\.\d+)?\s*", word) for word in words):
        raise UserError(f"--data_split is {data_split!r}; expected three shares, as 2,4,4")
    # Shares of prompts, of any sum: 2,4,4 are those of DeepSpeed-Chat.
    shares = [float(word) for word in words]
    if shares[stage - 1] == 0:
        raise UserError(f"--data_split {data_split} gives {STAGES[stage]} no data; give it a share above 0")
    return sum(shares[: stage - 1]) / sum(shares), sum(shares[:stage]) / sum(shares)


def renaming(columns: list[str]) -> dict[str, str]:
    """Return {theirs: ours} of --columns. Raises UserError."""
    known = sorted(set().union(*(cls.columns for cls in RAW_DATASETS.values())))
    theirs_to_ours: dict[str, str] = {}
    for word in columns:
        ours, equals, theirs = word.partition("=")
        if not (ours and equals and theirs):
            raise UserError(f"--columns {word}: expected OURS=THEIRS, as prompt=question")
        if ours not in known:
            closest = did_you_mean(ours, known)
            raise UserError(f"--columns {word}: no class reads {ours!r}{closest}; known: {', '.join(known)}")
        if theirs in theirs_to_ours or ours in theirs_to_ours.values():
            raise UserError(f"--columns {word}: a column is named twice")
        theirs_to_ours[theirs] = ours
    return theirs_to_ours
