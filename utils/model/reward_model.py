"""Reward models and critics: a language model's backbone with one output for each answer, or each token.

Causal language models have a head `score`, read at an answer's last token. Encoders (RoBERTa, DeBERTa) have their own,
`classifier`, which reads the whole row: a row of its own for each answer, with its prompt.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

from torch import Tensor, nn
from transformers import (
    MODEL_FOR_MASKED_LM_MAPPING,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    AutoConfig,
    AutoModelForSequenceClassification,
)

from utils.arguments.options import ModelArguments, TrainingArguments
from utils.engine.freezing import frozen
from utils.errors import UserError
from utils.model import loading
from utils.model.adapted import plain
from utils.model.batch import Batch
from utils.model.folders import read
from utils.model.scoring import choose_rows, hidden_states


class RewardModel(nn.Module):
    """A one-label sequence classification model that answers a Batch with each answer's score, float32 [A]."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.encoder = model, is_encoder(plain(model).config)
        # an encoder's answers would see each other
        self.packed = False if self.encoder else choose_rows(model)

    def forward(self, batch: Batch, tokens: bool = False) -> Tensor:
        """Return the score of each answer, float32 [A]; with `tokens` that of every position of the flattened batch,
        [T], which an encoder has not."""
        if self.encoder:
            output = self.model(input_ids=batch.input_ids, attention_mask=batch.attention_mask)
            return output.logits.squeeze(-1).float()
        return self._scores_at(batch, ... if tokens else batch.answer_ends)

    def _scores_at(self, batch: Batch, positions: Any) -> Tensor:
        hidden_PD = hidden_states(self.model, batch)[positions]
        return plain(self.model).score(hidden_PD).squeeze(-1).float()


class Critic(RewardModel):
    """A reward model as a value function: the return it expects before each trained token is drawn, float32 [N]."""

    def forward(self, batch: Batch) -> Tensor:
        """Return the value in front of each trained token, float32 [N]."""
        return self._scores_at(batch, batch.logit_positions)[batch.logit_rows]


def is_encoder(config: Any) -> bool:
    """Return whether a config is of a family that reads in both directions: BERT, RoBERTa, DeBERTa, …"""
    return type(config) in MODEL_FOR_MASKED_LM_MAPPING


def load_reward_model(
    args: ModelArguments, tokenizer, bf16: bool = False, offload: bool = False, critic: bool = False
) -> nn.Module:
    """Return the backbone of a language model (or a trained reward model) with one output.

    For a causal language model, a pad token that differs from every end token is added where there is none, so that
    plain transformers, which finds the last token by looking for padding, scores a padded batch as this project does.

    Args:
        args, tokenizer, bf16, offload: as in `load_causal_lm`.
        critic: write into its config that it is a critic, so that it is never taken for a reward model.

    Raises:
        UserError: the family has no such model, or the folder holds another kind, as a critic unless one is wanted.
    """
    config = loading.read_config(args)
    if getattr(config, "is_critic", False) and not critic:
        raise UserError(
            f"{args.model_name_or_path} is the critic of a PPO run: its head predicts what an unfinished answer will "
            f"be worth; start from a language model or a reward model"
        )
    encoder = is_encoder(config)
    if config.is_encoder_decoder:  # T5, BART, …
        raise UserError(
            f"{args.model_name_or_path}: {config.model_type} is an encoder-decoder, which is not supported as a reward "
            f"model; start from a causal language model (Llama, Qwen, …) or an encoder (RoBERTa, DeBERTa)"
        )
    if encoder:
        _check_encoder(config, args, tokenizer, critic)
    if getattr(config, "num_labels", 1) != 1 and "SequenceClassification" in str(config.architectures):
        raise UserError(f"{args.model_name_or_path} has {config.num_labels} labels; a reward model has one")
    config.num_labels = 1
    config.is_critic = critic
    if type(config) not in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING:
        raise UserError(
            f"{config.model_type} has no sequence classification model in transformers; it cannot be a reward model"
        )
    # transformers reads the score in front of the first padding, which must not be an end token
    if not encoder and tokenizer.pad_token_id in (None, tokenizer.eos_token_id):
        tokenizer.add_special_tokens({"pad_token": "<|pad|>"})
    config.get_text_config().pad_token_id = tokenizer.pad_token_id
    loaded = loading.load(AutoModelForSequenceClassification, config, args, bf16=bf16, offload=offload)
    model = loading.prepared(loaded, args, tokenizer)
    head = "classifier" if encoder else "score"
    if not hasattr(plain(model), head):
        raise UserError(f"{config.model_type}: its model has no head `{head}`; it cannot be a reward model")
    model.config.get_text_config().pad_token_id = tokenizer.pad_token_id
    return model


def _check_encoder(config: Any, args: ModelArguments, tokenizer, critic: bool) -> None:
    name = args.model_name_or_path
    if critic:
        raise UserError(f"{name}: {config.model_type} is an encoder, which reads ahead; it cannot be PPO's critic")
    if args.lora_dim:
        raise UserError(
            f"--lora_dim {args.lora_dim}: {name} is an encoder ({config.model_type}); train all its weights"
        )
    if tokenizer.pad_token_id != config.pad_token_id:
        raise UserError(
            f"{name}: its tokenizer pads with token {tokenizer.pad_token_id}, its config.json says "
            f"{config.pad_token_id}; RoBERTa's positions follow from this id: give both the same"
        )


def require_reward_model(name: str) -> None:
    """Raise UserError unless `name` is a model that scores answers: a critic has the same head, but it predicts what an
    unfinished answer will be worth to PPO."""
    config = read(AutoConfig, name)
    if not loading.is_classifier(config):
        raise UserError(f"{name} is a language model; a reward model is wanted here (step 2 makes one)")
    if getattr(config, "is_critic", False):
        raise UserError(f"{name} is the critic of a PPO run; a reward model is wanted here (step 2 makes one)")


class FrozenModel(NamedTuple):
    """A model that is only read: call it with a Batch."""

    model: Any  # the frozen RewardModel or Policy, or DeepSpeed's engine around it
    packed: bool  # whether it reads packed rows, else padded ones


def reward_model(
    path: str, renderer, model_args: ModelArguments, args: TrainingArguments, offload: bool = False
) -> FrozenModel:
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
    require_reward_model(path)
    tokenizer = loading.load_tokenizer(path)
    # It may know more tokens than the policy (a pad token), but none of the policy's by another number.
    if not renderer.tokenizer.get_vocab().items() <= tokenizer.get_vocab().items():
        raise UserError(f"{path}: its tokenizer is not the policy's; score with inference/chatbot.py --mode rm instead")
    reward = RewardModel(load_reward_model(without_adapter(model_args, path), tokenizer, args.bf16, offload))
    return FrozenModel(frozen(reward, args, offload), reward.packed)


def without_adapter(model_args: ModelArguments, path: str) -> ModelArguments:
    """Return the options of another model, `path`, that is only read: no adapter, no recomputation."""
    return dataclasses.replace(
        model_args, model_name_or_path=path, from_scratch=False, gradient_checkpointing=False, lora_dim=0,
        lora_alpha=None, lora_target_modules=[], only_optimize_lora=True, merge_dtype=None,
    )  # fmt: skip
