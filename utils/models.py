"""Tokenizers and models in and out of folders. Every `from_pretrained` and `save_pretrained` of the project is here."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)

from utils.arguments.options import ModelArguments
from utils.errors import UserError
from utils.lora import add_lora, merged, plain
from utils.reporting import say

transformers.logging.disable_progress_bar()  # it would draw a bar for each folder read or written
WEIGHTS = ("*.safetensors", "pytorch_model*.bin")


def load_tokenizer(name: str, cache_dir: str | None = None):
    """The tokenizer beside the model (or named by itself). A missing pad token becomes the end token: padding is
    decided by length here, never by id."""
    if os.path.isdir(name) and not any((Path(name) / f).is_file() for f in ("tokenizer_config.json", "tokenizer.json")):
        raise UserError(f"{name}: no tokenizer in this folder; name one with --tokenizer_name_or_path")
    tokenizer = _from(AutoTokenizer, name, cache_dir=cache_dir)
    if not tokenizer("a", add_special_tokens=False).input_ids:
        raise UserError(f"{name}: this tokenizer gives no tokens for 'a'; its files are incomplete")
    if tokenizer.eos_token_id is None:
        raise UserError(f"{name}: this tokenizer has no end-of-text token; set eos_token in its tokenizer_config.json")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_causal_lm(args: ModelArguments, tokenizer, bf16: bool = False) -> nn.Module:
    """A language model to train or to read; raises UserError for a reward model or a folder without weights."""
    config = _config(args)
    if any("SequenceClassification" in name for name in config.architectures or []):
        raise UserError(f"{args.model_name_or_path} is a reward model; a language model is wanted here")
    return _load(AutoModelForCausalLM, config, args, tokenizer, bf16)


def load_reward_model(args: ModelArguments, tokenizer, bf16: bool = False) -> nn.Module:
    """The backbone of a language model (or a trained reward model) with one output, read at an answer's last token.

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
    if type(config) not in AutoModelForSequenceClassification._model_mapping:
        raise UserError(
            f"{config.model_type} has no sequence classification model in transformers; it cannot be a reward model"
        )
    if tokenizer.pad_token_id in (None, tokenizer.eos_token_id):
        tokenizer.add_special_tokens({"pad_token": "<|pad|>"})
    config.get_text_config().pad_token_id = tokenizer.pad_token_id
    model = _load(AutoModelForSequenceClassification, config, args, tokenizer, bf16)
    if not hasattr(plain(model), "score"):
        raise UserError(f"{config.model_type}: no head `score` that reads the last token; it cannot be a reward model")
    model.config.get_text_config().pad_token_id = tokenizer.pad_token_id
    return model


def is_reward_model(name: str) -> bool:
    return any("SequenceClassification" in kind for kind in _from(AutoConfig, name).architectures or [])


def _config(args: ModelArguments):
    config = _from(AutoConfig, args.model_name_or_path, cache_dir=args.cache_dir)
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


def _load(kind, config, args: ModelArguments, tokenizer, bf16: bool) -> nn.Module:
    name, dtype = args.model_name_or_path, torch.bfloat16 if bf16 else torch.float32
    if args.from_scratch:
        with _whole_models():
            model = kind.from_config(config, dtype=dtype)
    else:
        if os.path.isdir(name) and not any(next(Path(name).glob(pattern), None) for pattern in WEIGHTS):
            raise UserError(
                f"{name}: no weights in this folder (*.safetensors); --from_scratch starts from random ones"
            )
        model, info = _from(kind, name, config=config, dtype=dtype, cache_dir=args.cache_dir, output_loading_info=True)
        new_head = not any("SequenceClassification" in architecture for architecture in config.architectures or [])
        lost = [key for key in info["missing_keys"] if not (new_head and key.startswith("score."))]
        if lost:
            raise UserError(f"{name}: its files lack {len(lost)} of the model's weights, the first {sorted(lost)[0]}")
    if len(tokenizer) > model.get_input_embeddings().num_embeddings:
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    if args.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        if args.lora_dim:
            model.enable_input_require_grads()
    model.config.use_cache = False
    if args.lora_dim:
        model = add_lora(model, args)
        say(model.trained_share)
    return model


def _from(kind, name: str, **options: Any):
    """kind.from_pretrained(name) with its many errors as one line."""
    looks_local = name.startswith((".", "/", "~")) or name.count("/") > 1
    if looks_local and not os.path.isdir(os.path.expanduser(name)):
        raise UserError(f"{name}: no such folder")
    if os.path.isdir(name) and kind is not AutoTokenizer and not (Path(name) / "config.json").is_file():
        raise UserError(f"{name}: no config.json in this folder; it is not a model")
    try:
        return kind.from_pretrained(os.path.expanduser(name), **options)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        first = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise UserError(f"{name}: cannot be loaded: {first}") from error


class _whole_models:  # noqa: N801 - used as a function
    """Inside, models are made whole even when ZeRO-3 is on (DeepSpeed shards them when training starts)."""

    def __enter__(self) -> None:
        from transformers.integrations import deepspeed as hf

        self._held = hf._hf_deepspeed_config_weak_ref
        hf._hf_deepspeed_config_weak_ref = None

    def __exit__(self, *_: Any) -> None:
        from transformers.integrations import deepspeed as hf

        hf._hf_deepspeed_config_weak_ref = self._held


def check_length(model: nn.Module, longest: int) -> None:
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if limit and longest > limit:
        raise UserError(
            f"the data holds a prompt and answer of {longest} tokens, more than the model's {limit} positions; "
            f"lower --max_prompt_seq_len, --max_answer_seq_len or --model_max_length"
        )


# ---------------------------------------------------------------------------------------------------------- saving


def save(model: nn.Module, state: dict[str, Tensor], renderer, folder: Path) -> None:
    """Write a folder that plain transformers loads: safetensors, config, generation config, tokenizer with its chat
    template, and adapter/ when there is one. Written beside, loaded again and compared, then renamed; config.json moves
    last, so a folder with a config is a whole model. Only rank 0 calls this."""
    base, whole, tokenizer = plain(model), merged(model, state), renderer.tokenizer
    partial = folder / ".model.partial"
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        base.config.use_cache = True
        if hasattr(base, "generation_config") and base.can_generate():
            base.generation_config.eos_token_id = list(renderer.stop_token_ids)
            base.generation_config.pad_token_id = tokenizer.pad_token_id
        with _whole_models():
            base.save_pretrained(partial, state_dict=whole)
        tokenizer.chat_template = renderer.chat_template  # a named template goes along as the tokenizer's own
        tokenizer.save_pretrained(partial)
        _compare(type(base), partial, whole)
        if hasattr(model, "get_base_model"):
            adapter = {
                n.removeprefix("model."): t for n, t in state.items() if ".lora_" in n or ".modules_to_save." in n
            }
            model.save_pretrained(partial / "adapter", state_dict=adapter)
        files = sorted((f for f in partial.iterdir()), key=lambda f: f.name == "config.json")
        for file in files:
            target = folder / file.name
            if target.is_dir():
                shutil.rmtree(target)
            file.replace(target)
    except (OSError, RuntimeError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise UserError(
            f"{folder}: the model cannot be written: {reason}; is the disk full?", on_this_rank=True
        ) from error
    finally:
        base.config.use_cache = False
        shutil.rmtree(partial, ignore_errors=True)


def _compare(kind: type, folder: Path, state: dict[str, Tensor]) -> None:
    with _whole_models():
        again, info = kind.from_pretrained(folder, dtype="auto", output_loading_info=True)
    lost = list(info["missing_keys"]) + list(info["mismatched_keys"])
    loaded = again.state_dict()
    lost += [name for name, tensor in state.items() if name not in loaded or not torch.equal(loaded[name], tensor)]
    if lost:
        raise RuntimeError(f"read back, {len(lost)} tensors differ from those written, the first {lost[0]}")


def fingerprint(name: str) -> str:
    """A hash of a model's content: of its files (config and weights) for a folder, of the commit for a hub name."""
    digest = hashlib.blake2b(digest_size=16)
    if os.path.isdir(name):
        for file in sorted(f for p in ("config.json", *WEIGHTS) for f in Path(name).glob(p)):
            digest.update(file.name.encode())
            with file.open("rb") as content:
                digest.update(hashlib.file_digest(content, "blake2b").digest())
    else:
        digest.update(f"{name}@{getattr(_from(AutoConfig, name), '_commit_hash', None)}".encode())
    return digest.hexdigest()
