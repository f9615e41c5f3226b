"""LoRA adapters by peft: putting one on a model, finding the model inside, adding it into the weights for saving."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from utils.engine.internals import whole_size
from utils.errors import UserError


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
    adapted.merge_dtype = args.merge_dtype
    adapted.trained_share = f"LoRA trains {trained:,} of {sum(map(whole_size, adapted.parameters())):,} weights"
    return adapted


def plain(model: nn.Module) -> nn.Module:
    """Return the transformers model inside, with or without an adapter around it."""
    if hasattr(model, "get_base_model"):
        return model.get_base_model()
    return model


DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


def merged(model: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return `state` (whole tensors by the names of `model`) as the plain model's: adapters are added into the weights
    in float32, then all is cast to --merge_dtype (None: each tensor keeps its own). The model is not changed."""
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
