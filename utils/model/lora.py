"""LoRA adapters by peft: putting one on a model, adding it into the weights for saving,
writing it as a folder that peft loads with its base, from any working directory."""

from __future__ import annotations

import json
import os
from pathlib import Path

import torch
from huggingface_hub import snapshot_download
from torch import Tensor, nn
from transformers import AutoConfig

from utils.engine.internals import whole_size
from utils.errors import UserError
from utils.model.adapted import BASE, plain
from utils.model.folders import WEIGHTS, read
from utils.reporting import say, warn

DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


def add_lora(model: nn.Module, args) -> nn.Module:
    """Return the model with a LoRA adapter: W + (alpha/r)·B·A, B zero at first. Raises UserError where a name of
    --lora_target_modules fits no module. Hu et al. 2021, arXiv:2106.09685."""
    import peft

    is_reward = "SequenceClassification" in type(model).__name__
    linear = set()
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D":  # GPT-2's linear layer
            linear.add(name.rsplit(".", 1)[-1])
    # not the heads: a reward model's is trained whole, and a vocabulary's is left out by peft's "all-linear", too
    linear -= {"score", "lm_head", "embed_out"}
    for suffix in args.lora_target_modules:
        if not any(name.endswith(suffix) for name, _ in model.named_modules()):
            raise UserError(
                f"--lora_target_modules {suffix}: no module ends so; linear layers: {', '.join(sorted(linear))}"
            )
    config = peft.LoraConfig(
        task_type="SEQ_CLS" if is_reward else "CAUSAL_LM",
        r=args.lora_dim,
        lora_alpha=2 * args.lora_dim if args.lora_alpha is None else args.lora_alpha,
        lora_dropout=args.lora_dropout,
        target_modules=args.lora_target_modules or sorted(linear),
        modules_to_save=["score"] if is_reward else None,
    )
    # autocast would keep adapters in float32 beside a bfloat16 model; DeepSpeed has float32 masters of all weights
    adapted = peft.get_peft_model(model, config, autocast_adapter_dtype=False)
    if not args.only_optimize_lora:
        adapted.requires_grad_(True)
    trained = sum(whole_size(p) for p in adapted.parameters() if p.requires_grad)
    adapted.merge_dtype, adapted.cache_dir = args.merge_dtype, args.cache_dir
    say(f"LoRA trains {trained:,} of {sum(map(whole_size, adapted.parameters())):,} weights")
    return adapted


def merged(model: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return `state` (whole tensors by the names of `model`) as the plain model's: adapters are added into the weights
    in float32, then all is cast to --merge_dtype (None: each tensor keeps its own). The model is not changed."""
    state = {name.removeprefix("base_model.model."): tensor for name, tensor in state.items()}
    result = {}
    for name, tensor in state.items():
        if ".lora_" in name or ".original_module." in name:
            continue
        result[name.replace(".base_layer.", ".").replace(".modules_to_save.default.", ".")] = tensor
    for name, module in plain(model).named_modules():
        if f"{name}.lora_A.default.weight" in state:
            a, b = (state[f"{name}.lora_{x}.default.weight"].float() for x in "AB")
            delta = module.scaling["default"] * (b @ a)
            weight = result[f"{name}.weight"]
            if getattr(module, "fan_in_fan_out", False):  # GPT-2's layers hold W transposed
                delta = delta.T
            result[f"{name}.weight"] = (weight.float() + delta).to(DTYPES.get(model.merge_dtype, weight.dtype))
    if model.merge_dtype is None:
        return result
    wanted = DTYPES[model.merge_dtype]
    cast: dict[int, Tensor] = {}  # by the tensor's id: two names of a tied weight go on sharing one tensor
    for tensor in result.values():
        cast[id(tensor)] = tensor.to(wanted) if tensor.is_floating_point() else tensor
    return {name: cast[id(tensor)] for name, tensor in result.items()}


def save_beside(model: nn.Module, state: dict[str, Tensor], tokenizer, partial: Path, final: Path) -> None:
    """Write adapter/ into the folder of the merged model, and the merged dtype into that one's config.json. The adapter
    is peft's files, with the base by its absolute path (or its name on the hub), and the tokenizer.

    Args:
        model: the model with its adapter.
        state: whole weights by the names of the model.
        tokenizer: of the model.
        partial: the folder, where the merged model already is.
        final: where its files will be moved to.

    peft turns a language model into a classifier of two labels, but a reward model has one. Its adapter therefore names
    the folder base/ inside it as the base: the base's config.json with one label, and links to its weights."""
    base, name, folder = plain(model), plain(model).name_or_path, partial / "adapter"
    if model.merge_dtype:
        base.config.dtype = str(DTYPES[model.merge_dtype]).removeprefix("torch.")
        base.config.save_pretrained(partial)
    tensors = {n.removeprefix("model."): t for n, t in state.items() if ".lora_" in n or ".modules_to_save." in n}
    model.save_pretrained(folder, state_dict=tensors, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)  # peft's form with nothing filled in
    tokenizer.save_pretrained(folder)
    source = name
    if os.path.isdir(os.path.expanduser(name)):  # absolute: peft would read a relative path from where it is started
        source = str(Path(name).expanduser().resolve())
    if "SequenceClassification" in type(base).__name__ and _link_base(model, source, tokenizer, folder / BASE):
        source = str((final / "adapter").resolve() / BASE)
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
