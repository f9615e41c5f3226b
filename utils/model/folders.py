"""What the model folders of transformers ask for: reading them with one-line errors, and whole models under ZeRO-3."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import transformers
from safetensors import SafetensorError
from transformers import AutoTokenizer
from transformers.integrations import deepspeed as hf

from utils.errors import UserError
from utils.hub import offline_unless_reachable

transformers.logging.disable_progress_bar()  # it would draw a bar for each folder read or written
WEIGHTS = ("*.safetensors", "pytorch_model*.bin")


def read(kind, name: str, **options: Any):
    """kind.from_pretrained(name) with its many errors as one line."""
    looks_local = name.startswith((".", "/", "~")) or name.count("/") > 1
    if os.path.isfile(os.path.expanduser(name)):
        raise UserError(f"{name}: found a file; expected the folder of a model, as transformers saves it")
    if looks_local and not os.path.isdir(os.path.expanduser(name)):
        raise UserError(f"{name}: no such folder")
    if os.path.isdir(name) and kind is not AutoTokenizer and not (Path(name) / "config.json").is_file():
        raise UserError(f"{name}: no config.json in this folder; it is not a model")
    here = os.path.isdir(os.path.expanduser(name))
    if not here:
        offline_unless_reachable()
    try:
        with _no_load_report() if options.get("output_loading_info") else contextlib.nullcontext():
            return kind.from_pretrained(os.path.expanduser(name), **options)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        first = next(iter(str(error).strip().splitlines()), type(error).__name__)
        missing = "" if here else "no such folder, and from the Hugging Face hub it "
        raise UserError(f"{name}: {missing}cannot be loaded: {first}") from error


@contextlib.contextmanager
def _no_load_report() -> Iterator[None]:
    """Keep transformers from logging its table of missing and unexpected weights: who asks for the loading info judges
    it, and a reward model that starts from a language model always lacks its head."""
    logger = logging.getLogger("transformers.modeling_utils")
    keep = lambda record: "LOAD REPORT" not in record.getMessage()  # noqa: E731
    logger.addFilter(keep)
    try:
        yield
    finally:
        logger.removeFilter(keep)


class whole_models:  # noqa: N801 - used as a function
    """Inside, models are made whole even when ZeRO-3 is on (DeepSpeed shards them when training starts)."""

    def __enter__(self) -> None:
        self._held = hf._hf_deepspeed_config_weak_ref
        hf._hf_deepspeed_config_weak_ref = None

    def __exit__(self, *_: Any) -> None:
        hf._hf_deepspeed_config_weak_ref = self._held
