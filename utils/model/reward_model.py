"""Load the reward model beside a policy: frozen, with the policy's tokenizer."""

from __future__ import annotations

import dataclasses

from utils.arguments.options import ModelArguments, TrainingArguments
from utils.engine.freezing import frozen
from utils.errors import UserError
from utils.model import loading
from utils.model.scoring import RewardModel


def reward_model(path: str, renderer, model_args: ModelArguments, args: TrainingArguments, offload: bool = False):
    """(the frozen reward model in folder `path`, does it read packed rows?). It reads the policy's tokens. Raises
    UserError when its tokenizer is another."""
    loading.require_reward_model(path)
    tokenizer = loading.load_tokenizer(path)
    theirs, ours = tokenizer.get_vocab(), renderer.tokenizer.get_vocab()
    if any(theirs.get(token) != number for token, number in ours.items()):
        raise UserError(f"{path}: its tokenizer is not the policy's; score with inference/chatbot.py --mode rm instead")
    reward = RewardModel(loading.load_reward_model(without_adapter(model_args, path), tokenizer, args.bf16, offload))
    return frozen(reward, args, offload), reward.packed


def without_adapter(model_args: ModelArguments, path: str) -> ModelArguments:
    """The options of another model, `path`, that is only read."""
    return dataclasses.replace(
        model_args, model_name_or_path=path, from_scratch=False, gradient_checkpointing=False, lora_dim=0,
        lora_alpha=None, lora_target_modules=[], only_optimize_lora=True, merge_dtype=None,
    )  # fmt: skip
