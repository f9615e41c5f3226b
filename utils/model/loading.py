"""Tokenizers and models in and out of folders: every `from_pretrained` and `save_pretrained` that needs torch."""

from __future__ import annotations

import copy
import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)
from transformers.integrations import deepspeed as hf

from utils.arguments.options import ModelArguments
from utils.engine import ranks
from utils.errors import UserError
from utils.model.folders import WEIGHTS, read, whole_models
from utils.model.lora import add_lora, plain
from utils.model.writing import save

__all__ = [
    "check_length",
    "fingerprint",
    "require_reward_model",
    "load_causal_lm",
    "load_reward_model",
    "load_tokenizer",
    "save",
]
from utils.reporting import say, warn

HEADS = ("lm_head.", "embed_out.", "score.")  # weights that a model with another head leaves aside


def load_tokenizer(name: str, cache_dir: str | None = None):
    """The tokenizer beside the model (or named by itself). A missing pad token becomes the end token: padding is
    decided by length here, never by id."""
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
    """A language model to train or to read, on this rank's device (offload: on the CPU; under ZeRO-3 in shards). Raises
    UserError for a reward model or a folder without weights."""
    config = _config(args)
    if any("SequenceClassification" in name for name in config.architectures or []):
        raise UserError(f"{args.model_name_or_path} is a reward model; a language model is wanted here")
    return _load(AutoModelForCausalLM, config, args, tokenizer, bf16, offload)


def load_reward_model(
    args: ModelArguments, tokenizer, bf16: bool = False, offload: bool = False, critic: bool = False
) -> nn.Module:
    """The backbone of a language model (or a trained reward model) with one output, read at an answer's last token.

    critic: its config says from now on that it is one, so that it is never taken for a reward model.
    A pad token that differs from every end token is added where there is none, so that plain transformers, which finds
    the last token by looking for padding, scores a padded batch as this project does.
    """
    config = _config(args)
    if config.is_encoder_decoder or type(config) in AutoModelForMaskedLM._model_mapping:  # BERT, RoBERTa, T5, …
        raise UserError(
            f"{args.model_name_or_path}: {config.model_type} is an encoder family, which is not supported as a reward "
            f"model yet; start from a causal language model (Llama, Qwen, Mistral, GPT-2, …)"
        )
    if getattr(config, "num_labels", 1) != 1 and "SequenceClassification" in str(config.architectures):
        raise UserError(f"{args.model_name_or_path} has {config.num_labels} labels; a reward model has one")
    config.num_labels = 1
    config.is_critic = critic
    if type(config) not in AutoModelForSequenceClassification._model_mapping:
        raise UserError(
            f"{config.model_type} has no sequence classification model in transformers; it cannot be a reward model"
        )
    if tokenizer.pad_token_id in (None, tokenizer.eos_token_id):
        tokenizer.add_special_tokens({"pad_token": "<|pad|>"})
    config.get_text_config().pad_token_id = tokenizer.pad_token_id
    model = _load(AutoModelForSequenceClassification, config, args, tokenizer, bf16, offload)
    if not hasattr(plain(model), "score"):
        raise UserError(f"{config.model_type}: no head `score` that reads the last token; it cannot be a reward model")
    model.config.get_text_config().pad_token_id = tokenizer.pad_token_id
    return model


def require_reward_model(name: str) -> None:
    """Raise UserError unless `name` is a model that scores answers: a critic has the same head, but it predicts what an
    unfinished answer will be worth to PPO."""
    config = read(AutoConfig, name)
    if not any("SequenceClassification" in kind for kind in config.architectures or []):
        raise UserError(f"{name} is a language model; a reward model is wanted here (step 2 makes one)")
    if getattr(config, "is_critic", False):
        raise UserError(f"{name} is the critic of a PPO run; a reward model is wanted here (step 2 makes one)")


def _config(args: ModelArguments):
    config = read(AutoConfig, args.model_name_or_path, cache_dir=args.cache_dir)
    text = config.get_text_config()
    for name in ("attention_dropout", "attn_pdrop", "embd_pdrop", "resid_pdrop", "hidden_dropout", "dropout",
                 "attn_dropout", "activation_dropout"):  # fmt: skip
        if isinstance(getattr(text, name, None), float | int):
            setattr(text, name, args.dropout)
    if args.dropout and not any(
        getattr(text, n, 0) for n in ("attention_dropout", "attn_pdrop", "hidden_dropout", "dropout")
    ):
        raise UserError(f"--dropout {args.dropout}: {config.model_type} has no dropout to set")
    return config


def _load(kind, config, args: ModelArguments, tokenizer, bf16: bool, offload: bool) -> nn.Module:
    name, dtype = args.model_name_or_path, torch.bfloat16 if bf16 else torch.float32
    if args.from_scratch:
        with whole_models():
            model = kind.from_config(config, dtype=dtype)
    else:
        if os.path.isdir(name) and not any(next(Path(name).glob(pattern), None) for pattern in WEIGHTS):
            raise UserError(
                f"{name}: no weights in this folder (*.safetensors); --from_scratch starts from random ones"
            )
        placed = _placement(offload)
        model, info = read(
            kind, name, config=config, dtype=dtype, cache_dir=args.cache_dir, output_loading_info=True,
            ignore_mismatched_sizes=True, **placed,
        )  # fmt: skip
        new_head = not any("SequenceClassification" in architecture for architecture in config.architectures or [])
        lost = [key for key in info["missing_keys"] if not (new_head and key.startswith("score."))]
        if lost:
            raise UserError(f"{name}: its files lack {len(lost)} of the model's weights, the first {sorted(lost)[0]}")
        for key, found, expected in sorted(info["mismatched_keys"]):
            raise UserError(f"{name}: its weight {key} has the shape {list(found)}; config.json says {list(expected)}")
        unused = sorted(key for key in info["unexpected_keys"] if not key.startswith(HEADS))
        if unused:
            warn(f"{name}: its files hold {len(unused)} weights that the model does not use, the first {unused[0]}")
        if placed:
            _draw_on_cpu(model, info["missing_keys"])
    if len(tokenizer) > model.get_input_embeddings().num_embeddings:
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    if args.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        if args.lora_dim:
            model.enable_input_require_grads()
    model.config.use_cache = False
    if args.lora_dim:
        model = add_lora(model, args)
        model.cache_dir = args.cache_dir
        say(model.trained_share)
    return model


def _placement(offload: bool) -> dict[str, Any]:
    """Options of from_pretrained: weights go straight to this rank's GPU, instead of a whole copy on the CPU for each
    rank. None where they stay on the CPU or, at ZeRO-3, are sharded as they load."""
    if ranks.device().type == "cpu" or offload or hf.is_deepspeed_zero3_enabled():
        return {}
    return {"device_map": {"": ranks.device()}}


def _draw_on_cpu(model: nn.Module, names: Iterable[str]) -> None:
    """Draw the weights that no file has (a new head) as a model on the CPU does: GPUs draw other numbers."""
    for owner in sorted({name.rpartition(".")[0] for name in names}):
        fresh = copy.deepcopy(model.get_submodule(owner)).to("cpu")
        model._init_weights(fresh)
        model.get_submodule(owner).load_state_dict(fresh.state_dict())


def check_length(model: nn.Module, longest: int) -> None:
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if limit and longest > limit:
        raise UserError(
            f"the data holds a prompt and answer of {longest} tokens, more than the model's {limit} positions; "
            f"lower --max_prompt_seq_len, --max_answer_seq_len or --model_max_length"
        )


def fingerprint(name: str) -> str:
    """A hash of a model's content: of its files (config and weights) for a folder, of the commit for a hub name."""
    digest = hashlib.blake2b(digest_size=16)
    if os.path.isdir(name):
        for file in sorted(f for p in ("config.json", *WEIGHTS) for f in Path(name).glob(p)):
            digest.update(file.name.encode())
            with file.open("rb") as content:
                digest.update(hashlib.file_digest(content, "blake2b").digest())
    else:
        digest.update(f"{name}@{getattr(read(AutoConfig, name), '_commit_hash', None)}".encode())
    return digest.hexdigest()
