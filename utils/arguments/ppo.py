"""Options of step 3 by reinforcement. An option that presets set is None here; its values are in PRESETS alone."""

from __future__ import annotations

# fmt: off
from dataclasses import dataclass
from typing import ClassVar, Literal, Optional

from utils.arguments.choices import expect_backend, refuse_other_choices
from utils.arguments.declarations import NOT_NEGATIVE, expect, option
from utils.arguments.options import MEMORY
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
ALGORITHM, ROLLOUTS, SCORES, KL = "Algorithm", "Rollouts", "Scores of answers", "KL to the reference"
CRITIC = {"advantage": ("gae",)}


@dataclass
class RewardArguments:
    """Options of the reward of an answer, and of the models that judge it."""

    AT_THE_TOP: ClassVar[bool] = True

    reward_model_name_or_path: Optional[str] = option(help="reward model of step 2; the folder of a model that scores rollouts", title="Reward (one of the first three)", first=True)
    reward_fn: Optional[str] = option(help="Python function; module:name or FILE.py:name, it takes a record and returns a number for each answer", first=True)
    reward_url: Optional[str] = option(help='an HTTP service; it is sent {"records": [...]} and answers {"scores": [[...], ...]}')
    true_reward_fn: Optional[str] = option(help="a function as --reward_fn that is only measured; an oracle of the truth")
    offload_reference_and_reward: bool = option(False, help="keep reference and reward model in CPU memory while they are not needed", title=MEMORY)
    reference_model_name_or_path: Optional[str] = option(help="the reference model; None: the model that training starts from, with LoRA without its adapter", title=KL)
    sigmoid_scores: bool = option(False, help="map scores through a sigmoid, first of all", title=SCORES)
    normalize_scores: bool = option(False, help="subtract the running mean of all scores, divide by their standard deviation; after --sigmoid_scores")
    score_scale: float = option(1.0, help="factor of the scores, after --normalize_scores")
    score_clip: Optional[float] = option(help="clip the scores to plus or minus this, after --score_scale; 0 does not clip" + FROM_PRESET)
    # After the EOS trick of Huang et al. 2024, where the score of an answer without an end token becomes -1.
    unfinished: Literal["keep", "penalty", "mask"] = option("penalty", help="an answer without an end token; its score is kept, or lessened by --unfinished_penalty, or nothing is learned from it")
    unfinished_penalty: float = option(1.0, help="what the score of an unfinished answer loses", only={"unfinished": ("penalty",)})
    truncate_at: Optional[str] = option(help="cut answers after the first of this text; an answer without it is unfinished", title=ROLLOUTS)

    def __post_init__(self) -> None:
        given = [name for name in ("reward_model_name_or_path", "reward_fn", "reward_url") if getattr(self, name)]
        if len(given) != 1:
            found = " and ".join(f"--{name}" for name in given) or "none"
            raise UserError(f"the reward is {found}; give one of --reward_model_name_or_path, --reward_fn, --reward_url")


@dataclass
class PPOArguments(RewardArguments):
    """Options of PPO."""

    REFUSED: ClassVar[dict[str, str]] = {
        "whiten_rewards": "was removed: rewards are not whitened; give --normalize_scores or --whiten_advantages",
        "kl_horizon": "was removed: --kl_target adapts the weight over 10000 answers; leave it out",
        "table_every": "was removed: a table comes at step 1 and every 10 steps; leave it out",
        "gradient_accumulation_steps": "has no effect here: --minibatches says how a rollout is divided; leave it out",
        "global_batch_size": "has no effect here: --minibatches says how a rollout is divided; leave it out",
    }

    preset: Literal["plumbline", "dschat", "grpo", "grpo_token"] = option("plumbline", help="constants by name; see utils/arguments/ppo.py, a flag wins over them", title=ALGORITHM, first=True)
    advantage: Optional[Literal["gae", "rloo", "group"]] = option(help="how advantages are estimated; gae: with a critic; without one, against the prompt's other answers: rloo, group" + FROM_PRESET, first=True)
    prompts_per_rollout: int = option(64, help="prompts between updates, over all ranks", title=ROLLOUTS, first=True)
    # A prompt is read once for all its answers, so more answers to a prompt cost less than more prompts.
    samples_per_prompt: int = option(4, help="answers to each prompt", first=True)
    minibatches: Optional[int] = option(help="optimizer steps of a pass" + FROM_PRESET, title=ALGORITHM, first=True)
    ppo_epochs: Optional[int] = option(help="passes over a rollout" + FROM_PRESET, first=True)
    temperature: float = option(1.0, help="temperature of rollouts; log-probs are those of the distribution sampled from", title=ROLLOUTS)
    generation_backend: str = option("shared", help="what computes rollouts; shared or hf (utils/generation)")
    enable_hybrid_engine: bool = option(True, help="ZeRO-3: gather the weights once per rollout and release them; off: they stay sharded, less memory and far slower")
    generation_batch_size: int = option(64, help="prompts answered at a time on a rank")
    critic_model_name_or_path: Optional[str] = option(help="what the critic starts from; None: the reward model, or the actor where there is none", only=CRITIC)
    critic_learning_rate: Optional[float] = option(help="learning rate of the critic; None: 2 x --learning_rate", only=CRITIC, first=True)
    value_warmup: int = option(0, help="rollouts at the start from which only the critic learns", only=CRITIC)
    kl_coef: Optional[float] = option(help="weight of the KL" + FROM_PRESET, title=KL, first=True)
    kl_estimate: Optional[Literal["k1", "k2", "k3"]] = option(help="how the KL of a token is estimated; k1 in the loss is refused, its expected gradient is zero; None: k1 in the reward, k3 in the loss")
    kl_in: Optional[Literal["reward", "loss"]] = option(help="where the KL counts; in the reward of a token, or in the loss" + FROM_PRESET)
    kl_target: Optional[float] = option(help="adapt the weight towards this KL, in nats of an answer; None: the weight is fixed")
    stop_update_kl: Optional[float] = option(help="end a rollout's updates when a minibatch has moved this far from it, in nats of a token; None: never", title=ALGORITHM)
    gamma: Optional[float] = option(help="discount of later rewards" + FROM_PRESET, only=CRITIC)
    gae_lambda: Optional[float] = option(help="λ of GAE" + FROM_PRESET, only=CRITIC)
    policy_clip: Optional[float] = option(help="ratios beyond 1 ± this gain nothing" + FROM_PRESET)
    value_clip: Optional[float] = option(help="values move by at most this from the rollout's; 0 does not clip" + FROM_PRESET, only=CRITIC)
    whiten_advantages: Optional[bool] = option(help="give advantages mean 0 and variance 1 over a rollout" + FROM_PRESET)
    loss_average: Optional[Literal["token", "answer"]] = option(help="what losses are averaged over; token: all tokens of a minibatch; answer: each answer's tokens, then answers" + FROM_PRESET)
    entropy_coef: float = option(0.0, help="weight of the policy's entropy, which is rewarded")
    old_logprobs: Literal["forward", "decoding"] = option("forward", help="log-probs that ratios start from; of the training forward, or those noted while sampling (one pass less)")
    ptx_data_path: list[str] = option([], help="demonstrations or texts to learn along the way", title="Demonstrations along the way")
    ptx_coef: float = option(0.0, help="weight of their loss")
    ptx_batch_size: int = option(8, help="demonstrations of an optimizer step, over all ranks")
    ptx_decay: bool = option(False, help="let the weight fall linearly to 0")

    def __post_init__(self) -> None:
        super().__post_init__()
        self.advantage = self.advantage or PRESETS[self.preset]["advantage"]
        refuse_other_choices(self)  # before the preset sets what has no effect with its own --advantage
        for name, value in PRESETS[self.preset].items():
            if getattr(self, name) is None:
                setattr(self, name, value)
        if self.kl_estimate == "k1" and self.kl_in == "loss":
            raise UserError("--kl_estimate k1 with --kl_in loss: the expected gradient of log π − log ρ is zero, so it does not hold the policy; give k3 or k2, or --kl_in reward")
        self.kl_estimate = self.kl_estimate or ("k3" if self.kl_in == "loss" else "k1")
        expect_backend(self.generation_backend, "shared", "hf")
        expect(self, "1 or more", "prompts_per_rollout", "samples_per_prompt", "generation_batch_size")
        expect(self, "1 or more", "minibatches", "ppo_epochs", "ptx_batch_size")
        expect(self, "above 0", "temperature", "critic_learning_rate", "policy_clip")
        expect(self, "above 0", "kl_target", "stop_update_kl")
        expect(self, NOT_NEGATIVE, "kl_coef", "score_clip", "value_clip")
        expect(self, NOT_NEGATIVE, "entropy_coef", "ptx_coef", "value_warmup")
        expect(self, "above 0 and at most 1", "gamma")
        expect(self, "0 to 1", "gae_lambda")
        if self.advantage != "gae" and self.samples_per_prompt < 2:
            raise UserError(f"--advantage {self.advantage} compares a prompt's answers; give --samples_per_prompt 2 or more")
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
        """Return the optimizer steps of a rollout."""
        return self.ppo_epochs * self.minibatches

    @property
    def critic_start(self) -> str | None:
        """Return what the critic starts from; None: the actor's model, or there is no critic."""
        if self.advantage != "gae":
            return None
        return self.critic_model_name_or_path or self.reward_model_name_or_path
