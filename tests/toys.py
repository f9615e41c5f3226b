"""Tiny models and tokenizers that several test files make."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

ROOT = Path(__file__).resolve().parents[1]
BASE = dict(
    vocab_size=211, hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=256, pad_token_id=0, bos_token_id=1, eos_token_id=2,
)  # fmt: skip
FAMILIES = {
    "llama": {},
    "qwen3": {"head_dim": 16},
    "mistral": {"sliding_window": 24},
    "gemma2": {"head_dim": 16, "sliding_window": 24, "query_pre_attn_scalar": 16},
    "gpt2": dict(n_embd=64, n_layer=3, n_head=4, n_positions=256),
    "gpt_neox": {},
    "opt": dict(ffn_dim=96, word_embed_proj_dim=64),
    "falcon": dict(alibi=True, new_decoder_architecture=False),
    "mamba": dict(state_size=8, num_heads=4),
}
NO_DROPOUT = ("attention_dropout", "attn_pdrop", "embd_pdrop", "resid_pdrop", "dropout", "hidden_dropout")


def tiny_config(family: str, **changes):
    config = AutoConfig.for_model(family, **{**BASE, **FAMILIES.get(family, {}), **changes})
    for name in NO_DROPOUT:
        if hasattr(config, name):
            setattr(config, name, 0.0)
    return config


def tiny_lm(family: str = "llama", seed: int = 0, **changes):
    torch.manual_seed(seed)
    return AutoModelForCausalLM.from_config(tiny_config(family, **changes)).float()


def tiny_rm(family: str = "llama", seed: int = 0, **changes):
    torch.manual_seed(seed)
    return AutoModelForSequenceClassification.from_config(tiny_config(family, num_labels=1, **changes)).float()
