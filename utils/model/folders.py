"""Reading the model folders of transformers, with errors of one line."""

from __future__ import annotations

import contextlib
import importlib
import os
from pathlib import Path
from typing import Any

import transformers
from safetensors import SafetensorError
from transformers import AutoTokenizer

from utils.engine.internals import no_load_report
from utils.errors import UserError

transformers.logging.disable_progress_bar()  # it would draw a bar for each folder read or written
WEIGHTS = ("*.safetensors", "pytorch_model*.bin")


def read(kind, name: str, **options: Any):
    """Return kind.from_pretrained(name, **options); its many errors become a UserError of one line."""
    looks_local = name.startswith((".", "/", "~")) or name.count("/") > 1
    if os.path.isfile(os.path.expanduser(name)):
        raise UserError(f"{name}: found a file; expected the folder of a model, as transformers saves it")
    if looks_local and not os.path.isdir(os.path.expanduser(name)):
        raise UserError(f"{name}: no such folder")
    if os.path.isdir(name) and kind is not AutoTokenizer and not (Path(name) / "config.json").is_file():
        raise UserError(f"{name}: no config.json in this folder; it is not a model")
    here = os.path.isdir(os.path.expanduser(name))
    if not here:
        importlib.import_module("utils.hub").offline_unless_reachable()
    try:
        with contextlib.ExitStack() as stack:
            if options.get("output_loading_info"):
                stack.enter_context(no_load_report())
            return kind.from_pretrained(os.path.expanduser(name), **options)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        first = next(iter(str(error).strip().splitlines()), type(error).__name__)
        missing = ""
        if not here:
            missing = "no such folder, and from the Hugging Face hub it "
        raise UserError(f"{name}: {missing}cannot be loaded: {first}") from error
