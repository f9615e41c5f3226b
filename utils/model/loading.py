"""Tokenizers and models from folders and from the Hugging Face hub, as the options ask for them."""

from __future__ import annotations

import copy
import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import try_to_load_from_cache
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from utils.arguments.options import ModelArguments
from utils.engine import internals, ranks
from utils.errors import UserError
from utils.model.adapted import lora
from utils.model.folders import WEIGHTS, read
from utils.reporting import warn

# weights that a model with another head leaves aside
HEADS = ("lm_head.", "embed_out.", "score.", "cls.", "lm_predictions.", "mask_predictions.")
NEW_HEADS = ("score.", "classifier.", "pooler.")  # of a reward model that starts from a language model


def load_tokenizer(name: str, cache_dir: str | None = None):
    """Return the tokenizer of a folder or of a name on the hub. A missing pad token becomes the end token: padding is
    decided by length in this project, never by id. Raises UserError where it cannot be used."""
    if os.path.isdir(name) and not any((Path(name) / f).is_file() for f in ("tokenizer_config.json", "tokenizer.json")):
        raise UserError(f"{name}: no tokenizer in this folder; name one with --tokenizer_name_or_path")
    tokenizer = read(AutoTokenizer, name, cache_dir=cache_dir)
    if not tokenizer("a", add_special_tokens=False).input_ids:
        raise UserError(f"{name}: this tokenizer gives no tokens for 'a'; its files are incomplete")
    if tokenizer.eos_token_id is None:
        raise UserError(f"{name}: this tokenizer has no end-of-text token; set eos_token in its tokenizer_config.json")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_causal_lm(args: ModelArguments, tokenizer, bf16: bool = False, offload: bool = False) -> nn.Module:
    """Return a language model to train or to read.

    Args:
        args: which model, and what is done to it.
        tokenizer: the one it will read; the embeddings grow to its size.
        bf16: load weights in bfloat16, else in float32.
        offload: load them on the CPU, else on this rank's device (at ZeRO-3 in shards).

    Returns:
        The model, with an adapter around it if `args` asks for one.

    Raises:
        UserError: a reward model, or a folder without weights.
    """
    config = read_config(args)
    if is_classifier(config):
        raise UserError(f"{args.model_name_or_path} is a reward model; a language model is wanted here")
    return prepared(load(AutoModelForCausalLM, config, args, bf16=bf16, offload=offload), args, tokenizer)


def is_classifier(config) -> bool:
    """Return whether a config is a reward model's, a critic's or another classifier's."""
    return any("SequenceClassification" in name for name in config.architectures or [])


def read_config(args: ModelArguments):
    """Return the model's config with every rate of dropout set to --dropout: families call them by different names."""
    config = read(AutoConfig, args.model_name_or_path, cache_dir=args.cache_dir)
    text = config.get_text_config()
    for name in ("attention_dropout", "attn_pdrop", "embd_pdrop", "resid_pdrop", "hidden_dropout", "dropout",
                 "attn_dropout", "activation_dropout", "hidden_dropout_prob", "attention_probs_dropout_prob",
                 "classifier_dropout", "pooler_dropout", "cls_dropout"):  # fmt: skip
        if isinstance(getattr(text, name, None), float | int):
            setattr(text, name, args.dropout)
    if args.dropout and not any(
        getattr(text, n, 0)
        for n in ("attention_dropout", "attn_pdrop", "hidden_dropout", "hidden_dropout_prob", "dropout")
    ):
        raise UserError(f"--dropout {args.dropout}: {config.model_type} has no dropout to set")
    return config


def load(kind, config, args: ModelArguments, *, bf16: bool, offload: bool) -> nn.Module:
    """Return a model with the weights of its folder, or random ones.

    Args:
        kind: the class of transformers that loads it.
        config: of the model.
        args: which model.
        bf16: load weights in bfloat16, else in float32.
        offload: load them on the CPU.

    Raises:
        UserError: the weights are not those of `config`.
    """
    name, dtype = args.model_name_or_path, torch.float32
    if bf16:
        dtype = torch.bfloat16
    if args.from_scratch:
        with internals.whole_models():  # under ZeRO-3 from_config would give empty tensors
            return kind.from_config(config, dtype=dtype)
    if os.path.isdir(name) and not any(next(Path(name).glob(pattern), None) for pattern in WEIGHTS):
        raise UserError(f"{name}: no weights in this folder (*.safetensors); --from_scratch starts from random ones")
    placed = _placement(offload)
    model, info = read(
        kind, name, config=config, dtype=dtype, cache_dir=args.cache_dir, output_loading_info=True,
        ignore_mismatched_sizes=True, **placed,
    )  # fmt: skip
    _check_weights(name, config, info)
    if placed:
        _draw_on_cpu(model, info["missing_keys"])
    return model


def _check_weights(name: str, config, info: dict[str, Any]) -> None:
    """Raise UserError where a folder's weights are not those of its config; warn of some that are not used. `info` is
    the loading info of from_pretrained, which would draw random weights for those that are missing."""
    new_head = not is_classifier(config)
    lost = [key for key in info["missing_keys"] if not (new_head and key.startswith(NEW_HEADS))]
    if lost:
        raise UserError(f"{name}: its files lack {len(lost)} of the model's weights, the first {sorted(lost)[0]}")
    for key, found, expected in sorted(info["mismatched_keys"]):
        raise UserError(f"{name}: its weight {key} has the shape {list(found)}; config.json says {list(expected)}")
    unused = sorted(key for key in info["unexpected_keys"] if not key.startswith(HEADS))
    if unused:
        warn(f"{name}: its files hold {len(unused)} weights that the model does not use, the first {unused[0]}")


def prepared(model: nn.Module, args: ModelArguments, tokenizer) -> nn.Module:
    """Return the model ready for training: room for all tokens, recomputation, no cache, an adapter around it."""
    if len(tokenizer) > model.get_input_embeddings().num_embeddings:
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    if args.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        # frozen embeddings give hidden states that need no gradient, and recomputed layers then give none
        if args.lora_dim:
            model.enable_input_require_grads()
    model.config.use_cache = False
    if args.lora_dim:
        model = lora().add_lora(model, args)
    return model


def _placement(offload: bool) -> dict[str, Any]:
    """Return options of from_pretrained: weights go straight to this rank's GPU, instead of a whole copy on the CPU for
    each rank. Nothing where they stay on the CPU or, at ZeRO-3, are sharded as they load."""
    if ranks.device().type == "cpu" or offload or internals.shards_while_loading():
        return {}
    return {"device_map": {"": ranks.device()}}


def _draw_on_cpu(model: nn.Module, names: Iterable[str]) -> None:
    """Draw the weights that no file has (a new head) as a model on the CPU does: GPUs draw other numbers."""
    for owner in sorted({name.rpartition(".")[0] for name in names}):
        fresh = copy.deepcopy(model.get_submodule(owner)).to("cpu")
        internals.draw_weights(model, fresh)
        model.get_submodule(owner).load_state_dict(fresh.state_dict())


def positions_of(model: nn.Module) -> int | None:
    """Return how many positions a row may have, None where there is no limit. The RoBERTa family numbers its positions
    from its padding token's id + 1 on."""
    for module in model.modules():
        table = getattr(module, "position_embeddings", None)
        if isinstance(table, nn.Embedding) and table.padding_idx is not None:
            return table.num_embeddings - table.padding_idx - 1
    return getattr(model.config.get_text_config(), "max_position_embeddings", None)


def check_length(model: nn.Module, longest: int) -> None:
    """Raise UserError where a row of `longest` tokens has more positions than the model."""
    limit = positions_of(model)
    if limit and longest > limit:
        raise UserError(
            f"the data holds a prompt and answer of {longest} tokens, more than the model's {limit} positions; "
            f"lower --max_prompt_seq_len, --max_answer_seq_len or --model_max_length"
        )


def fingerprint(name: str, cache_dir: str | None = None) -> str:
    """Return a hash of a model's content: of its files (config and weights) for a folder, of the commit for a name on
    the hub."""
    digest = hashlib.blake2b(digest_size=16)
    if os.path.isdir(name):
        for file in sorted(f for p in ("config.json", *WEIGHTS) for f in Path(name).glob(p)):
            digest.update(file.name.encode())
            with file.open("rb") as content:
                digest.update(hashlib.file_digest(content, "blake2b").digest())
    else:
        read(AutoConfig, name, cache_dir=cache_dir)  # puts it into the cache, in a folder named by the commit
        file = try_to_load_from_cache(name, "config.json", cache_dir=cache_dir)
        digest.update(f"{name}@{Path(file).parent.name}".encode())
    return digest.hexdigest()
