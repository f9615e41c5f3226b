"""Step 3, reinforcement learning from feedback: answer prompts, score the answers, make the better ones likelier.

    cd training/step3_ppo && bash run_ppo_tiny.sh

Reads prompts (docs/data.md) and a reward; writes a folder that plain transformers loads, and the critic beside it.
Schulman et al. 2017 (PPO), arXiv:1707.06347; Ziegler et al. 2019, arXiv:1909.08593. Names in quotes are those of Huang
et al. 2023, The N Implementation Details of RLHF with PPO.
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
from utils.losses import policy as losses
from utils.model import loading
from utils.model.scoring import Policy, self_test
from utils.ppo.experience import RunningMoments, Targets, rewards_of, summary_of, weights_of
from utils.ppo.learning import Learner
from utils.ppo.models import load_critic, load_reference, load_reward, load_true_reward, probes_of, refuse_options
from utils.ppo.ptx import ptx_loss, ptx_tokens
from utils.ppo.rewards import PromptSet
from utils.ppo.rollouts import RolloutMaker, RolloutModels, steps_of
from utils.ppo.steps import RolloutSteps
from utils.reporting import run_program
from utils.training.extras import begin_extras
from utils.training.run import Run
from utils.training.setup import begin, load_tokens
from utils.training.stage import Stage
from utils.training.trainer import Trainer


def main(argv: list[str] | None = None) -> None:  # noqa: C901, PLR0915 (the algorithm stands here, whole)
    groups = parse([ModelArguments, DataArguments, TrainingArguments, PPOArguments], argv, __doc__)
    model_args, data_args, args, ppo = groups
    refuse_dropout(model_args)
    run = Run(args, groups, "step3_ppo/main.py")
    if run.finished:
        return

    # 1. Prompts, as tokens.
    renderer, train, held_out = load_tokens(model_args, data_args, args, stage=3, kind="prompts")

    # 2. The models. The policy and its critic learn; the reference and the reward are only read.
    begin(run, model_args, args, train, critic=ppo.critic_start)
    refuse_options(args, ppo)
    total_steps, probes = steps_of(len(train), args, ppo), probes_of(train)
    policy = Policy(loading.load_causal_lm(model_args, renderer.tokenizer, args.bf16), ppo.temperature)
    loading.check_length(policy.model, max(train.longest, held_out.longest) + data_args.max_answer_seq_len)
    actor = Engine(policy, args, (total_steps - ppo.value_warmup) * ppo.updates)
    self_test(actor, policy, probes, args.dtype_name)
    others = {"critic": load_critic(model_args, args, ppo, total_steps)} if ppo.advantage == "gae" else {}
    critic = others["critic"].engine if others else None
    if critic:
        self_test(critic, critic.module, probes, args.dtype_name)
    reference = load_reference(model_args, args, ppo, renderer)
    reward, true_reward = load_reward(model_args, args, ppo, renderer), load_true_reward(ppo)

    # 3. The algorithm. N answer tokens of a rollout laid end to end, A answers, k answers of a prompt.
    controller, moments = losses.KLController(ppo.kl_coef, ppo.kl_target), RunningMoments()

    def targets_of(experience):
        weights_N = weights_of(experience, ppo)
        # 3.1 Rewards: "Per-token KL penalty", and at an answer's last token its score. Ziegler et al., eq. 2.
        kl_N = losses.kl_estimate(experience.old_logprobs - experience.reference_logprobs, ppo.kl_estimate)
        rewards_N = -controller.coefficient * kl_N if ppo.kl_in == "reward" else torch.zeros_like(kl_N)
        scores_A = rewards_of(experience, ppo, moments)
        returns_N = None
        if ppo.advantage == "gae":
            rewards_N[experience.last_tokens] += scores_A
            # 3.2 Values: the critic's before its update, read with the rollout.
            values_N, lengths = experience.values, experience.lengths
            # 3.3 Advantages: GAE, Schulman et al. 2016, arXiv:1506.02438, eq. 16. Returns: what values aim at.
            advantages_N = losses.generalised_advantages(rewards_N, values_N, lengths, ppo.gamma, ppo.gae_lambda)
            returns_N = advantages_N + values_N
        else:
            # 3.3 Without a critic: against the prompt's other answers, RLOO (Ahmadian et al. 2024, arXiv:2402.14740,
            # eq. 8), or relative to the group, GRPO (Shao et al. 2024, arXiv:2402.03300, section 4.1.2).
            totals_A, compare = scores_A + experience.sums(rewards_N), losses.COMPARISONS[ppo.advantage]
            compared = [compare(totals_K) for totals_K in totals_A.split(experience.answers_per_prompt)]
            advantages_N = experience.at_tokens(torch.cat(compared))
        metrics = {
            "advantage_mean": float(advantages_N.mean()),
            "advantage_std": losses.standard_deviation(advantages_N),
            "kl_coef": controller.coefficient,
            **summary_of(experience),
        }
        # 3.4 Advantage whitening: mean 0, standard deviation 1. Huang et al., general details.
        if ppo.whiten_advantages:
            advantages_N = losses.whitened(advantages_N, weights_N)
        if returns_N is not None:
            metrics["explained_variance"] = losses.explained_variance(experience.values, returns_N)
        # 3.5 "Adaptive KL": the coefficient of the next rollout. Ziegler et al., section 2.2.
        controller.update(metrics["kl"], len(experience.lengths))
        return Targets(weights_N, advantages_N, returns_N, metrics)

    def learn_policy(model, batch, experience, targets):
        # 3.6 Policy loss: PPO, eq. 7. No gradient through tokens not learned from: 0 times an infinite ratio is NaN.
        logprobs_N, entropy_N = model(batch, entropy=True) if ppo.entropy_coef else (model(batch), None)
        old_logprobs_N = experience.in_batch(batch, experience.old_logprobs)
        logprobs_N = torch.where(experience.in_batch(batch, targets.learned), logprobs_N, old_logprobs_N)
        advantages_N = experience.in_batch(batch, targets.advantages)
        losses_N = losses.clipped_policy_losses(logprobs_N, old_logprobs_N, advantages_N, ppo.policy_clip)
        metrics = {"policy_loss": losses_N} | losses.ratio_metrics(logprobs_N - old_logprobs_N, ppo.policy_clip)
        if ppo.kl_in == "loss":
            log_ratio_N = logprobs_N - experience.in_batch(batch, experience.reference_logprobs)
            losses_N = losses_N + controller.coefficient * losses.kl_estimate(log_ratio_N, ppo.kl_estimate)
        if entropy_N is not None:
            losses_N, metrics["policy_entropy"] = losses_N - ppo.entropy_coef * entropy_N, entropy_N
        return losses_N, metrics

    def learn_values(model, batch, experience, targets):
        # 3.7 Value loss: "Clipped value function".
        values_N, old_values_N = model(batch), experience.in_batch(batch, experience.values)
        returns_N = experience.in_batch(batch, targets.returns)
        losses_N = losses.clipped_value_losses(values_N, old_values_N, returns_N, ppo.value_clip)
        return losses_N, {"value_loss": losses_N, "value": values_N}

    # 4. Answer, learn, again; save.
    learners = [Learner(actor, learn_policy, first_step=ppo.value_warmup + 1)]
    if ppo.ptx_coef:
        learners[0].aside = ptx_loss(actor, ptx_tokens(data_args, model_args, args, ppo, renderer), args, ppo)
    if critic:
        learners.append(Learner(critic, learn_values, prefix="critic_"))
    models = RolloutModels(actor, reference, critic, reward, true_reward)
    maker = RolloutMaker(models, renderer, ppo, args, longest=data_args.max_answer_seq_len)
    stage = Stage(run, actor, renderer, held_out)
    extras = begin_extras(stage)
    steps = RolloutSteps(
        stage, ppo, maker, targets_of=targets_of, learners=learners, after_update=extras.after_update,
        train=PromptSet(data_args, "train", args.seed, train),
        held_out=PromptSet(data_args, "eval", args.seed, held_out),
    )  # fmt: skip
    Trainer(stage, steps, steps.evaluate, extras, {"controller": controller, "running": moments}, others=others).fit()


if __name__ == "__main__":
    run_program(main)
