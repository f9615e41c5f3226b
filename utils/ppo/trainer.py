"""The loop of learning from rollouts: answer prompts, judge, update, again; evaluation, tables, saving, exact resume.

A *step* is one rollout with all its updates: metrics.jsonl, --checkpoint_every, --eval_every and --max_steps count
steps. What is learned is passed in: `judge(experience)` makes advantages, learners turn a batch into one float32 loss a
token, averaged over the tokens of a minibatch of all ranks, as utils/training/trainer.py averages.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from utils.arguments.options import Interval
from utils.arguments.ppo import PPOArguments
from utils.engine import checkpoints, ranks
from utils.engine.deepspeed_engine import Engine
from utils.errors import UserError
from utils.model.batch import Batch
from utils.ppo.experience import Experience, facts_of
from utils.ppo.rollouts import Roller, gathered, refuse_rollout, shared_out, show, slots_of, steps_of
from utils.reporting import progress, say, write_json
from utils.training.ema import Average
from utils.training.nonfinite import take_step
from utils.training.plan import Plan, Step
from utils.training.run import Run
from utils.training.saving import save_model
from utils.training.trainer import averages

TABLE_EVERY = 10  # steps between tables of prompts, answers and scores
Learn = Callable[[Engine, Batch, Experience], tuple[Tensor, dict[str, Tensor]]]


@dataclass
class Learner:
    """An engine, what a batch teaches it, the first step it learns in, a further loss of its own (ptx), and what the
    names of its loss, gradient norm and learning rate begin with."""

    engine: Engine
    learn: Learn
    first_step: int = 1
    aside: Callable[[int], dict[str, float]] | None = None  # number of the update -> its metrics; runs its own backward
    prefix: str = ""


@dataclass
class OnlineTrainer:
    """Everything `fit` needs. `state`: objects whose attributes belong to a resume. learners[0] is the policy's."""

    run: Run
    options: PPOArguments
    learners: list[Learner]
    roll: Roller
    train: tuple[Any, Any]  # store, its prompts' text
    held_out: tuple[Any, Any]
    renderer: Any
    judge: Callable[[Experience], dict[str, float]]
    state: dict[str, Any]
    folders: dict[str, tuple[Engine, Any]] = field(default_factory=dict)  # further models to save, their renderers

    def fit(self) -> None:
        args, options = self.run.args, self.options
        self.engine, self.store = self.learners[0].engine, self.train[0]
        self.ema = Average(args.ema_decay) if args.ema_decay else None
        self.total = steps_of(len(self.store), args, options)
        done = self._resume()
        evaluation, saving = Interval.of(args.eval_every, "eval_every"), Interval.of(args.save_every, "save_every")
        self.steps_per_epoch = max(1, len(self.store) // options.prompts_per_rollout)
        k, world = options.samples_per_prompt, ranks.world_size()
        say(f"learning from rollouts: {self.total:,} of {options.prompts_per_rollout} prompts x {k} answers, "
            f"{options.updates} updates each, {world} rank{'s' * (world > 1)}")  # fmt: skip
        if done == 0 and args.eval_every != "never":
            self.run.report.log(0, self._evaluate(0))
        with progress("learning", self.total) as advance:
            advance(done)
            for step in range(done + 1, self.total + 1):
                row = self._step(step)
                last, epoch = step == self.total, step // self.steps_per_epoch * (step % self.steps_per_epoch == 0)
                if evaluation.due(step, epoch) or (last and args.eval_every != "never"):
                    row |= self._evaluate(step)
                self.run.report.log(step, row)
                advance(1, **{n: row[n] for n in ("score", "kl", "length") if n in row})
                if step % args.logging_steps == 0 or last:
                    say(f"step {step}/{self.total}  " + "  ".join(f"{k} {v:.4g}" for k, v in row.items()))
                if saving.due(step, epoch):
                    self._save(self.run.folder / (f"epoch-{epoch}" if saving.epochs else f"step-{step}"), row)
                if args.checkpoint_every and step % args.checkpoint_every == 0 and not last:
                    self._checkpoint(step)
        self._save(self.run.folder, None)
        self.run.finish(self.total)

    def _step(self, step: int) -> dict[str, float]:
        started = time.perf_counter()
        experience, seconds = self._rollout(step)
        row = self.judge(experience)
        refuse_rollout(self.run, step, row, experience)
        if step % TABLE_EVERY == 0 or step == 1:
            show(self.run, self.renderer, step, experience)
        for learner in self.learners:
            learner.engine.module.train()
        before = time.perf_counter()
        row |= self._update(step, experience)
        now = time.perf_counter()
        tokens = sum(experience.lengths)
        row |= seconds | {"training_seconds": now - before, "seconds": now - started, "tokens": float(tokens)}
        return row | {"tokens_per_second": tokens / (now - started)}

    def _rollout(self, step: int) -> tuple[Experience, dict[str, float]]:
        """The rollout of a step: made, or the one that a killed run had finished."""
        kept = self.run.checkpoints / f"rollout-{step:08d}.pt"
        if (found := ranks.from_rank_0(lambda: self._kept(kept))) is not None:
            say(f"the rollout of step {step} was finished before: it is not made again")
            return Experience(found), {"generation_seconds": 0.0, "scoring_seconds": 0.0}
        for learner in self.learners:
            learner.engine.module.eval()
        slots = slots_of(step, len(self.store), self.options, self.run.args.seed)
        mine, seconds = self.roll(shared_out(slots), *self.train)
        experience = gathered(mine)
        if self.run.args.checkpoint_every and not self.run.args.debug and ranks.rank() == 0:
            checkpoints.write(kept, {"facts": self.run.facts, "rollouts": experience.rollouts})
            for old in self.run.checkpoints.glob("rollout-*.pt"):
                if old != kept:
                    old.unlink(missing_ok=True)
        return experience, seconds

    def _kept(self, path):
        kept = checkpoints.read(path) if not self.run.args.debug else None
        return kept["rollouts"] if kept and kept["facts"] == self.run.facts else None

    def _update(self, step: int, experience: Experience) -> dict[str, float]:
        """Every PPO epoch's minibatches; the means of their metrics."""
        args, options = self.run.args, self.options
        plan = Plan(
            [r.group for r in experience.rollouts], [r.group.tokens for r in experience.rollouts], experience.units,
            per_device=args.per_device_train_batch_size, accumulation=1, token_budget=args.tokens_per_micro_batch,
            world=ranks.world_size(), seed=args.seed + step, epochs=options.ppo_epochs, max_steps=-1,
            per_step=-(-len(experience.rollouts) // options.minibatches),
        )  # fmt: skip
        rows: list[dict[str, float]] = []
        empty = 0
        for number in range(1, plan.total_steps + 1):
            part = plan.step(number, ranks.rank())
            row = self._minibatch(step, (step - 1) * options.updates + number, plan, part, experience)
            skipped = max(learner.engine.skipped_in_a_row for learner in self.learners)
            refuse_rollout(self.run, step, row, experience, skipped)
            rows.append(row)
            empty += not part.units
            if options.stop_update_kl and row.get("update_kl", 0.0) > options.stop_update_kl:
                break
        means = {name: float(np.mean([r[name] for r in rows if name in r])) for name in {n: 0 for r in rows for n in r}}
        first = {f"first_{name}": rows[0][name] for name in ("ratio_gap",) if name in rows[0]}
        return means | first | {"updates": float(len(rows)), "empty_updates": float(empty)}

    def _minibatch(self, step: int, update: int, plan: Plan, part: Step, experience: Experience) -> dict[str, float]:
        """One update. A learner without a token to learn from, and without a further loss, takes no optimizer step."""
        sums: dict[str, Tensor] = {}
        row: dict[str, float] = {}
        active = [learner for learner in self.learners if step >= learner.first_step and (part.units or learner.aside)]
        for micro in part.micro_batches if part.units else ():
            weight = micro.weight
            read = {learner.engine.module.packed for learner in active}  # one way, unless the critic's family cannot
            batches = {packed: plan.batch(micro, packed).to(ranks.device()) for packed in read}
            for learner in active:
                batch = batches[learner.engine.module.packed]
                learned, weights = (experience.of(batch, x) for x in (experience.learned, experience.weights))
                losses, metrics = learner.learn(learner.engine, batch, experience)
                losses = torch.where(learned, losses * weights, 0.0)
                # DeepSpeed averages over ranks: x world turns its mean of local sums into the global sum
                learner.engine.backward(losses.sum() * (weight * ranks.world_size() / part.units))
                found = {name: (torch.where(learned, values, 0.0), learned) for name, values in metrics.items()}
                found[f"{learner.prefix}loss"] = (losses, weights)
                for name, (values, counts) in found.items():
                    total = torch.stack((values.detach().double().sum(), counts.double().sum()))
                    sums[name] = sums.get(name, 0) + weight * total
        for learner in active:
            learned_before = (learner.first_step - 1) * self.options.updates
            row |= learner.aside(update - learned_before) if learner.aside else {}
        row |= averages(sums) if sums else {}
        for learner in active:
            row |= take_step(learner.engine, learner.prefix)
        if self.ema and self.learners[0] in active:
            self.ema.update(self.engine)
        return row

    def _evaluate(self, step: int) -> dict[str, float]:
        """One answer to each held-out prompt, judged."""
        for learner in self.learners:
            learner.engine.module.eval()
        store, prompts = self.held_out
        slots = shared_out([(row, row) for row in range(len(store))])
        if len(store) < ranks.world_size():
            raise UserError(
                f"{len(store)} held-out prompts for {ranks.world_size()} ranks; give more, or --eval_every never"
            )
        experience = gathered(self.roll(slots, store, prompts, self.roll.evaluation_sampling)[0])
        measured = {f"eval/{name}": value for name, value in facts_of(experience).items()}
        refuse_rollout(self.run, step, measured, experience)
        say(f"evaluation at step {step}: " + "  ".join(f"{k[5:]} {v:.4g}" for k, v in measured.items()), style="cyan")
        return measured

    def _save(self, folder, measured: dict[str, float] | None) -> None:
        """The policy as a folder that plain transformers loads; its average in ema/; the critic in critic/."""
        if self.run.args.debug:
            say("debug: nothing is saved")
            return
        rows = self.held_out[0]
        save_model(self.run, self.engine, self.renderer, folder, rows, self.ema)
        for name, (engine, renderer) in self.folders.items():
            save_model(self.run, engine, renderer, folder / name, rows)
        if measured is not None and ranks.rank() == 0:
            write_json(folder / "metrics.json", measured)
        ranks.barrier()

    def _others(self) -> dict[str, Engine]:
        return {f"engine-{n}": learner.engine for n, learner in enumerate(self.learners[1:], start=1)}

    def _checkpoint(self, step: int) -> None:
        if not self.run.args.debug:
            extra = {"ema": vars(self.ema) if self.ema else None, **{n: vars(o) for n, o in self.state.items()}}
            snapshot, keep_last = checkpoints.Snapshot(step, self.run.facts, extra), self.run.args.keep_last
            checkpoints.save(self.engine, self.run.checkpoints, snapshot, keep_last=keep_last, others=self._others())

    def _resume(self) -> int:
        found = self.run.resume_point()
        if found:
            extra = checkpoints.load(self.engine, self.run.checkpoints, found, self._others())
            for name, thing in self.state.items():
                vars(thing).update(extra[name])
            if self.ema:
                self.ema.restore(self.engine, extra["ema"])
            say(f"continuing after step {found}", style="green")
        else:
            ranks.seed_everything(self.run.args.seed + ranks.rank())
        self.run.report.start(found)
        return found
