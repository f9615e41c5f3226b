"""Models that may have an adapter around them; what makes and merges adapters is imported for --lora_dim alone."""

from __future__ import annotations

import importlib
from typing import Any

from torch import nn

BASE = "base"  # the folder inside adapter/ that a reward model's adapter names as its base


def has_adapter(model: nn.Module) -> bool:
    """Return whether an adapter of peft is around the model."""
    return hasattr(model, "get_base_model")


def plain(model: nn.Module) -> nn.Module:
    """Return the transformers model inside, with or without an adapter around it."""
    if has_adapter(model):
        return model.get_base_model()
    return model


def lora() -> Any:
    """Import utils/model/lora.py, which --lora_dim asks for."""
    return importlib.import_module("utils.model.lora")
