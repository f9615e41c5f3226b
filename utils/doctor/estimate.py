"""Memory of a GPU and seconds of an optimizer step, estimated from the options, the model's config and the data.

Bytes of a weight in training (Rajbhandari et al. 2020, ZeRO, arXiv:1910.02054, section 3.1): the weight itself (bf16 2,
fp32 4), its gradient (4: summed in float32), AdamW's two moments (8) and, in bf16, the float32 master (4). ZeRO 1
divides moments and master by the number of GPUs, 2 also gradients, 3 also weights; --offload moves them to the CPU.
Activations (Korthikanti et al. 2022, arXiv:2205.05198, eq. 1, without the attention matrix, which is never stored
whole): 34 bytes of 16 bits for each token, layer and unit of the hidden size; recomputed, 2, and one whole layer.
Logits, and keys and values of rollouts: docs/scaling.md.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch
from torch import nn
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoModel, AutoModelForCausalLM

from utils.doctor.subject import Subject
from utils.engine.config import config_of
from utils.engine.speed import gemm_peak
from utils.model.head.logprobs import CHUNK

REACHED = 0.4  # share of the speed of plain matrix products that training is assumed to reach


@dataclass(frozen=True)
class ModelSize:
    """Numbers of a model: all, trained, those of its layers (`body`) and of its head; its largest matrix."""

    all: int
    trained: int
    body: int
    head: int
    largest: tuple[int, int]


@dataclass(frozen=True)
class Memory:
    """Bytes on each GPU, by what takes them."""

    parts: dict[str, float]
    weights: ModelSize

    @property
    def total(self) -> float:
        return sum(self.parts.values())


def count_weights(subject: Subject) -> ModelSize:
    """Return the sizes of the model, which takes no memory here; an adapter has r (in + out) for each linear layer."""
    kind = AutoModel
    if type(subject.config) in MODEL_FOR_CAUSAL_LM_MAPPING:
        kind = AutoModelForCausalLM
    with torch.device("meta"):
        model = kind.from_config(subject.config)
    head = model.get_output_embeddings()
    heads = list(head.parameters()) if head is not None else []
    apart = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)} | set(map(id, heads))
    body = [p for p in model.parameters() if id(p) not in apart]
    everything = sum(p.numel() for p in model.parameters())
    trained, args = everything, subject.model_args
    if args.lora_dim:
        adapted = 0
        for name, module in model.named_modules():
            wanted = not args.lora_target_modules or name.endswith(tuple(args.lora_target_modules))
            linear = isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"  # GPT-2's linear layer
            if linear and module is not head and wanted:
                adapted += args.lora_dim * sum(module.weight.shape)
        trained = adapted if args.only_optimize_lora else everything + adapted
    shapes = [tuple(p.shape[-2:]) for p in body if p.dim() > 1]
    return ModelSize(
        everything, trained, body=sum(p.numel() for p in body), head=sum(p.numel() for p in heads),
        largest=max(shapes, key=lambda shape: shape[0] * shape[1]),
    )  # fmt: skip


def tokens_at_once(subject: Subject) -> float:
    """Return the tokens of a forward pass that learns, in the mean."""
    args, groups = subject.args, subject.train.groups
    mean = sum(group.tokens for group in groups) / len(groups)
    if subject.ppo:
        mean += subject.ppo.samples_per_prompt * subject.limits.answer
    return args.tokens_per_micro_batch or args.per_device_train_batch_size * mean


def estimate(subject: Subject) -> Memory:
    """Return the memory of each GPU."""
    args, n, config = subject.args, subject.devices, subject.config.get_text_config()
    # DeepSpeed, which checks its configuration, would warn of a machine without GPUs.
    os.environ.setdefault("DS_ACCELERATOR", "cuda" if torch.cuda.is_available() else "cpu")
    zero = config_of(args, n)["zero_optimization"]
    stage, weights = zero["stage"], count_weights(subject)
    offloaded = "offload_optimizer" in zero
    number = 2 if args.bf16 else 4  # bytes
    learners = 2 if subject.ppo and subject.ppo.advantage == "gae" else 1
    parts = {
        "weights": learners * number * weights.all / (n if stage == 3 else 1),
        "gradients": learners * 4 * weights.trained / (n if stage >= 2 else 1),
        "optimizer": learners * (12 if args.bf16 else 8) * weights.trained / (n if stage >= 1 else 1),
    }
    if offloaded:
        parts["optimizer"] = 0.0
    if "offload_param" in zero:
        parts["weights"] = 0.0
    if args.ema_decay:
        parts["average of the weights"] = 4 * weights.trained / n
    tokens, layers, width = tokens_at_once(subject), config.num_hidden_layers, config.hidden_size
    kept = 34 * layers
    if subject.model_args.gradient_checkpointing:
        kept = 2 * layers + 34
    parts["activations"] = tokens * width * kept * number / 2
    if subject.stage.number != 2:  # a reward model has no logits
        parts["logits"] = min(CHUNK, 2 * number * tokens * config.vocab_size) + 4 * weights.head
    if subject.ppo:
        parts |= _rollouts(subject, weights, number, stage)
    return Memory(parts, weights)


def _rollouts(subject: Subject, weights: ModelSize, number: int, stage: int) -> dict[str, float]:
    """Return the memory of the models that are only read, and of the answers in flight."""
    ppo, config = subject.ppo, subject.config.get_text_config()
    frozen = 0
    if not ppo.offload_reference_and_reward:
        # With LoRA the policy without its adapter is the reference.
        second_copy = not (subject.model_args.lora_dim and subject.model_args.only_optimize_lora)
        frozen = int(bool(ppo.reward_model_name_or_path)) + int(second_copy)
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    place = 2 * config.num_hidden_layers * heads * size * number
    prompts = min(ppo.generation_batch_size, ppo.prompts_per_rollout)
    places = prompts * (ppo.samples_per_prompt * subject.limits.answer + subject.limits.prompt)
    return {
        "reference and reward": frozen * number * weights.all / (subject.devices if stage == 3 else 1),
        "keys and values of rollouts": float(places * place),
    }


def seconds_of_a_step(subject: Subject, weights: ModelSize, tflops: float | None) -> tuple[float, float]:
    """Return (seconds, TFLOP/s of matrix products). FLOPs of a token: 6 for each trained weight of the layers, 4 for
    each frozen one (Kaplan et al. 2020, arXiv:2001.08361, section 2.1); of rollouts without the decoding.

    Args:
        subject: the run.
        weights: of the model.
        tflops: of a GPU; None: measured here.
    """
    if tflops is None:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        dtype = torch.bfloat16 if subject.args.bf16 else torch.float32
        tflops = gemm_peak(*weights.largest, dtype, device) / 1e12
    args, groups = subject.args, subject.train.groups
    tokens = sum(group.tokens for group in groups) / len(groups)
    trained = sum(sum(map(len, group.answers)) for group in groups) / len(groups)
    prompts = args.global_batch_size or args.per_device_train_batch_size * subject.devices * (
        args.gradient_accumulation_steps or 1
    )
    passes = 1.0
    if subject.ppo:
        prompts = subject.ppo.prompts_per_rollout
        trained = subject.ppo.samples_per_prompt * subject.limits.answer
        tokens += trained
        # Forward alone is a third of training: reference, old log-probs and reward; a critic learns and values.
        passes = subject.ppo.ppo_epochs * (2 if subject.ppo.advantage == "gae" else 1) + 4 / 3
    frozen = subject.model_args.lora_dim and subject.model_args.only_optimize_lora
    flops = (4 if frozen else 6) * (weights.body * tokens + weights.head * trained) * prompts * passes
    return flops / (REACHED * tflops * 1e12 * subject.devices), tflops
