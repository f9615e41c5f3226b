"""Load the reward model beside a policy: frozen, with the policy's tokenizer."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

from utils.arguments.options import ModelArguments, TrainingArguments
from utils.engine.freezing import frozen
from utils.errors import UserError
from utils.model import loading
from utils.model.scoring import RewardModel


class FrozenReward(NamedTuple):
    """A reward model to call on batches."""

    model: Any  # the frozen RewardModel, or DeepSpeed's engine around it
    packed: bool  # whether it reads packed rows, else padded ones


def reward_model(
    path: str, renderer, model_args: ModelArguments, args: TrainingArguments, offload: bool = False
) -> FrozenReward:
    """Load the reward model in a folder, to score tokens of the policy.

    Args:
        path: the folder.
        renderer: with the policy's tokenizer.
        model_args: the policy's options; dtype and cache are the same here.
        args: with precision and ZeRO stage.
        offload: keep it in CPU memory.

    Returns:
        The frozen reward model.

    Raises:
        UserError: its tokenizer is another than the policy's, or it is no reward model.
    """
    loading.require_reward_model(path)
    tokenizer = loading.load_tokenizer(path)
    # It may know more tokens than the policy (a pad token), but none of the policy's by another number.
    if not renderer.tokenizer.get_vocab().items() <= tokenizer.get_vocab().items():
        raise UserError(f"{path}: its tokenizer is not the policy's; score with inference/chatbot.py --mode rm instead")
    reward = RewardModel(loading.load_reward_model(without_adapter(model_args, path), tokenizer, args.bf16, offload))
    return FrozenReward(frozen(reward, args, offload), reward.packed)


def without_adapter(model_args: ModelArguments, path: str) -> ModelArguments:
    """Return the options of another model, `path`, that is only read: no adapter, no recomputation."""
    return dataclasses.replace(
        model_args, model_name_or_path=path, from_scratch=False, gradient_checkpointing=False, lora_dim=0,
        lora_alpha=None, lora_target_modules=[], only_optimize_lora=True, merge_dtype=None,
    )  # fmt: skip
