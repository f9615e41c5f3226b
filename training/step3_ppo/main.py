"""Step 3, reinforcement learning from feedback: answer prompts, score the answers, make the better ones likelier.

    cd training/step3_ppo && bash run_ppo_tiny.sh

Reads prompts (docs/data.md) and a reward; writes a folder that plain transformers loads, and the critic beside it.
Schulman et al. 2017, arXiv:1707.06347; Ziegler et al. 2019, arXiv:1909.08593.
"""

from __future__ import annotations

from argparse import ArgumentParser

try:
    import utils.errors  # noqa: F401
except ImportError:
    ArgumentParser().exit(2, "error: no environment is active; at the project's root: source training/environment.sh\n")

import torch

from utils.arguments import parse
from utils.arguments.options import DataArguments, ModelArguments, TrainingArguments, refuse_dropout
from utils.arguments.ppo import PPOArguments
from utils.engine.deepspeed_engine import Engine
from utils.losses.policy import (
    KLController,
    clipped_policy_losses,
    clipped_value_losses,
    explained_variance,
    generalised_advantages,
    kl_estimate,
    leave_one_out,
    relative_to_group,
    standard_deviation,
    whitened,
)
from utils.model import loading
from utils.model.scoring import Policy
from utils.ppo.experience import Running, facts_of, rewards_of, weights_of
from utils.ppo.models import Players, ptx
from utils.ppo.trainer import Learner, OnlineTrainer, steps_of
from utils.reporting import run_program
from utils.training.run import Run
from utils.training.setup import begin, load_tokens


def main(argv: list[str] | None = None) -> None:  # noqa: PLR0915 (the algorithm stands here, whole)
    groups = parse([ModelArguments, DataArguments, TrainingArguments, PPOArguments], argv, __doc__)
    model_args, data_args, args, ppo = groups
    refuse_dropout(model_args)
    run = Run(args, groups, "step3_ppo/main.py")
    if run.finished:
        return

    # 1. Prompts, as tokens.
    renderer, train, held_out = load_tokens(model_args, data_args, args, stage=3, kind="prompts")

    # 2. Two models that learn, the actor and its critic; two that judge, the reference and the reward.
    begin(run, model_args, args, train, critic=ppo.critic_start)
    policy = Policy(loading.load_causal_lm(model_args, renderer.tokenizer, args.bf16), ppo.temperature)
    loading.check_length(policy.model, max(train.longest, held_out.longest) + data_args.max_answer_seq_len)
    actor = Engine(policy, args, (steps_of(len(train), args, ppo) - ppo.value_warmup) * ppo.updates)
    players = Players(actor, policy, renderer, model_args, data_args, args, ppo, (train, held_out))

    # 3. What a rollout is worth, and what a batch of it teaches.
    controller, running = KLController(ppo.kl_coef, ppo.kl_target), Running()

    def judge(x):
        kl_N = kl_estimate(x.old - x.reference, ppo.kl_estimate)
        rewards_N = -controller.coefficient * kl_N if ppo.kl_in == "reward" else torch.zeros_like(kl_N)
        x.weights, scores_A = weights_of(x, ppo), rewards_of(x, ppo, running)
        if ppo.advantage == "gae":
            rewards_N[x.ends] += scores_A
            x.advantages = generalised_advantages(rewards_N, x.values, x.lengths, ppo.gamma, ppo.gae_lambda)
            x.returns = x.advantages + x.values
        else:
            relative = leave_one_out if ppo.advantage == "rloo" else relative_to_group
            totals_A = scores_A + x.sums(rewards_N)
            x.advantages = x.of_tokens(torch.cat([relative(k) for k in totals_A.split(x.sizes)]))
        seen = {"advantage_mean": float(x.advantages.mean()), "advantage_std": standard_deviation(x.advantages)}
        if ppo.whiten_advantages:
            x.advantages = whitened(x.advantages, x.weights)
        seen |= {"kl_coef": controller.coefficient, **facts_of(x)}
        if ppo.advantage == "gae":
            seen["explained_variance"] = explained_variance(x.values, x.returns)
        controller.update(seen["kl"], len(x.lengths))
        return seen

    def teach_actor(model, batch, x):
        logprobs_N, entropy_N = model(batch, entropy=True) if ppo.entropy_coef else (model(batch), None)
        old_N, advantages_N = x.of(batch, x.old), x.of(batch, x.advantages)
        logprobs_N = x.where_learned(batch, logprobs_N, old_N)
        losses_N = clipped_policy_losses(logprobs_N, old_N, advantages_N, ppo.policy_clip)
        log_ratio_N = logprobs_N - old_N
        metrics = {
            "policy_loss": losses_N, "ratio": log_ratio_N.exp(), "ratio_gap": (log_ratio_N.exp() - 1).abs(),
            "clip_fraction": ((log_ratio_N.exp() - 1).abs() > ppo.policy_clip).float(),
            "update_kl": kl_estimate(-log_ratio_N, "k3"),
        }  # fmt: skip
        if ppo.kl_in == "loss":
            losses_N = losses_N + controller.coefficient * kl_estimate(
                logprobs_N - x.of(batch, x.reference), ppo.kl_estimate
            )
        if entropy_N is not None:
            losses_N, metrics["policy_entropy"] = losses_N - ppo.entropy_coef * entropy_N, entropy_N
        return losses_N, metrics

    def teach_critic(model, batch, x):
        values_N, returns_N = model(batch), x.of(batch, x.returns)
        losses_N = clipped_value_losses(values_N, x.of(batch, x.values), returns_N, ppo.value_clip)
        return losses_N, {"value_loss": losses_N, "value": values_N}

    # 4. Answer, judge, learn, again; save.
    aside = ptx(actor, renderer, data_args, model_args, args, ppo) if ppo.ptx_coef else None
    learners = [Learner(actor, teach_actor, ppo.value_warmup + 1, aside)]
    if players.critic:
        learners.append(Learner(players.critic, teach_critic, prefix="critic_"))
    OnlineTrainer(
        run, ppo, learners, players.roller(data_args.max_answer_seq_len), players.train, players.held_out, renderer,
        judge, {"controller": controller, "running": running}, players.folders,
    ).fit()  # fmt: skip


if __name__ == "__main__":
    run_program(main)
