"""Demonstrations that are learned beside rollouts (PPO-ptx)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch

from utils.arguments.options import DataArguments, ModelArguments, TrainingArguments
from utils.arguments.ppo import PPOArguments
from utils.engine import ranks
from utils.engine.deepspeed_engine import Engine
from utils.tokens.store import DataPart, TokenStore, prepare
from utils.tokens.templates import Renderer
from utils.training.plan import Division, Plan
from utils.training.run import cache_folder


def ptx_tokens(
    data_args: DataArguments, model_args: ModelArguments, args: TrainingArguments, options: PPOArguments,
    renderer: Renderer,
) -> TokenStore:  # fmt: skip
    """Return the demonstrations of --ptx_data_path as tokens.

    Args:
        data_args: how they are read and cut.
        model_args: names the cache.
        args: the seed.
        options: names the data.
        renderer: of the policy.
    """
    ptx_args = dataclasses.replace(data_args, data_path=options.ptx_data_path, eval_data_path=[])
    part = DataPart(split="train", stage=1, kind="demonstrations", seed=args.seed)
    return prepare(ptx_args, part, renderer, cache_folder(model_args))


def ptx_loss(
    actor: Engine, store: TokenStore, args: TrainingArguments, options: PPOArguments
) -> Callable[[int], dict[str, float]]:
    """Return what makes demonstrations likelier at every update: γ times their mean negative log-likelihood of a token.
    Ouyang et al. 2022, arXiv:2203.02155, eq. 2.

    Args:
        actor: the policy in training.
        store: the demonstrations.
        args: how they are divided into forward passes.
        options: the weight γ, whether it falls, and how many demonstrations an update sees.

    Returns:
        number of the update (from 1) -> its metrics, once the forward and backward passes of this rank's share are run.
    """
    division = Division(
        per_step=options.ptx_batch_size,
        per_device=args.per_device_train_batch_size,
        token_budget=args.tokens_per_micro_batch,
        world=ranks.world_size(),
        seed=args.seed,
    )
    plan = Plan(store, store.tokens, store.trained_tokens, division, max_steps=actor.total_steps)

    def learn(update: int) -> dict[str, float]:
        part = plan.step(update, ranks.rank())
        left = 1.0
        if options.ptx_decay:
            left = 1 - (update - 1) / plan.total_steps
        total = torch.zeros((), dtype=torch.float64)
        for micro in part.micro_batches:
            batch = plan.batch(micro, actor.module.packed).to(ranks.device())
            # demonstrations were not drawn at --temperature
            losses_N = -actor(batch, temperature=1.0)
            # DeepSpeed averages over ranks: x world turns its mean of local sums into the global sum.
            scale = options.ptx_coef * left * micro.weight * ranks.world_size() / part.units
            actor.backward(losses_N.sum() * scale)
            total += micro.weight * losses_N.detach().double().sum().cpu()
        return {"ptx_loss": sum(ranks.gather_objects(float(total))) / part.units}

    return learn
