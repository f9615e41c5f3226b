"""The models beside the policy that learns from rollouts: its critic, the frozen reference, the reward."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from utils.arguments.options import ModelArguments, TrainingArguments
from utils.arguments.ppo import PPOArguments
from utils.engine import ranks
from utils.engine.config import config_of
from utils.engine.deepspeed_engine import Engine
from utils.engine.freezing import frozen
from utils.errors import UserError
from utils.model import loading
from utils.model.passes import limits_of
from utils.model.reward_model import Critic, FrozenModel, load_reward_model, reward_model, without_adapter
from utils.model.scoring import Policy
from utils.ppo.rewards import Reward, of_function, of_model, of_service
from utils.reporting import say
from utils.tokens.group import Group, group
from utils.tokens.templates import Renderer
from utils.training.trainer import Companion

LANGUAGE_HEADS = ("lm_head", "embed_out")  # a critic has none


def refuse_options(args: TrainingArguments, options: PPOArguments) -> None:
    """Refuse what has no effect or no sense in this stage, before a model is loaded. Call it after start()."""
    stage = config_of(args, ranks.world_size())["zero_optimization"]["stage"]
    if stage < 3 and not options.enable_hybrid_engine:
        raise UserError(f"--no_enable_hybrid_engine is for ZeRO-3; this is stage {stage}: leave it out")
    if options.prompts_per_rollout % ranks.world_size():
        raise UserError(
            f"--prompts_per_rollout {options.prompts_per_rollout} is not a multiple of {ranks.world_size()} ranks"
        )


def probes_of(prompts: Sequence[Group]) -> list[Group]:
    """Return two groups with answers for self_test(), of prompts that have none yet."""
    prompt = prompts[0].prompt
    return [group(prompt, [prompt, prompt[::-1]])] * 2


def load_critic(model_args: ModelArguments, args: TrainingArguments, options: PPOArguments, steps: int) -> Companion:
    """Return the value model: from the reward model (Ziegler et al. 2019), another folder, or the policy's own with a
    new head.

    Args:
        model_args: of the policy.
        args: of the policy; the learning rate is twice its own, or --critic_learning_rate.
        options: what the critic starts from, and the updates of a step.
        steps: of the run: the critic learns in all of them.
    """
    name = options.critic_start or model_args.model_name_or_path
    adapted = [suffix for suffix in model_args.lora_target_modules if suffix not in LANGUAGE_HEADS]
    critic_args = dataclasses.replace(model_args, model_name_or_path=name, lora_target_modules=adapted)
    if name != model_args.model_name_or_path:
        # --from_scratch is about the policy's weights; a critic with a folder of its own starts from that.
        critic_args = dataclasses.replace(critic_args, from_scratch=False)
    renderer = Renderer(loading.load_tokenizer(name), model_args.template)
    critic = Critic(load_reward_model(critic_args, renderer.tokenizer, args.bf16, critic=True))
    rate = options.critic_learning_rate or 2 * args.learning_rate
    return Companion(Engine(critic, dataclasses.replace(args, learning_rate=rate), steps * options.updates), renderer)


def load_reference(
    model_args: ModelArguments, args: TrainingArguments, options: PPOArguments, renderer: Renderer
) -> FrozenModel | None:
    """Return the frozen model that the policy is held to; None where the policy without its adapter is the reference.

    Args:
        model_args: of the policy, which starts as its own reference.
        args: how the model is placed.
        options: another reference, and whether it waits on the CPU.
        renderer: of the policy.
    """
    other = options.reference_model_name_or_path
    if model_args.lora_dim and model_args.only_optimize_lora and not other:
        say("reference: the actor without its adapter, no second copy")
        return None
    if not other and model_args.from_scratch:
        raise UserError("--from_scratch: random weights are no reference; start from a model of step 1")
    reference_args = without_adapter(model_args, other or model_args.model_name_or_path)
    offload = options.offload_reference_and_reward
    model = loading.load_causal_lm(reference_args, renderer.tokenizer, args.bf16, offload)
    reference = Policy(model, options.temperature)
    return FrozenModel(frozen(reference, args, offload), reference.packed)


def load_true_reward(options: PPOArguments) -> Reward | None:
    """Return the function that is only measured."""
    return of_function(options.true_reward_fn) if options.true_reward_fn else None


def load_reward(
    model_args: ModelArguments, args: TrainingArguments, options: PPOArguments, renderer: Renderer
) -> Reward:
    """Return what scores answers: a function, a service or a reward model.

    Args:
        model_args: of the policy.
        args: how the model is placed, and how much a forward pass holds.
        options: which of the three.
        renderer: of the policy, whose tokens a reward model reads.
    """
    if options.reward_fn:
        return of_function(options.reward_fn)
    if options.reward_url:
        return of_service(options.reward_url)
    path, offload = options.reward_model_name_or_path, options.offload_reference_and_reward
    model, packed = reward_model(path, renderer, model_args, args, offload)
    return of_model(model, packed, limits_of(args))
