"""Rollouts: answers of the model in training, and what the frozen models say of them.

Legend: N answer tokens of several answers laid end to end, A answers, k answers of a prompt.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from utils.arguments.options import TrainingArguments
from utils.arguments.ppo import PPOArguments
from utils.engine import ranks
from utils.engine.deepspeed_engine import Engine
from utils.errors import UserError
from utils.generation import Completion, Sampling, generate
from utils.model.passes import measure
from utils.model.scoring import Policy
from utils.ppo.experience import Experience, Rollout
from utils.ppo.rewards import Judged, Prompts, Reward
from utils.records import write_jsonl
from utils.reporting import show_table
from utils.tokens.group import Group, group
from utils.training.nonfinite import refuse_nonfinite
from utils.training.run import Run

Slot = tuple[int, int]  # (number of the answered prompt in the run, row of its store)


class Roller:
    """Answers prompts with the policy as it is now. `reward`, `truth`: rewards.py; `reference`, `critic`: a model
    and whether it reads packed rows, or None. `adapter_off`: the policy without its adapter is the reference."""

    def __init__(
        self, engine: Engine, policy: Policy, renderer: Any, options: PPOArguments, longest: int, seed: int,
        limits: dict[str, int], reference: tuple[Any, bool] | None, critic: tuple[Any, bool] | None, reward: Reward,
        truth: Reward | None, with_text: bool, held: Callable[[Any], Any],
    ) -> None:  # fmt: skip
        self.engine, self.policy, self.renderer, self.options = engine, policy, renderer, options
        self.limits = limits  # of forward passes, as measure() takes them
        self.reference, self.critic, self.reward, self.truth = reference, critic, reward, truth
        self.with_text, self.held = with_text or truth is not None, held
        cut = (options.truncate_at,) if options.truncate_at else ()
        self.sampling = Sampling(
            longest,
            temperature=options.temperature,
            num_samples=options.samples_per_prompt,
            seed=seed,
            stop_strings=cut,
        )
        self.evaluation_sampling = dataclasses.replace(self.sampling, num_samples=1)

    def __call__(
        self, slots: Sequence[Slot], store: Sequence[Group], prompts: Prompts, sampling=None
    ) -> tuple[list[Rollout], dict]:
        """Rollouts of this rank's `slots`, and seconds. A collective."""
        started = time.perf_counter()
        answered = self._generate([store[row].prompt.tolist() for _, row in slots], [s for s, _ in slots], sampling)
        found = [
            self._rollout(slot, row, store[row].prompt, completions)
            for (slot, row), completions in zip(slots, answered, strict=True)
        ]
        generated = time.perf_counter()
        self._measure(found, prompts)
        return found, {"generation_seconds": generated - started, "scoring_seconds": time.perf_counter() - generated}

    def _generate(self, prompts, numbers, sampling) -> list[list[Completion]]:
        options, stage3 = self.options, self.engine.stage == 3
        flip = not stage3 or options.enable_hybrid_engine
        with self.engine.flipped() if flip else contextlib.nullcontext():
            return generate(
                self.engine.module.model, self.renderer, prompts, sampling or self.sampling,
                options.generation_batch_size, rows=numbers, synced=not flip, backend=options.generation_backend,
                title="rollout",
            )  # fmt: skip

    def _rollout(self, slot: int, row: int, prompt: np.ndarray, completions: list[Completion]) -> Rollout:
        answers, texts, finished = [], [], []
        for c in completions:
            answers.append(c.tokens)
            ended = c.tokens[-1] in self.renderer.stop_token_ids
            cut = self.options.truncate_at
            if cut:  # the text that ends an answer belongs to it
                ended = c.finished and not ended
                texts.append(c.text + cut if ended else c.text)
            else:
                texts.append(c.text)
            finished.append(ended)
        old = np.concatenate([np.asarray(c.logprobs, np.float32) for c in completions])
        return Rollout(slot, row, group(prompt, answers), texts, finished, old)

    def _measure(self, found: list[Rollout], prompts: Prompts) -> None:
        groups = [r.group for r in found]
        if self.options.old_logprobs == "forward":
            self._note(found, "old", measure(self.engine, groups, packed=self.policy.packed, **self.limits))
        if self.reference is None:
            with self.policy.model.disable_adapter():
                self._note(found, "reference", measure(self.engine, groups, packed=self.policy.packed, **self.limits))
        else:
            model, packed = self.reference
            with self.held(model):
                self._note(found, "reference", measure(model, groups, packed=packed, **self.limits))
        if self.critic is not None:
            model, packed = self.critic
            self._note(found, "values", measure(model, groups, packed=packed, **self.limits))
        judged = [
            Judged(r.group, prompts.record(r.row, r.texts, r.finished) if self.with_text else None) for r in found
        ]
        for name, judge in (("scores", self.reward), ("truth", self.truth)):
            if judge is not None:
                self._note(found, name, [np.asarray(values, np.float32) for values in judge(judged)])

    def _note(self, found: list[Rollout], name: str, values: list[np.ndarray]) -> None:
        for rollout, value in zip(found, values, strict=True):
            setattr(rollout, name, value)


def shared_out(slots: Sequence[Slot]) -> list[Slot]:
    """This rank's part of the slots."""
    return list(slots[ranks.rank() :: ranks.world_size()])


def gathered(found: list[Rollout]) -> Experience:
    """Every rank's rollouts, in the order of their slots, on every rank."""
    return Experience(sorted((r for part in ranks.gather_objects(found) for r in part), key=lambda r: r.slot))


def steps_of(prompts: int, args: TrainingArguments, options: PPOArguments) -> int:
    """How many rollouts a run has. Raises UserError when there are too few prompts for one, or no step but warm-up."""
    steps = round(args.num_train_epochs * prompts) // options.prompts_per_rollout
    steps = args.max_steps if args.max_steps > 0 else steps
    if not steps:
        raise UserError(f"{prompts} prompts, fewer than --prompts_per_rollout {options.prompts_per_rollout}; lower it")
    if options.value_warmup >= steps:
        raise UserError(f"--value_warmup {options.value_warmup} of {steps} steps leaves the policy none; lower it")
    return steps


def slots_of(step: int, prompts: int, options: PPOArguments, seed: int) -> list[Slot]:
    """The prompts of a step: permutations of the data, one after the other, cut into rollouts."""
    numbers = range((step - 1) * options.prompts_per_rollout, step * options.prompts_per_rollout)
    epochs = {number // prompts for number in numbers}
    orders = {epoch: np.random.default_rng([seed, epoch]).permutation(prompts) for epoch in epochs}
    return [(number, int(orders[number // prompts][number % prompts])) for number in numbers]


def show(run: Run, renderer: Any, step: int, experience: Experience) -> None:
    """A table of a few prompts, answers and scores; all of them in samples-step-N.jsonl."""
    rows = []
    for r in experience.rollouts:
        rows.append({"prompt": renderer.tokenizer.decode(r.group.prompt), "answers": r.texts, "finished": r.finished})
        rows[-1] |= {n: getattr(r, n).tolist() for n in ("scores", "truth") if getattr(r, n) is not None}
    show_table(
        ("prompt", "answer", "score"),
        [(r["prompt"][-160:], r["answers"][0][:240], f"{r['scores'][0]:.3f}") for r in rows[:4]],
    )
    if ranks.rank() == 0 and not run.args.debug:
        write_jsonl(run.folder / f"samples-step-{step}.jsonl", rows)


def refuse_rollout(run: Run, step: int, row: dict[str, float], experience: Experience, skipped: int = 0) -> None:
    """refuse_nonfinite() of what a rollout gave, with the rollout written down."""
    rollouts = lambda: [  # noqa: E731 (made only when it is written)
        {"prompt": r.group.prompt.tolist(), "answers": [a.tolist() for a in r.group.answers], "scores": str(r.scores)}
        for r in experience.rollouts
    ]
    remedy = "lower --learning_rate or --critic_learning_rate, or clip scores (--score_clip)"
    refuse_nonfinite(run, step, row, lambda: {"rollouts": rollouts()}, remedy, skipped)
