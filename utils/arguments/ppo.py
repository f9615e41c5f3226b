"""Options of step 3 by reinforcement. What a preset may set is None here and stated once, in PRESETS."""

from __future__ import annotations

# fmt: off
from dataclasses import dataclass
from typing import Literal, Optional

from utils.arguments.options import NOT_NEGATIVE, expect, expect_backend, option
from utils.errors import UserError

GRPO = dict(kl_coef=0.04, kl_in="loss", advantage="group", loss_average="answer", gamma=1.0, gae_lambda=1.0, policy_clip=0.2, value_clip=0.2,
            whiten_advantages=False, score_clip=0.0, ppo_epochs=1, minibatches=1)
PRESETS = {
    # Huang et al. 2024, arXiv:2403.17031
    "plumbline": dict(advantage="gae", kl_coef=0.05, kl_in="reward", loss_average="token", gamma=1.0, gae_lambda=0.95, policy_clip=0.2, value_clip=0.2,
                      whiten_advantages=True, score_clip=0.0, ppo_epochs=2, minibatches=4),
    # DeepSpeed-Chat's constants; its EMA is --ema_decay 0.992
    "dschat": dict(advantage="gae", kl_coef=0.1, kl_in="reward", loss_average="token", gamma=1.0, gae_lambda=0.95, policy_clip=0.2, value_clip=0.2,
                   whiten_advantages=False, score_clip=5.0, ppo_epochs=1, minibatches=1),
    # group-relative advantages, the KL in the loss, the mean of answers' means (eq. 3): Shao et al. 2024, arXiv:2402.03300
    "grpo": GRPO,
    # the same with the token-level loss of DAPO, Yu et al. 2025, arXiv:2503.14476, §3.3; here over the minibatch, there over a prompt's answers
    "grpo_token": {**GRPO, "loss_average": "token"},
}
FROM_PRESET = "; None: the preset's"


@dataclass
class RewardArguments:
    reward_model_name_or_path: Optional[str] = option(help="folder of the reward model (step 2) that scores rollouts")
    reward_fn: Optional[str] = option(help="instead: a Python function, module:name or FILE.py:name; it takes a record and returns a number for each answer")
    reward_url: Optional[str] = option(help='instead: an HTTP service that is sent {"records": [...]} and answers {"scores": [[...], ...]}')
    true_reward_fn: Optional[str] = option(help="a function as --reward_fn that is only measured: an oracle of the truth")
    offload_reference_and_reward: bool = option(False, help="reference and reward model wait in CPU memory while they are not needed")
    reference_model_name_or_path: Optional[str] = option(help="the reference; None: the model that training starts from (with LoRA: the model without its adapter)")
    sigmoid_scores: bool = option(False, help="scores through a sigmoid first")
    normalize_scores: bool = option(False, help="then minus the running mean, over the running standard deviation, of all scores so far")
    score_scale: float = option(1.0, help="then times this")
    score_clip: Optional[float] = option(help="then clipped to plus or minus this; 0 does not clip" + FROM_PRESET)
    unfinished: Literal["keep", "penalty", "mask"] = option("penalty", help="an answer without an end token: scored as it is, less --unfinished_penalty, or not learned from")
    unfinished_penalty: float = option(1.0, help="taken from the score of an unfinished answer")
    truncate_at: Optional[str] = option(help="answers are cut after the first of this text, and unfinished without it")

    def __post_init__(self) -> None:
        given = [name for name in ("reward_model_name_or_path", "reward_fn", "reward_url") if getattr(self, name)]
        if len(given) != 1:
            found = " and ".join(f"--{name}" for name in given) or "none"
            raise UserError(f"the reward is {found}; give one of --reward_model_name_or_path, --reward_fn, --reward_url")
        if self.unfinished != "penalty" and self.unfinished_penalty != 1.0:
            raise UserError(f"--unfinished_penalty has no effect with --unfinished {self.unfinished}; leave it out")


@dataclass
class PPOArguments(RewardArguments):
    preset: Literal["plumbline", "dschat", "grpo", "grpo_token"] = option("plumbline", help="constants by name; a flag wins over them (utils/arguments/ppo.py)")
    advantage: Optional[Literal["gae", "rloo", "group"]] = option(help="GAE with a critic; or, without one, against the prompt's other answers (rloo, group)" + FROM_PRESET)
    prompts_per_rollout: int = option(64, help="prompts answered between updates, over all ranks")
    samples_per_prompt: int = option(4, help="answers to each")
    minibatches: Optional[int] = option(help="optimizer steps of a pass over a rollout" + FROM_PRESET)
    ppo_epochs: Optional[int] = option(help="passes over a rollout" + FROM_PRESET)
    temperature: float = option(1.0, help="of rollouts; log-probs are those of the distribution drawn from")
    generation_backend: str = option("shared", help="what computes rollouts: shared | hf (utils/generation)")
    enable_hybrid_engine: bool = option(True, help="ZeRO-3: gather the weights once per rollout and release them; off: they stay sharded, less memory and far slower")
    generation_batch_size: int = option(64, help="prompts answered at a time on a rank")
    critic_model_name_or_path: Optional[str] = option(help="what the critic starts from; None: the reward model, or the actor where there is none")
    critic_learning_rate: Optional[float] = option(help="None: twice --learning_rate")
    value_warmup: int = option(0, help="rollouts at the start from which only the critic learns")
    kl_coef: Optional[float] = option(help="weight of the KL to the reference" + FROM_PRESET)
    kl_estimate: Optional[Literal["k1", "k2", "k3"]] = option(help="how the KL of a token is estimated; None: k1 in the reward, k3 in the loss (where the expected gradient of k1 is zero)")
    kl_in: Optional[Literal["reward", "loss"]] = option(help="where it is counted: in the reward of a token, or in the loss" + FROM_PRESET)
    kl_target: Optional[float] = option(help="adapt the coefficient towards this KL, nats of an answer; None: fixed")
    kl_horizon: int = option(10_000, help="answers over which it adapts")
    stop_update_kl: Optional[float] = option(help="end a rollout's updates when a minibatch has moved this far from it, nats of a token")
    gamma: Optional[float] = option(help="discount" + FROM_PRESET)
    gae_lambda: Optional[float] = option(help="λ of GAE" + FROM_PRESET)
    policy_clip: Optional[float] = option(help="ratios beyond 1 ± this gain nothing" + FROM_PRESET)
    value_clip: Optional[float] = option(help="values move by at most this from the rollout's; 0 does not clip" + FROM_PRESET)
    whiten_advantages: Optional[bool] = option(help="mean 0 and variance 1 over a rollout" + FROM_PRESET)
    whiten_rewards: bool = option(False, help="variance 1, mean kept, before advantages are computed")
    loss_average: Optional[Literal["token", "answer"]] = option(help="token: the mean over all tokens of a minibatch; answer: over each answer's tokens, then over answers" + FROM_PRESET)
    entropy_coef: float = option(0.0, help="reward for entropy")
    old_logprobs: Literal["forward", "decoding"] = option("forward", help="log-probs that ratios start from: of the training forward, or those noted while drawing (one pass less)")
    ptx_data_path: list[str] = option([], help="demonstrations or texts that are learned along the way")
    ptx_coef: float = option(0.0, help="weight of their loss")
    ptx_batch_size: int = option(8, help="of them at every optimizer step, over all ranks")
    ptx_decay: bool = option(False, help="the weight falls linearly to 0")
    table_every: int = option(10, help="rollouts between tables of prompts, answers and scores")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, value in PRESETS[self.preset].items():
            if getattr(self, name) is None:
                setattr(self, name, value)
        if self.kl_estimate == "k1" and self.kl_in == "loss":
            raise UserError("--kl_estimate k1 with --kl_in loss: the expected gradient of log π − log ρ is zero, so it does not hold the policy; give k3 or k2, or --kl_in reward")
        self.kl_estimate = self.kl_estimate or ("k3" if self.kl_in == "loss" else "k1")
        expect_backend(self.generation_backend, "shared", "hf")
        expect(self, "1 or more", "prompts_per_rollout", "samples_per_prompt", "minibatches", "ppo_epochs",
               "generation_batch_size", "kl_horizon", "ptx_batch_size", "table_every")
        expect(self, "above 0", "temperature", "kl_target", "stop_update_kl", "critic_learning_rate", "policy_clip")
        expect(self, NOT_NEGATIVE, "kl_coef", "score_clip", "value_clip", "entropy_coef", "ptx_coef", "value_warmup")
        expect(self, "above 0 and at most 1", "gamma")
        expect(self, "0 to 1", "gae_lambda")
        if self.advantage != "gae":
            if self.samples_per_prompt < 2:
                raise UserError(f"--advantage {self.advantage} compares a prompt's answers; give --samples_per_prompt 2 or more")
            for name in ("critic_model_name_or_path", "critic_learning_rate", "value_warmup"):
                if getattr(self, name):
                    raise UserError(f"--{name} is the critic's, and --advantage {self.advantage} has none; leave it out")
        if self.minibatches > self.prompts_per_rollout:
            raise UserError(f"--minibatches {self.minibatches} of {self.prompts_per_rollout} prompts: some would be empty")
        if bool(self.ptx_data_path) != bool(self.ptx_coef):
            raise UserError("--ptx_data_path and --ptx_coef belong together; give both, or neither")
        if self.old_logprobs == "decoding" and self.temperature != 1:
            raise UserError("--old_logprobs decoding notes log-probs at temperature 1; leave out --temperature, or this")
        if self.ptx_decay and not self.ptx_coef:
            raise UserError("--ptx_decay needs --ptx_data_path and --ptx_coef")

    @property
    def updates(self) -> int:
        """Optimizer steps of a rollout."""
        return self.ppo_epochs * self.minibatches

    @property
    def critic_start(self) -> str | None:
        """What the critic starts from; None: the actor's model, or there is no critic."""
        return (self.critic_model_name_or_path or self.reward_model_name_or_path) if self.advantage == "gae" else None
