"""The models around an actor that learns from rollouts: critic, reference, reward; what scores become; ptx."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch

from utils.arguments.options import DataArguments, ModelArguments, TrainingArguments
from utils.arguments.ppo import PPOArguments
from utils.engine import ranks
from utils.engine.deepspeed_engine import Engine
from utils.engine.freezing import frozen
from utils.errors import UserError
from utils.model import loading
from utils.model.passes import limits_of
from utils.model.reward_model import reward_model, without_adapter
from utils.model.scoring import Critic, Policy, self_test
from utils.ppo.rewards import Prompts, at_hand, of_function, of_model, of_service
from utils.ppo.rollouts import Roller
from utils.reporting import say
from utils.tokens.group import group
from utils.tokens.store import DataPart, prepare
from utils.tokens.templates import Renderer
from utils.training.plan import Plan
from utils.training.run import cache_folder

LANGUAGE_HEADS = ("lm_head", "embed_out")  # a critic has none


class Players:
    """critic: an Engine, or None where advantages need none. train, held_out: (store, text of its prompts)."""

    def __init__(self, actor: Engine, policy: Policy, renderer: Any, model_args: ModelArguments,
                 data_args: DataArguments, args: TrainingArguments, options: PPOArguments, stores) -> None:  # fmt: skip
        self.actor, self.policy, self.renderer, self.args, self.options = actor, policy, renderer, args, options
        for name in ("gradient_accumulation_steps", "global_batch_size"):
            if getattr(args, name) is not None:
                raise UserError(
                    f"--{name} has no effect here: --minibatches says how a rollout is divided; leave it out"
                )
        if actor.stage < 3 and not options.enable_hybrid_engine:
            raise UserError(f"--no_enable_hybrid_engine is for ZeRO-3; this is stage {actor.stage}: leave it out")
        if options.prompts_per_rollout % ranks.world_size():
            raise UserError(
                f"--prompts_per_rollout {options.prompts_per_rollout} is not a multiple of {ranks.world_size()} ranks"
            )
        probes = [group(stores[0][0].prompt, [stores[0][0].prompt, stores[0][0].prompt[::-1]])] * 2
        self_test(actor, policy, probes, args.dtype_name)
        self.critic = self._critic(model_args) if options.advantage == "gae" else None
        if self.critic:
            self_test(self.critic, self.critic.module, probes, args.dtype_name)
        self.reference = self._reference(model_args)
        self.reward = self._reward(model_args)
        self.truth = of_function(options.true_reward_fn) if options.true_reward_fn else None
        self.train, self.held_out = (
            (store, Prompts(data_args, split, args.seed, store))
            for store, split in zip(stores, ("train", "eval"), strict=True)
        )

    def _critic(self, model_args: ModelArguments) -> Engine:
        """From the reward model (Ziegler et al. 2019), another folder, or the actor's own with a new head."""
        options, args = self.options, self.args
        name = options.critic_start or model_args.model_name_or_path
        adapted = [suffix for suffix in model_args.lora_target_modules if suffix not in LANGUAGE_HEADS]
        theirs = dataclasses.replace(model_args, model_name_or_path=name, lora_target_modules=adapted)
        if name != model_args.model_name_or_path:
            theirs = dataclasses.replace(theirs, from_scratch=False)
        self.critic_renderer = Renderer(loading.load_tokenizer(name), model_args.template)
        critic = Critic(loading.load_reward_model(theirs, self.critic_renderer.tokenizer, args.bf16, critic=True))
        rate = options.critic_learning_rate or 2 * args.learning_rate
        updates = self.actor.total_steps + options.value_warmup * options.updates
        return Engine(critic, dataclasses.replace(args, learning_rate=rate), updates)

    def _reference(self, model_args: ModelArguments) -> tuple[Any, bool] | None:
        """A frozen copy; None where the actor without its adapter is the reference."""
        options = self.options
        other = options.reference_model_name_or_path
        if model_args.lora_dim and model_args.only_optimize_lora and not other:
            say("reference: the actor without its adapter, no second copy")
            return None
        name = other or model_args.model_name_or_path
        theirs = without_adapter(model_args, name)
        if not other and model_args.from_scratch:
            raise UserError("--from_scratch: random weights are no reference; start from a model of step 1")
        tokenizer = self.renderer.tokenizer
        offload = options.offload_reference_and_reward
        reference = Policy(loading.load_causal_lm(theirs, tokenizer, self.args.bf16, offload), options.temperature)
        return frozen(reference, self.args, offload), reference.packed

    def _reward(self, model_args: ModelArguments):
        options = self.options
        if options.reward_fn:
            return of_function(options.reward_fn)
        if options.reward_url:
            return of_service(options.reward_url)
        model, packed = reward_model(
            options.reward_model_name_or_path,
            self.renderer,
            model_args,
            self.args,
            options.offload_reference_and_reward,
        )
        return of_model(model, packed, limits_of(self.args))

    @property
    def folders(self) -> dict[str, tuple[Engine, Any]]:
        """What is saved beside the policy."""
        return {"critic": (self.critic, self.critic_renderer)} if self.critic else {}

    def roller(self, longest: int) -> Roller:
        """What answers prompts, with at most `longest` tokens an answer."""
        options = self.options
        if self.actor.stage == 3 and options.enable_hybrid_engine:
            say(f"rollouts: weights gathered once each, back end {options.generation_backend}")
        elif self.actor.stage == 3:
            say("rollouts: weights stay sharded, back end hf (--no_enable_hybrid_engine)")
        critic = (self.critic, self.critic.module.packed) if self.critic else None
        with_text = bool(options.reward_fn or options.reward_url)
        return Roller(
            self.actor, self.policy, self.renderer, options, longest, self.args.seed,
            limits_of(self.args), self.reference, critic, self.reward, self.truth, with_text, at_hand,
        )  # fmt: skip


def ptx(actor: Engine, renderer: Any, data_args: DataArguments, model_args: ModelArguments, args: TrainingArguments,
        options: PPOArguments) -> Callable[[int], dict[str, float]]:  # fmt: skip
    """Ouyang et al. 2022, arXiv:2203.02155, eq. 2: at every update also likelier demonstrations, γ times their mean
    negative log-likelihood of a token. Returns what runs the forward and backward passes of an update's share."""
    theirs = dataclasses.replace(data_args, data_path=options.ptx_data_path, eval_data_path=[])
    part = DataPart(split="train", stage=1, kind="demonstrations", seed=args.seed)
    store = prepare(theirs, part, renderer, cache_folder(model_args))
    plan = Plan(
        store, store.tokens, store.trained_tokens, per_device=args.per_device_train_batch_size, accumulation=1,
        token_budget=args.tokens_per_micro_batch, world=ranks.world_size(), seed=args.seed, epochs=1.0,
        max_steps=actor.total_steps, per_step=options.ptx_batch_size,
    )  # fmt: skip

    def learn(update: int) -> dict[str, float]:
        part = plan.step(update, ranks.rank())
        left = 1 - (update - 1) / plan.total_steps if options.ptx_decay else 1.0
        total = torch.zeros((), dtype=torch.float64)
        for micro in part.micro_batches:
            batch = plan.batch(micro, actor.module.packed).to(ranks.device())
            losses_N = -actor(batch, temperature=1.0)  # demonstrations were not drawn at --temperature
            scale = options.ptx_coef * left * micro.weight * ranks.world_size() / part.units
            actor.backward(losses_N.sum() * scale)
            total += micro.weight * losses_N.detach().double().sum().cpu()
        return {"ptx_loss": sum(ranks.gather_objects(float(total))) / part.units}

    return learn
