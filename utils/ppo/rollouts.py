"""Rollouts: answers of the policy in training, and what the models that read them give.

Legend: N answer tokens of several answers laid end to end, A answers, k answers of a prompt.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from utils.arguments.options import TrainingArguments
from utils.arguments.ppo import PPOArguments
from utils.engine import ranks
from utils.engine.deepspeed_engine import Engine
from utils.engine.flipping import flipped
from utils.errors import UserError
from utils.generation.generate import generate
from utils.generation.request import Completion, GenerationRequest
from utils.generation.sampling import Sampling
from utils.model.measure import measure
from utils.model.passes import limits_of
from utils.model.reward_model import FrozenModel
from utils.ppo.experience import Experience, Rollout, experience_of
from utils.ppo.rewards import Judged, PromptSet, Reward, at_hand
from utils.records.files import write_jsonl
from utils.reporting import say
from utils.tables import show_table
from utils.tokens.group import group
from utils.tokens.templates import Renderer
from utils.training.run import Run


class Slot(NamedTuple):
    """A prompt to answer. What is drawn for it depends on its number alone, and so not on ranks and batches."""

    number: int  # in the run
    row: int  # in its store


@dataclass(frozen=True)
class RolloutModels:
    """The models of a rollout: the policy draws the answers, all of them read the answers."""

    actor: Engine  # the policy in training
    reference: FrozenModel | None  # None: the policy without its adapter
    critic: Engine | None  # None: advantages need no values
    reward: Reward
    true_reward: Reward | None = None  # only measured


@dataclass(frozen=True)
class RolloutMaker:
    """Answers prompts with the policy as it is now."""

    models: RolloutModels
    renderer: Renderer
    options: PPOArguments
    args: TrainingArguments
    longest: int  # most tokens of an answer

    def __post_init__(self) -> None:
        if self.models.actor.stage == 3 and self.options.enable_hybrid_engine:
            say(f"rollouts: weights gathered once each, back end {self.options.generation_backend}")
        elif self.models.actor.stage == 3:
            say("rollouts: weights stay sharded, back end hf (--no_enable_hybrid_engine)")

    def make(self, slots: Sequence[Slot], prompts: PromptSet, samples: int) -> tuple[list[Rollout], dict[str, float]]:
        """Answer this rank's prompts. A collective.

        Args:
            slots: the prompts of this rank.
            prompts: what the slots' rows count in.
            samples: answers to each prompt.

        Returns:
            A rollout of each slot, and the seconds of generation and of scoring.
        """
        started = time.perf_counter()
        rollouts = self._answer(slots, prompts, samples)
        generated = time.perf_counter()
        self._read(rollouts, prompts)
        seconds = {"generation_seconds": generated - started, "scoring_seconds": time.perf_counter() - generated}
        return rollouts, seconds

    def _answer(self, slots: Sequence[Slot], prompts: PromptSet, samples: int) -> list[Rollout]:
        options, actor = self.options, self.models.actor
        stop_strings = (options.truncate_at,) if options.truncate_at else ()
        sampling = Sampling(
            max_new_tokens=self.longest,
            temperature=options.temperature,
            num_samples=samples,
            seed=self.args.seed,
            stop_strings=stop_strings,
        )
        # Hybrid engine: the module flips from training to generation, with whole weights on every rank.
        flips = actor.stage < 3 or options.enable_hybrid_engine
        with flipped(actor) if flips else contextlib.nullcontext():
            request = GenerationRequest(
                renderer=self.renderer,
                prompts=[prompts.store[slot.row].prompt.tolist() for slot in slots],
                sampling=sampling,
                numbers=[slot.number for slot in slots],
                synced=not flips,
            )
            answered = generate(
                actor.module.model,
                request,
                batch_size=options.generation_batch_size,
                backend=options.generation_backend,
                title="rollout",
            )
        return [
            self._rollout(slot, prompts.store[slot.row].prompt, completions)
            for slot, completions in zip(slots, answered, strict=True)
        ]

    def _rollout(self, slot: Slot, prompt: np.ndarray, completions: Sequence[Completion]) -> Rollout:
        texts, finished, cut = [], [], self.options.truncate_at
        for completion in completions:
            text, ended = completion.text, completion.tokens[-1] in self.renderer.stop_token_ids
            if cut:
                # the text that ends an answer belongs to it
                ended = completion.finished and not ended
                if ended:
                    text += cut
            texts.append(text)
            finished.append(ended)
        old_logprobs = np.concatenate([np.asarray(c.logprobs, np.float32) for c in completions])
        answers = group(prompt, [c.tokens for c in completions])
        return Rollout(slot.number, slot.row, answers, texts=texts, finished=finished, old_logprobs=old_logprobs)

    def _read(self, rollouts: list[Rollout], prompts: PromptSet) -> None:
        """Fill in what the models give: log-probs, values and scores."""
        models, options = self.models, self.options
        groups, limits = [rollout.group for rollout in rollouts], limits_of(self.args)
        policy = models.actor.module
        # Decoding and the training forward round differently: read again, the first ratios are 1.
        if options.old_logprobs == "forward":
            found = measure(models.actor, groups, packed=policy.packed, **limits)
            _note(rollouts, "old_logprobs", found)
        if models.reference is None:
            with policy.model.disable_adapter():
                found = measure(models.actor, groups, packed=policy.packed, **limits)
        else:
            with at_hand(models.reference.model):
                found = measure(models.reference.model, groups, packed=models.reference.packed, **limits)
        _note(rollouts, "reference_logprobs", found)
        if models.critic is not None:
            found = measure(models.critic, groups, packed=models.critic.module.packed, **limits)
            _note(rollouts, "values", found)
        judged = []
        for rollout in rollouts:
            record = None
            # a reward model reads tokens alone
            if options.reward_fn or options.reward_url or models.true_reward:
                record = prompts.record(rollout.row, rollout.texts, rollout.finished)
            judged.append(Judged(rollout.group, record))
        _note(rollouts, "scores", models.reward(judged))
        if models.true_reward is not None:
            _note(rollouts, "true_rewards", models.true_reward(judged))


def _note(rollouts: list[Rollout], name: str, values: Sequence[Any]) -> None:
    for rollout, value in zip(rollouts, values, strict=True):
        setattr(rollout, name, np.asarray(value, np.float32))


def shared_out(slots: Sequence[Slot]) -> list[Slot]:
    """Return this rank's part of the slots."""
    return list(slots[ranks.rank() :: ranks.world_size()])


def gathered(mine: list[Rollout]) -> Experience:
    """Return every rank's rollouts, in the order of their slots, on every rank."""
    everyone = [rollout for part in ranks.gather_objects(mine) for rollout in part]
    return experience_of(sorted(everyone, key=lambda rollout: rollout.slot))


def steps_of(prompts: int, args: TrainingArguments, options: PPOArguments) -> int:
    """Return how many rollouts a run has. Raises UserError when there are too few prompts for one, or no step but
    warm-up."""
    steps = round(args.num_train_epochs * prompts) // options.prompts_per_rollout
    if args.max_steps > 0:
        steps = args.max_steps
    if not steps:
        raise UserError(f"{prompts} prompts, fewer than --prompts_per_rollout {options.prompts_per_rollout}; lower it")
    if options.value_warmup >= steps:
        raise UserError(f"--value_warmup {options.value_warmup} of {steps} steps leaves the policy none; lower it")
    return steps


def slots_of(step: int, prompts: int, options: PPOArguments, seed: int) -> list[Slot]:
    """Return the prompts of a step: permutations of the data, one after the other, cut into rollouts.

    Args:
        step: its number, from 1.
        prompts: how many there are.
        options: how many a rollout takes.
        seed: of the permutations.
    """
    # A rollout may end one permutation and begin the next: every prompt is answered equally often.
    numbers = range((step - 1) * options.prompts_per_rollout, step * options.prompts_per_rollout)
    orders: dict[int, np.ndarray] = {}
    slots = []
    for number in numbers:
        # Each permutation is made from its number alone: a resumed run has no generator to restore.
        epoch, place = divmod(number, prompts)
        if epoch not in orders:
            orders[epoch] = np.random.default_rng([seed, epoch]).permutation(prompts)
        slots.append(Slot(number, int(orders[epoch][place])))
    return slots


def show(run: Run, renderer: Renderer, step: int, experience: Experience) -> None:
    """Print a table of a few prompts, answers and scores; write all of them to samples-step-N.jsonl.

    Args:
        run: whose folder is written to.
        renderer: of the policy.
        step: number of the rollout.
        experience: all ranks' rollouts.
    """
    rows = []
    for rollout in experience.rollouts:
        prompt = renderer.tokenizer.decode(rollout.group.prompt)
        row = {"prompt": prompt, "answers": rollout.texts, "finished": rollout.finished}
        row["scores"] = rollout.scores.tolist()
        if rollout.true_rewards is not None:
            row["truth"] = rollout.true_rewards.tolist()
        rows.append(row)
    shown = [(row["prompt"][-160:], row["answers"][0][:240], f"{row['scores'][0]:.3f}") for row in rows[:4]]
    show_table(("prompt", "answer", "score"), shown)
    if ranks.rank() == 0 and not run.args.debug:
        write_jsonl(run.folder / f"samples-step-{step}.jsonl", rows)
