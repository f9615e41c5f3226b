"""Small files of raw rows, and what a mixture makes of them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from toys import ROOT

from utils.arguments.options import DataArguments
from utils.raw_datasets import open_mixture
from utils.raw_datasets.mixture import Mixture
from utils.records import Message

DATA = Path(os.environ.get("PLUMBLINE_DATA", ROOT.parent / "shared" / "data"))
real_data = pytest.mark.skipif(not DATA.is_dir(), reason="no real data: set PLUMBLINE_DATA to its folder")

HELLO = "\n\nHuman: Hello\n\nAssistant: Hi.\n\nHuman: Name a fruit.\n\nAssistant:"


def user(text):
    return (Message("user", text),)


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows)
    path.write_text(text, encoding="utf-8")
    return str(path)


def pairs(count, start=0):
    return [{"prompt": f"q{i}", "chosen": "yes", "rejected": "no"} for i in range(start, start + count)]


def mixture(*paths, split="train", stage=1, seed=0, **options) -> Mixture:
    return open_mixture(DataArguments(data_path=list(map(str, paths)), **options), split, stage, seed)


def prompts(*paths, **options):
    return [record.prompt[-1].content for record in mixture(*paths, **options)]
