"""Writing a LoRA adapter as a folder that peft loads with its base, from any working directory."""

from __future__ import annotations

import json
import os
from pathlib import Path

from huggingface_hub import snapshot_download
from torch import Tensor, nn
from transformers import AutoConfig

from utils.model.folders import WEIGHTS, read
from utils.model.lora import plain
from utils.reporting import warn

BASE = "base"


def save_adapter(model: nn.Module, state: dict[str, Tensor], tokenizer, folder: Path, final: Path) -> None:
    """Write an adapter: peft's files, with the base by its absolute path (or its name on the hub), and the tokenizer.

    Args:
        model: the model with its adapter.
        state: whole weights by the names of the model.
        tokenizer: of the model.
        folder: where to write.
        final: what `folder` will be renamed to.

    peft turns a language model into a classifier of two labels, but a reward model has one. Its adapter therefore names
    the folder base/ inside it as the base: the base's config.json with one label, and links to its weights."""
    base, name = plain(model), plain(model).name_or_path
    tensors = {n.removeprefix("model."): t for n, t in state.items() if ".lora_" in n or ".modules_to_save." in n}
    model.save_pretrained(folder, state_dict=tensors, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)  # peft's form with nothing filled in
    tokenizer.save_pretrained(folder)
    source = name
    if os.path.isdir(os.path.expanduser(name)):  # absolute: peft would read a relative path from where it is started
        source = str(Path(name).expanduser().resolve())
    if "SequenceClassification" in type(base).__name__ and _link_base(model, source, tokenizer, folder / BASE):
        source = str(final.resolve() / BASE)
    file = folder / "adapter_config.json"
    config = json.loads(file.read_text(encoding="utf-8")) | {"base_model_name_or_path": source}
    config["target_modules"] = sorted(config["target_modules"])  # peft has them in no order
    file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _link_base(model: nn.Module, source: str, tokenizer, folder: Path) -> bool:
    """Fill base/, and return whether it is needed and could be: not where the base has one label itself, nor where it
    has no files that a link can name."""
    config = read(AutoConfig, source, cache_dir=model.cache_dir)
    if config.num_labels == 1:
        return False
    try:
        home = source
        if not os.path.isdir(source):
            home = snapshot_download(source, local_files_only=True, cache_dir=model.cache_dir)
        home, weights = Path(home), []
        for pattern in WEIGHTS:
            weights = weights or sorted(home.glob(pattern))  # safetensors, if there are any
        if not weights:  # a model that began with random weights
            return False
        folder.mkdir()
        for file in [*weights, *home.glob("*.index.json")]:
            (folder / file.name).symlink_to(file.resolve())
    except OSError as error:
        warn(f"{source}: its weights cannot be linked to ({error.strerror or error}): to load the adapter, peft needs "
             f"num_labels=1")  # fmt: skip
        return False
    config.num_labels = 1
    if tokenizer.pad_token_id < config.get_text_config().vocab_size:
        config.get_text_config().pad_token_id = tokenizer.pad_token_id
    config.save_pretrained(folder)
    return True
