"""A PPO step (rollout, scoring by four models, one epoch of updates) against the same step of `model.generate` and
padded forward passes: same models, dtype, threads, answers; in turn, medians.

    PYTHONPATH=. python tests/benchmarks/ppo_step.py [--threads 1] [--repeats 3]

The losses of both are compared before anything is timed.
"""

from __future__ import annotations

import copy
import statistics
import time
from dataclasses import dataclass

import numpy as np
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification, PreTrainedTokenizerFast

from utils.arguments import parse
from utils.arguments.options import option
from utils.generation.generate import generate
from utils.generation.request import GenerationRequest
from utils.generation.sampling import Sampling
from utils.losses.policy import clipped_policy_losses, clipped_value_losses, generalised_advantages, whitened
from utils.model.batch import collate
from utils.model.measure import measure
from utils.model.reward_model import Critic, RewardModel
from utils.model.scoring import Policy
from utils.tokens.group import group
from utils.tokens.templates import Renderer

VOCABULARY, NEW, PROMPTS, COPIES, BATCH = 8192, 48, 16, 8, 4
SIZES = dict(hidden_size=256, intermediate_size=768, num_hidden_layers=6, num_attention_heads=4, num_key_value_heads=4)


class Side:
    """One way of doing the step; both start from the same weights."""

    def __init__(self, models, backend: str, packed: bool, renderer) -> None:
        actor, critic = (copy.deepcopy(m) for m in models)
        self.actor, self.reference = Policy(actor), Policy(copy.deepcopy(actor))
        self.critic, self.reward = Critic(critic), RewardModel(copy.deepcopy(critic))
        self.backend, self.packed, self.renderer = backend, packed, renderer
        for scorer in (self.actor, self.reference, self.critic, self.reward):
            scorer.packed = packed
        learned = [*self.actor.parameters(), *self.critic.parameters()]
        self.optimizer = torch.optim.AdamW(learned, lr=1e-5, fused=True)

    def step(self, prompts, seed: int) -> float:
        how = Sampling(NEW, num_samples=COPIES, seed=seed)
        answered = generate(
            self.actor.model, GenerationRequest(self.renderer, prompts, how), len(prompts), backend=self.backend
        )
        groups = [group(p, [c.tokens for c in several]) for p, several in zip(prompts, answered, strict=True)]
        lengths = [len(a) for g in groups for a in g.answers]
        old, reference, values = (
            torch.from_numpy(np.concatenate(measure(m, groups, packed=self.packed, count=BATCH, budget=0)))
            for m in (self.actor, self.reference, self.critic)
        )
        scores = torch.from_numpy(
            np.concatenate(measure(self.reward, groups, packed=self.packed, count=BATCH, budget=0, per_answer=True))
        )
        rewards = -0.05 * (old - reference)
        rewards[torch.tensor(lengths).cumsum(0) - 1] += scores
        advantages = generalised_advantages(rewards, values, lengths, 1.0, 0.95)
        returns, advantages = advantages + values, whitened(advantages, torch.ones_like(advantages))
        sizes = [sum(map(len, g.answers)) for g in groups]
        parts = list(zip(*(x.split(sizes) for x in (old, values, advantages, returns)), strict=True))
        total = 0.0
        for start in range(0, len(groups), BATCH):
            batch = collate(groups[start : start + BATCH], packed=self.packed)
            o, v, a, r = (torch.cat(part) for part in zip(*parts[start : start + BATCH], strict=True))
            losses = clipped_policy_losses(self.actor(batch), o, a, 0.2)
            losses = losses + clipped_value_losses(self.critic(batch), v, r, 0.2)
            (losses.sum() / len(old)).backward()
            total += float(losses.detach().sum()) / len(old)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return total


@dataclass
class Options:
    threads: int = option(1, help="of torch")
    repeats: int = option(3, help="measurements of each side")


def main(argv: list[str] | None = None) -> None:
    (args,) = parse([Options], argv, description=__doc__)
    torch.set_num_threads(args.threads)
    words = {"<pad>": 0, "<s>": 1, "</s>": 2} | {f"w{i}": i for i in range(3, VOCABULARY)}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel(words, "w3")), eos_token="</s>", pad_token="<pad>"
    )
    renderer = Renderer(tokenizer, "plain")
    draw = np.random.default_rng(0)
    sizes = np.clip(np.exp(draw.normal(np.log(120), 0.6, PROMPTS)), 20, 500).astype(int)
    prompts = [draw.integers(5, VOCABULARY, n).tolist() for n in sizes]
    print(f"Llama of 7.2 million weights four times, {args.threads} thread(s)")
    print(f"{PROMPTS} prompts of {sizes.min()} to {sizes.max()} tokens x {COPIES} answers of {NEW} at most")
    for dtype in (torch.float32, torch.bfloat16):
        torch.manual_seed(0)
        config = AutoConfig.for_model(
            "llama", vocab_size=VOCABULARY, **SIZES, num_labels=1, pad_token_id=0, eos_token_id=2
        )
        kinds = (AutoModelForCausalLM, AutoModelForSequenceClassification)
        models = [kind.from_config(config).to(dtype) for kind in kinds]
        ours, theirs = Side(models, "shared", True, renderer), Side(models, "hf", False, renderer)
        gap = abs(ours.step(prompts, 1) - theirs.step(prompts, 1))
        assert gap <= (1e-4 if dtype == torch.float32 else 0.2), gap
        seconds: dict[Side, list[float]] = {ours: [], theirs: []}
        for repeat in range(args.repeats):
            for side, found in seconds.items():
                start = time.perf_counter()
                side.step(prompts, repeat + 2)
                found.append(time.perf_counter() - start)
        a, b = (statistics.median(seconds[side]) for side in (ours, theirs))
        print(f"{str(dtype)[6:]:9} generate and padded {b:6.2f} s, shared and packed {a:6.2f} s: {b / a:4.1f} times "
              f"(losses differ by {gap:.0e})", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
