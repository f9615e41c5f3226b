"""The same pairs, model and optimizer for TRL's DPOTrainer and for this project: a peer for tests and benchmarks.

A word-level tokenizer maps "t17 t4" to ids one to one, so both sides train on exactly the same ids.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers import models as token_models
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PreTrainedTokenizerFast,
)

from utils.tokens.group import group

EOS = 2


def word_tokenizer(vocabulary: int) -> PreTrainedTokenizerFast:
    words = {"<unk>": 0, "<pad>": 1, "<eos>": EOS, **{f"t{i}": i for i in range(3, vocabulary)}}
    core = Tokenizer(token_models.WordLevel(words, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<eos>", pad_token="<pad>", unk_token="<unk>")


def hh_like_pairs(count: int, vocabulary: int, seed: int = 0, longest: int = 512):
    """Groups with log-normal lengths: median prompt 90, chosen 45, rejected 35, sigma 0.8; answers end with EOS."""
    draw = np.random.default_rng(seed)

    def ids(median: float) -> list[int]:
        length = int(np.clip(median * math.exp(draw.normal(0, 0.8)), 2, longest))
        return draw.integers(3, vocabulary, length).tolist()

    return [group(ids(90), [[*ids(45), EOS], [*ids(35), EOS]], [(0, 1)]) for _ in range(count)]


def _text(ids) -> str:
    return " ".join(f"t{i}" for i in ids)


def as_text(groups) -> list[dict[str, str]]:
    """Prompt, chosen, rejected for TRL, which appends the end token itself."""
    names = ("chosen", "rejected")
    return [
        {"prompt": _text(g.prompt), **{n: " " + _text(a[:-1]) for n, a in zip(names, g.answers, strict=True)}}
        for g in groups
    ]


def small_llama(vocabulary: int = 8192, hidden: int = 256, layers: int = 6, seed: int = 0):
    """7.2 million weights with the defaults."""
    config = AutoConfig.for_model(
        "llama", vocab_size=vocabulary, hidden_size=hidden, intermediate_size=3 * hidden, num_hidden_layers=layers,
        num_attention_heads=hidden // 64, num_key_value_heads=hidden // 64, max_position_embeddings=2048,
        tie_word_embeddings=True, bos_token_id=None, eos_token_id=EOS, pad_token_id=1,
    )  # fmt: skip
    torch.manual_seed(seed)
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32)


def small_reward_model(vocabulary: int):
    config = small_llama(vocabulary, hidden=64, layers=2).config
    config.num_labels = 1
    torch.manual_seed(1)
    return AutoModelForSequenceClassification.from_config(config, dtype=torch.float32)


def _settings(folder) -> dict:
    """What the three trainers of TRL have in common; on the GPU where there is one."""
    return dict(
        output_dir=str(folder), report_to="none", use_cpu=not torch.cuda.is_available(), disable_tqdm=True,
        save_strategy="no", lr_scheduler_type="constant", logging_steps=1, max_length=4096,
        dataloader_pin_memory=False,
    )  # fmt: skip


def trl_sft_trainer(model, groups, vocabulary: int, folder, callback=None, **options):
    """An SFTTrainer over the first answers of `groups`, loss on the answer only; `options` are SFTConfig's."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    rows = [
        {"prompt": _text(g.prompt), "completion": " " + _text(g.answers[0][:-1])} for g in groups
    ]  # TRL appends the end token
    return SFTTrainer(
        model=model, args=SFTConfig(**_settings(folder), **options), train_dataset=Dataset.from_list(rows),
        processing_class=word_tokenizer(vocabulary), callbacks=[callback] if callback else None,
    )  # fmt: skip


def trl_reward_trainer(model, groups, vocabulary: int, folder, callback=None, **options):
    """A RewardTrainer over `groups`; `options` are RewardConfig's."""
    from datasets import Dataset
    from trl import RewardConfig, RewardTrainer

    return RewardTrainer(
        model=model, args=RewardConfig(**_settings(folder), **options),
        train_dataset=Dataset.from_list(as_text(groups)), processing_class=word_tokenizer(vocabulary),
        callbacks=[callback] if callback else None,
    )  # fmt: skip


def trl_trainer(model, groups, vocabulary: int, folder, callback=None, **options):
    """A DPOTrainer over `groups`; `options` are DPOConfig's."""
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    model.save_pretrained(f"{folder}/model")  # TRL loads its reference from the policy's folder
    model.cpu()  # the caller's: its memory is not TRL's
    model = AutoModelForCausalLM.from_pretrained(f"{folder}/model", dtype=torch.float32)

    return DPOTrainer(
        model=model, args=DPOConfig(**_settings(folder), **options), train_dataset=Dataset.from_list(as_text(groups)),
        processing_class=word_tokenizer(vocabulary), callbacks=[callback] if callback else None,
    )  # fmt: skip
