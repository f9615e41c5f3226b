"""LoRA adapters through peft: put on, told apart from the model inside, added into its weights for saving."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from utils.errors import UserError


def add_lora(model: nn.Module, args) -> nn.Module:
    """The model with a LoRA adapter (peft): W + (alpha/r)·B·A, B zero at first. Hu et al. 2021, arXiv:2106.09685."""
    import peft

    is_reward = "SequenceClassification" in type(model).__name__
    linear = {
        n.rsplit(".", 1)[-1]
        for n, m in model.named_modules()
        if isinstance(m, nn.Linear) or type(m).__name__ == "Conv1D"
    }
    linear -= {"score", "lm_head", "embed_out"}
    for suffix in args.lora_target_modules:
        if not any(name.endswith(suffix) for name, _ in model.named_modules()):
            raise UserError(
                f"--lora_target_modules {suffix}: no module ends so; linear layers: {', '.join(sorted(linear))}"
            )
    config = peft.LoraConfig(
        task_type="SEQ_CLS" if is_reward else "CAUSAL_LM",
        r=args.lora_dim,
        lora_alpha=args.lora_alpha if args.lora_alpha is not None else 2 * args.lora_dim,
        lora_dropout=args.lora_dropout,
        target_modules=args.lora_target_modules or sorted(linear),
        modules_to_save=["score"] if is_reward else None,
    )
    adapted = peft.get_peft_model(model, config, autocast_adapter_dtype=False)
    if not args.only_optimize_lora:
        adapted.requires_grad_(True)
    trained = sum(_size(p) for p in adapted.parameters() if p.requires_grad)
    adapted.merge_dtype = args.merge_dtype
    adapted.trained_share = f"LoRA trains {trained:,} of {sum(map(_size, adapted.parameters())):,} weights"
    return adapted


def _size(parameter: nn.Parameter) -> int:
    return getattr(parameter, "ds_numel", parameter.numel())  # a ZeRO-3 shard knows its whole size


def plain(model: nn.Module) -> nn.Module:
    """The transformers model inside, with or without an adapter around it."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


def merged(model: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """`state` (whole tensors by the names of `model`) as the plain model's: adapters added into their weights in
    float32, then everything in the dtype of --merge_dtype (None: each tensor in its own). The model is not touched."""
    if not hasattr(model, "get_base_model"):
        return state
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
            delta = delta.T if getattr(module, "fan_in_fan_out", False) else delta
            result[f"{name}.weight"] = (weight.float() + delta).to(DTYPES.get(model.merge_dtype, weight.dtype))
    if model.merge_dtype is None:
        return result
    wanted = DTYPES[model.merge_dtype]
    cast = {id(t): t.to(wanted) if t.is_floating_point() else t for t in result.values()}  # once for tied weights
    return {name: cast[id(tensor)] for name, tensor in result.items()}
