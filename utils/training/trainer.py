"""The loop that SFT, reward models and DPO share: steps, evaluation, saving, exact resume.

What a stage teaches is passed in as `learn(model, batch) -> (losses, metrics)`: one float32 loss per unit (a trained
token, or a pair) and named tensors of one number per unit. The loop averages both over the *global* batch, so that
(batch 8 x accumulation 1), (4 x 2), (1 x 8) and two ranks x 4 give the same gradient.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from utils.arguments.options import Interval, TrainingArguments
from utils.engine import checkpoints, ranks
from utils.engine.deepspeed_engine import Engine
from utils.engine.speed import Meter
from utils.errors import UserError
from utils.model.batch import Batch
from utils.model.lora import plain
from utils.model.passes import Passes, limits_of
from utils.reporting import progress, say, write_json
from utils.tokens.group import Group, sizes_of
from utils.training.ema import Average
from utils.training.nonfinite import refuse_nonfinite, take_step
from utils.training.plan import Plan
from utils.training.run import Run
from utils.training.saving import save_model

Learn = Callable[[Any, Batch], tuple[Tensor, dict[str, Tensor]]]


def make_plan(groups: Sequence[Group], args: TrainingArguments, unit: Literal["token", "pair"]) -> Plan:
    """The plan of a training set whose loss is averaged over trained tokens, or over pairs."""
    accumulation = args.gradient_accumulation_steps or 1
    if args.global_batch_size is not None:
        at_once = args.per_device_train_batch_size * ranks.world_size()
        accumulation, rest = divmod(args.global_batch_size, at_once)
        if rest or not accumulation:
            raise UserError(
                f"--global_batch_size {args.global_batch_size} is not a multiple of --per_device_train_batch_size "
                f"{args.per_device_train_batch_size} x {ranks.world_size()} ranks = {at_once}"
            )
    tokens, trained_tokens, pairs = sizes_of(groups)
    return Plan(
        groups, tokens, pairs if unit == "pair" else trained_tokens,
        per_device=args.per_device_train_batch_size, accumulation=accumulation,
        token_budget=args.tokens_per_micro_batch, world=ranks.world_size(), seed=args.seed,
        epochs=args.num_train_epochs, max_steps=args.max_steps, keep_pairs=unit == "pair",
    )  # fmt: skip


@dataclass
class Trainer:
    """Everything `fit` needs. `evaluate(step, epoch)` returns numbers for the log; `first_step(loss, metrics)` may
    refuse a run whose first loss is not what it must be; on `held_out` a merged adapter is compared with itself."""

    run: Run
    engine: Engine
    plan: Plan
    groups: Sequence[Group]
    learn: Learn
    renderer: Any
    evaluate: Callable[[int, int | None], dict[str, float]]
    first_step: Callable[[float, dict[str, float]], None] = lambda loss, metrics: None
    held_out: Sequence[Group] = ()

    def fit(self) -> None:
        """Train to the end of the plan, from the newest checkpoint if there is one, and save the model."""
        args, plan = self.run.args, self.plan
        self.ema = Average(args.ema_decay) if args.ema_decay else None
        done = self._resume()
        evaluation, saving = Interval.of(args.eval_every, "eval_every"), Interval.of(args.save_every, "save_every")
        model = plain(self.engine.module.model)
        meter = Meter(model, torch.bfloat16 if args.bf16 else torch.float32, ranks.device())
        steps, world = f"{plan.total_steps:,} steps of {plan.per_step}", ranks.world_size()
        say(f"training: {len(self.groups):,} prompts, {steps}, {world} rank{'s' * (world > 1)}")
        self.engine.module.train()
        if done == 0 and args.eval_every != "never":
            self.run.report.log(0, self._evaluate(0, 0))
        with progress("training", plan.total_steps) as advance:
            advance(done)
            for step in range(done + 1, plan.total_steps + 1):
                start = time.perf_counter()
                row = self._step(step)
                row["seconds"] = time.perf_counter() - start
                row["tokens_per_second"] = row["tokens"] / row["seconds"]
                row["gemm_share"] = meter.share(
                    row["tokens"], row.pop("trained_tokens"), row["seconds"], ranks.world_size()
                )
                advance(1, loss=row["loss"], tok_s=int(row["tokens_per_second"]), gemm=f"{row['gemm_share']:.0%}")
                epoch = plan.epoch_ended(step)
                last = step == plan.total_steps
                measured = {}
                if evaluation.due(step, epoch) or (last and args.eval_every != "never"):
                    measured = self._evaluate(step, epoch)
                self.run.report.log(step, {**row, **measured})
                if step % args.logging_steps == 0 or last:
                    say(f"step {step}/{plan.total_steps}  " + "  ".join(f"{k} {v:.4g}" for k, v in row.items()))
                if saving.due(step, epoch):
                    self._save_for_choosing(step, epoch if saving.epochs else None, measured)
                if args.checkpoint_every and (step % args.checkpoint_every == 0 or epoch) and not last:
                    self._checkpoint(step)
        self.save(self.run.folder)
        self.run.finish(plan.total_steps)

    def _step(self, number: int) -> dict[str, float]:
        """One optimizer step: forward and backward over this rank's share, reduce, update."""
        step = self.plan.step(number, ranks.rank())
        sums: dict[str, Tensor] = {}
        for micro in step.micro_batches:
            batch, weight = self.plan.batch(micro, self.engine.module.packed).to(ranks.device()), micro.weight
            losses, metrics = self.learn(self.engine, batch)
            # DeepSpeed averages over ranks: x world turns its mean of local sums into the global sum
            self.engine.backward(losses.sum() * (weight * ranks.world_size() / step.units))
            for name, values in {"loss": losses, **metrics}.items():
                total = values.detach().double().sum()
                sums[name] = sums.get(name, 0) + weight * torch.stack((total, torch.full_like(total, values.numel())))
        row = averages(sums)
        self._refuse_nonfinite(number, row, step.micro_batches)
        if number == 1:
            self.first_step(row["loss"], row)
        row |= take_step(self.engine)
        self._refuse_nonfinite(number, row, step.micro_batches)
        if self.ema:
            self.ema.update(self.engine)
        row["epoch"] = number / self.plan.steps_per_epoch
        row["tokens"], row["trained_tokens"] = step.tokens, step.units
        return row

    def _refuse_nonfinite(self, number: int, row: dict[str, float], micro_batches: list) -> None:
        rows = lambda: {"rows": [micro.rows for micro in micro_batches]}  # noqa: E731 (made only when it is written)
        remedy = "look at its rows, or lower --learning_rate"
        refuse_nonfinite(self.run, number, row, rows, remedy, self.engine.skipped_in_a_row)

    def _evaluate(self, step: int, epoch: int | None) -> dict[str, float]:
        self.engine.module.eval()
        measured = {f"eval/{name}": value for name, value in self.evaluate(step, epoch).items()}
        self.engine.module.train()
        remedy = "look at the held-out data, or lower --learning_rate"
        refuse_nonfinite(self.run, step, measured, lambda: {"held_out_rows": len(self.held_out)}, remedy)
        if measured:
            say(
                f"evaluation at step {step}: " + "  ".join(f"{k[5:]} {v:.4g}" for k, v in measured.items()),
                style="cyan",
            )
        return measured

    def _save_for_choosing(self, step: int, epoch: int | None, measured: dict[str, float]) -> None:
        folder = self.run.folder / (f"epoch-{epoch}" if epoch else f"step-{step}")
        if self.run.args.debug:
            return
        self.save(folder)
        if ranks.rank() == 0:
            write_json(folder / "metrics.json", {"step": step, **measured})

    def save(self, folder) -> None:
        """The model as a folder that plain transformers loads; with EMA, another in ema/."""
        if self.run.args.debug:
            say("debug: nothing is saved")
            return
        save_model(self.run, self.engine, self.renderer, folder, self.held_out, self.ema)

    def _checkpoint(self, step: int) -> None:
        if not self.run.args.debug:
            extra = vars(self.ema) if self.ema else None
            snapshot = checkpoints.Snapshot(step, self.run.facts, extra)
            checkpoints.save(self.engine, self.run.checkpoints, snapshot, keep_last=self.run.args.keep_last)

    def _resume(self) -> int:
        """Load the newest checkpoint of this very run; returns its step, 0 for none."""
        found = self.run.resume_point()
        if found:
            extra = checkpoints.load(self.engine, self.run.checkpoints, found)
            if self.ema:
                self.ema.restore(self.engine, extra)
            say(f"continuing after step {found}", style="green")
        else:
            ranks.seed_everything(self.run.args.seed + ranks.rank())  # dropout differs from rank to rank
        self.run.report.start(found)
        return found


def evaluate(model, scorer, groups: Sequence[Group], learn: Learn, args: TrainingArguments) -> dict[str, np.ndarray]:
    """`learn` over all groups without training: every number, in row order, gathered from all ranks."""
    passes = Passes(groups, **limits_of(args), packed=scorer.packed, keep_pairs=True)
    turns = -(-len(passes) // ranks.world_size())
    found: list[tuple[int, dict[str, np.ndarray]]] = []
    with torch.no_grad(), progress("evaluation", turns) as advance:
        for turn in range(turns):
            number = turn * ranks.world_size() + ranks.rank()
            # a rank without a pass repeats the last: collectives match
            losses, metrics = learn(model, passes[min(number, len(passes) - 1)])
            if number < len(passes):
                found.append((number, {k: v.double().cpu().numpy() for k, v in {"loss": losses, **metrics}.items()}))
            advance()
    ordered = [
        part for _, part in sorted((p for rank in ranks.gather_objects(found) for p in rank), key=lambda p: p[0])
    ]
    return {name: np.concatenate([part[name] for part in ordered]) for name in ordered[0]}


def averages(sums: dict[str, Tensor]) -> dict[str, float]:
    """Global mean of every metric, from each rank's (sum, count); a metric without any number is left out."""
    table = torch.stack(list(sums.values()))
    if ranks.world_size() > 1:
        torch.distributed.all_reduce(table)
    return {name: total / count for name, (total, count) in zip(sums, table.tolist(), strict=True) if count}
