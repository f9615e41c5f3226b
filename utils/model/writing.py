"""Writing a model as a folder that plain transformers loads."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from utils.engine.internals import whole_models
from utils.errors import UserError, write_failure
from utils.model.adapted import has_adapter, lora, plain

# the weights of another model that this one takes the place of
PARTS = ("model.safetensors", "model-*-of-*.safetensors", "pytorch_model*.bin", "*.index.json")


def save(model: nn.Module, state: dict[str, Tensor], renderer, folder: Path) -> nn.Module:
    """Write a folder that plain transformers loads: safetensors, config, generation config, tokenizer with its chat
    template, and adapter/ when there is one. It is written into a folder inside, loaded again and compared, then moved;
    config.json moves last, so a folder with a config is a whole model. Only rank 0 calls this.

    Args:
        model: the model that was trained, with its adapter if it has one.
        state: its whole weights by name.
        renderer: with its tokenizer, chat template and stop tokens.
        folder: where to write; other files in it stay.

    Returns:
        The model as it was read back.

    Raises:
        UserError: it cannot be written, or reads back differently.
    """
    base, whole, tokenizer = plain(model), state, renderer.tokenizer
    if has_adapter(model):
        whole = lora().merged(model, state)
    partial = folder / ".model.partial"
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        base.config.use_cache = True
        # plain transformers then stops where this project's generation stops
        if hasattr(base, "generation_config") and base.can_generate():
            base.generation_config.eos_token_id = list(renderer.stop_token_ids)
            base.generation_config.pad_token_id = tokenizer.pad_token_id
        with whole_models():
            base.save_pretrained(partial, state_dict=dict(whole))  # it empties the dict that it is given
        tokenizer.chat_template = renderer.chat_template  # a named template goes along as the tokenizer's own
        tokenizer.save_pretrained(partial)
        if has_adapter(model):
            lora().save_beside(model, state, tokenizer, partial, folder)
        again = _compare(type(base), partial, whole)
        files = sorted(partial.iterdir(), key=lambda f: f.name == "config.json")
        for kind in PARTS:
            for old in folder.glob(kind):
                if not (partial / old.name).exists():  # save_pretrained() removes them, too: they might be read first
                    old.unlink()
        for file in files:
            target = folder / file.name
            if target.is_dir():
                if (target / "README.md").is_file():
                    (target / "README.md").replace(file / "README.md")
                shutil.rmtree(target)
            file.replace(target)
        return again
    except (OSError, RuntimeError, SafetensorError) as error:
        raise UserError(f"{folder}: the model cannot be written: {write_failure(error)}", on_this_rank=True) from error
    finally:
        base.config.use_cache = False
        shutil.rmtree(partial, ignore_errors=True)


def _compare(kind: type, folder: Path, state: dict[str, Tensor]) -> nn.Module:
    """Return the folder's model; raise UserError unless all its weights are those of `state`, to the last bit."""
    with whole_models():
        again, info = kind.from_pretrained(folder, dtype="auto", output_loading_info=True)
    # compared to the last bit: what is written is copied, not computed
    lost = list(info["missing_keys"]) + list(info["mismatched_keys"])
    loaded = again.state_dict()
    lost += [name for name, tensor in state.items() if name not in loaded or not torch.equal(loaded[name], tensor)]
    broken = [name for name, tensor in state.items() if not tensor.isfinite().all()]
    if lost and broken:  # NaN differs from itself
        raise UserError(
            f"{folder.parent}: the model is not written: {len(broken)} of its tensors hold NaN or infinite numbers, "
            f"the first {broken[0]}: training has diverged; go back to an earlier checkpoint, or lower --learning_rate",
            on_this_rank=True,
        )
    if lost:
        raise UserError(
            f"{folder.parent}: the model is not written: read back, {len(lost)} tensors differ from those in memory, "
            f"the first {lost[0]}; check the disk, or give another folder", on_this_rank=True,
        )  # fmt: skip
    return again
