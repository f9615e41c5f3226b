"""DeepSpeed's hybrid engine: kernels injected into the model that is being trained. With transformers 5 it serves no
mainstream family (its layers return tuples, transformers' do not), so it is off unless a probe says otherwise."""

from __future__ import annotations

from torch import nn

from utils.generation import hf
from utils.generation.request import Completion, Request

INJECTED = "DeepSpeedHybridEngine"


def why_not(model: nn.Module) -> str | None:
    """None where DeepSpeed has replaced the model's generate by its own, else the reason."""
    if model.device.type != "cuda":
        return "DeepSpeed's inference kernels need CUDA"
    if INJECTED not in str(getattr(model.generate, "__qualname__", "")):
        return f"DeepSpeed has no kernels for {model.config.model_type} with this version of transformers"
    return None


def complete(model: nn.Module, request: Request) -> list[list[Completion]]:
    """As hf: DeepSpeed puts its engine behind the same `model.generate`."""
    return hf.complete(model, request)
