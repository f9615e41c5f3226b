"""A step of PPO: answer prompts, ask the algorithm what the answers teach, update; and its evaluation.

A *step* is one rollout with all its updates: metrics.jsonl, --checkpoint_every, --eval_every and --max_steps count
steps. What is learned is handed in: `targets_of(experience)` makes advantages, learners turn a batch into one float32
loss a token, averaged over the tokens of a minibatch of all ranks, as utils/training/steps.py averages.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from utils.arguments.ppo import PPOArguments
from utils.engine import checkpoints, ranks
from utils.errors import UserError
from utils.ppo.experience import Experience, Rollout, Targets, experience_of, summary_of, units_of
from utils.ppo.learning import Learner, Minibatch
from utils.ppo.rewards import PromptSet
from utils.ppo.rollouts import RolloutMaker, Slot, gathered, shared_out, show, slots_of, steps_of
from utils.reporting import say
from utils.training.nonfinite import refuse_nonfinite, take_step
from utils.training.plan import Division, Plan
from utils.training.stage import Stage
from utils.training.steps import averages

TABLE_EVERY = 10  # steps between tables of prompts, answers and scores
# A kept rollout with other fields is another version's.
ROLLOUT_FIELDS = [field.name for field in dataclasses.fields(Rollout)]


@dataclass
class RolloutSteps:
    """The steps of PPO, as a Trainer takes them.

    Args:
        stage: the run and the policy that it trains.
        options: the options of PPO.
        maker: answers prompts.
        train: the prompts that are learned from.
        held_out: the prompts of the evaluation.
        targets_of: what an experience teaches: advantages and returns.
        learners: what learns; the first is the policy's.
        after_update: called after each optimizer step of the policy.
    """

    title, evaluation_in_row, checkpoint_at_epochs = "learning", True, False

    stage: Stage
    options: PPOArguments
    maker: RolloutMaker
    train: PromptSet
    held_out: PromptSet
    targets_of: Callable[[Experience], Targets]
    learners: list[Learner]
    after_update: Callable[[], None]

    def __post_init__(self) -> None:
        self.run = self.stage.run
        self.total_steps = steps_of(len(self.train), self.run.args, self.options)
        self.steps_per_epoch = max(1, len(self.train) // self.options.prompts_per_rollout)

    def opening(self) -> str:
        """Return the line that is printed before the first step."""
        options, world = self.options, ranks.world_size()
        answers = f"{options.prompts_per_rollout} prompts x {options.samples_per_prompt} answers"
        updates = f"{options.updates} updates each"
        return f"learning from rollouts: {self.total_steps:,} of {answers}, {updates}, {world} rank{'s' * (world > 1)}"

    def columns(self, row: dict[str, float]) -> dict[str, float]:
        """Return score, KL to the reference and length."""
        return {"score": row["score"], "kl": row["kl"], "length": row["length"]}

    def epoch_ended(self, number: int) -> int | None:
        """Return the number of the pass over the prompts that a step ended, if it ended one."""
        epochs, rest = divmod(number, self.steps_per_epoch)
        return None if rest else epochs

    def take(self, number: int) -> dict[str, float]:
        """Take a step and return its row for metrics.jsonl."""
        started = time.perf_counter()
        experience, seconds = self._rollout(number)
        targets = self.targets_of(experience)
        row = dict(targets.metrics)
        self._refuse_nonfinite(number, row, experience)
        if number % TABLE_EVERY == 0 or number == 1:
            show(self.run, self.maker.renderer, number, experience)
        for learner in self.learners:
            learner.engine.module.train()
        before = time.perf_counter()
        row |= self.update(number, experience, targets)
        now = time.perf_counter()
        tokens = sum(experience.lengths)
        row |= seconds | {"training_seconds": now - before, "seconds": now - started, "tokens": float(tokens)}
        return row | {"tokens_per_second": tokens / (now - started)}

    def _rollout(self, step: int) -> tuple[Experience, dict[str, float]]:
        """Return the rollout of a step and its seconds: made, or the one that a killed run had finished."""
        kept = self.run.checkpoints / f"rollout-{step:08d}.pt"
        found = ranks.from_rank_0(lambda: self._kept(kept))
        if found is not None:
            say(f"the rollout of step {step} was finished before: it is not made again")
            return experience_of(found), {"generation_seconds": 0.0, "scoring_seconds": 0.0}
        for learner in self.learners:
            learner.engine.module.eval()
        slots = shared_out(slots_of(step, len(self.train), self.options, self.run.args.seed))
        mine, seconds = self.maker.make(slots, self.train, self.options.samples_per_prompt)
        experience = gathered(mine)
        # Generation takes most of a step: killed later in it, the run goes on from here.
        if self.run.args.checkpoint_every and not self.run.args.debug and ranks.rank() == 0:
            value = {"facts": self.run.facts, "fields": ROLLOUT_FIELDS, "rollouts": experience.rollouts}
            checkpoints.write(kept, value)
            for old in self.run.checkpoints.glob("rollout-*.pt"):
                if old != kept:
                    old.unlink(missing_ok=True)
        return experience, seconds

    def _kept(self, path: Path) -> list[Rollout] | None:
        """Return the rollouts of this very run in a file; None for another run's or another version's."""
        kept = None
        if not self.run.args.debug:
            kept = checkpoints.read(path)
        if kept and kept["facts"] == self.run.facts and kept.get("fields") == ROLLOUT_FIELDS:
            return kept["rollouts"]
        return None

    def update(self, step: int, experience: Experience, targets: Targets) -> dict[str, float]:
        """Learn from the minibatches of every PPO epoch; return the means of their metrics."""
        args, options = self.run.args, self.options
        groups = [rollout.group for rollout in experience.rollouts]
        # The seed moves on with the step: otherwise every rollout would be cut into minibatches in the same way.
        division = Division(
            per_step=-(-len(groups) // options.minibatches),
            per_device=args.per_device_train_batch_size,
            token_budget=args.tokens_per_micro_batch,
            world=ranks.world_size(),
            seed=args.seed + step,
        )
        units = units_of(experience, targets.weights)
        plan = Plan(groups, [group.tokens for group in groups], units, division, options.ppo_epochs)
        rows: list[dict[str, float]] = []
        empty = 0
        for number in range(1, plan.total_steps + 1):
            share = plan.step(number, ranks.rank())
            update = (step - 1) * options.updates + number
            row = self._minibatch(step, update, Minibatch(plan, share, experience, targets))
            skipped = max(learner.engine.skipped_in_a_row for learner in self.learners)
            self._refuse_nonfinite(step, row, experience, skipped)
            rows.append(row)
            empty += not share.units
            # the policy has moved too far for the ratios to be trusted
            if options.stop_update_kl and row.get("update_kl", 0.0) > options.stop_update_kl:
                break
        means = _means(rows)
        if "ratio_gap" in rows[0]:
            means["first_ratio_gap"] = rows[0]["ratio_gap"]
        return means | {"updates": float(len(rows)), "empty_updates": float(empty)}

    def _minibatch(self, step: int, update: int, minibatch: Minibatch) -> dict[str, float]:
        """Take one update. A learner without a token to learn from, and without a further loss, takes no step.

        Args:
            step: number of the rollout.
            update: number of the update in the run.
            minibatch: what is learned from.
        """
        units, row = minibatch.share.units, {}
        active = [learner for learner in self.learners if step >= learner.first_step and (units or learner.aside)]
        sums: dict[str, Tensor] = {}
        # one way of laying rows out, unless the critic's family cannot read packed ones
        layouts = {learner.engine.module.packed for learner in active}
        for micro in minibatch.share.micro_batches:
            # Every answer is masked.
            if not units:
                break
            batches = {packed: minibatch.plan.batch(micro, packed).to(ranks.device()) for packed in layouts}
            for learner in active:
                batch = batches[learner.engine.module.packed]
                for name, found in minibatch.backward(learner, batch).items():
                    sums[name] = sums.get(name, 0) + found
        for learner in active:
            if learner.aside:
                learned_before = (learner.first_step - 1) * self.options.updates
                row |= learner.aside(update - learned_before)
        if sums:
            row |= averages(sums)
        for learner in active:
            row |= take_step(learner.engine, learner.prefix)
        if self.learners[0] in active:
            self.after_update()
        return row

    def evaluate(self, step: int, epoch: int | None = None) -> dict[str, float]:
        """Answer each held-out prompt once; return the means of score, KL, length and so on."""
        prompts = len(self.held_out)
        if prompts < ranks.world_size():
            raise UserError(
                f"{prompts} held-out prompts for {ranks.world_size()} ranks; give more, or --eval_every never"
            )
        # The same numbers, hence the same draws at every evaluation: between two of them only the policy differs.
        slots = shared_out([Slot(row, row) for row in range(prompts)])
        rollouts, _ = self.maker.make(slots, self.held_out, samples=1)
        self._evaluated = gathered(rollouts)
        return summary_of(self._evaluated)

    def refuse_evaluation(self, number: int, measured: dict[str, float]) -> None:
        """Raise UserError when a number of the last evaluation is not finite."""
        self._refuse_nonfinite(number, measured, self._evaluated)

    def _refuse_nonfinite(self, step: int, row: dict[str, float], experience: Experience, skipped: int = 0) -> None:
        def evidence() -> dict[str, Any]:
            rollouts = []
            for rollout in experience.rollouts:
                prompt, answers = rollout.group.prompt.tolist(), [a.tolist() for a in rollout.group.answers]
                rollouts.append({"prompt": prompt, "answers": answers, "scores": str(rollout.scores)})
            return {"rollouts": rollouts}

        remedy = "lower --learning_rate or --critic_learning_rate, or clip scores (--score_clip)"
        refuse_nonfinite(self.run, step, row, evidence, remedy, skipped=skipped)


def _means(rows: list[dict[str, float]]) -> dict[str, float]:
    """Return the mean of each number over the rows that have it, in the order in which they came."""
    found: dict[str, list[float]] = {}
    for row in rows:
        for name, value in row.items():
            found.setdefault(name, []).append(value)
    return {name: float(np.mean(values)) for name, values in found.items()}
