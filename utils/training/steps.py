"""A training step on given answers: what SFT, reward models and DPO share.

What a stage teaches is handed in as `learn(model, batch) -> (losses, metrics)`: one float32 loss per unit (a trained
token, or a pair) and named tensors of one number per unit. A step averages both over the *global* batch, so that
(batch 8 x accumulation 1), (4 x 2), (1 x 8) and two ranks x 4 give the same gradient.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from utils.engine import ranks
from utils.engine.speed import Meter
from utils.model.adapted import plain
from utils.model.batch import Batch
from utils.training.nonfinite import refuse_nonfinite, take_step
from utils.training.plan import MicroBatch, Plan
from utils.training.stage import Stage

Learn = Callable[[Any, Batch], tuple[Tensor, dict[str, Tensor]]]


@dataclass(frozen=True)
class Look:
    """What has to be known of every unit of the global batch before its first backward.

    Args:
        see: (model, batch) -> numbers of the batch's units by name, [units, numbers], each row of one unit.
        settle: (the numbers of all units, whether this is training) -> None. Every rank is given the same.
    """

    see: Callable[[Any, Batch], dict[str, Tensor]]
    settle: Callable[[dict[str, Tensor], bool], None]

    def take(self, model: Any, batches: Iterable[Batch], training: bool = True) -> None:
        """See all batches of all ranks, without gradients; those of weight 0 do not count. A collective."""
        mine: list[dict[str, Tensor]] = []
        with torch.no_grad():
            for batch in batches:
                seen = self.see(model, batch)
                if batch.weight:
                    mine.append({name: values.cpu() for name, values in seen.items()})
        every = [seen for of_rank in ranks.gather_objects(mine) for seen in of_rank]
        self.settle({name: torch.cat([seen[name] for seen in every]).to(ranks.device()) for name in every[0]}, training)


class OfflineSteps:
    """The steps of a plan, as a Trainer takes them.

    Args:
        stage: the run and the model that it trains.
        plan: which groups make which step.
        learn: what a batch teaches.
        after_update: called after each optimizer step.
        check_first: given the row of the first step before its update; raises UserError when the loss is not what it
            must be.
        look: for losses that look at the whole global batch first.
    """

    title, evaluation_in_row, checkpoint_at_epochs = "training", False, True

    def __init__(
        self, stage: Stage, plan: Plan, learn: Learn, after_update: Callable[[], None],
        check_first: Callable[[dict[str, float]], None] | None = None, look: Look | None = None,
    ) -> None:  # fmt: skip
        self.stage, self.engine, self.plan, self.learn = stage, stage.engine, plan, learn
        self.after_update, self.check_first, self.look = after_update, check_first, look
        self.total_steps, self.epoch_ended = plan.total_steps, plan.epoch_ended
        dtype = torch.bfloat16 if stage.run.args.bf16 else torch.float32
        self._meter = Meter(plain(self.engine.module.model), dtype, ranks.device())

    def opening(self) -> str:
        """Return the line that is printed before the first step."""
        plan, world = self.plan, ranks.world_size()
        steps = f"{plan.total_steps:,} steps of {plan.per_step}"
        return f"training: {len(plan.groups):,} prompts, {steps}, {world} rank{'s' * (world > 1)}"

    def columns(self, row: dict[str, float]) -> dict[str, Any]:
        """Return loss, tokens per second and share of the GEMM limit."""
        return {"loss": row["loss"], "tok_s": int(row["tokens_per_second"]), "gemm": f"{row['gemm_share']:.0%}"}

    def take(self, number: int) -> dict[str, float]:
        """Take a step and return its row for metrics.jsonl."""
        start = time.perf_counter()
        row = self.update(number)
        seconds, trained = time.perf_counter() - start, row.pop("trained_tokens")
        share = self._meter.share(row["tokens"], trained, seconds, ranks.world_size())
        return row | {"seconds": seconds, "tokens_per_second": row["tokens"] / seconds, "gemm_share": share}

    def update(self, number: int) -> dict[str, float]:
        """Take one optimizer step: forward and backward over this rank's share, reduce, update.

        Returns:
            The means of loss and metrics over the global batch, learning rate, gradient norm, the epochs so far, and
            the step's tokens, of all ranks together.
        """
        step = self.plan.step(number, ranks.rank())
        sums: dict[str, Tensor] = {}
        if self.look:
            self.look.take(self.engine, map(self._batch, step.micro_batches))
        for micro in step.micro_batches:
            batch, weight = self._batch(micro), micro.weight
            losses, metrics = self.learn(self.engine, batch)
            # DeepSpeed averages over ranks: x world turns its mean of local sums into the global sum.
            self.engine.backward(losses.sum() * (weight * ranks.world_size() / step.units))
            for name, values in {"loss": losses, **metrics}.items():
                total = values.detach().double().sum()
                sums[name] = sums.get(name, 0) + weight * torch.stack((total, torch.full_like(total, values.numel())))
        row = averages(sums)
        # Before the update: a loss that is not finite must not reach the weights.
        self._refuse_nonfinite(number, row, step.micro_batches)
        if number == 1 and self.check_first:
            self.check_first(row)
        row |= take_step(self.engine)
        self._refuse_nonfinite(number, row, step.micro_batches)
        self.after_update()
        row["epoch"] = number / self.plan.steps_per_epoch
        row["tokens"], row["trained_tokens"] = step.tokens, step.units
        return row

    def _batch(self, micro: MicroBatch) -> Batch:
        return self.plan.batch(micro, self.engine.module.packed).to(ranks.device())

    def _refuse_nonfinite(self, number: int, row: dict[str, float], micro_batches: list[MicroBatch]) -> None:
        def rows() -> dict[str, Any]:
            return {"rows": [micro.rows for micro in micro_batches]}

        remedy = "look at its rows, or lower --learning_rate"
        refuse_nonfinite(self.stage.run, number, row, rows, remedy, skipped=self.engine.skipped_in_a_row)

    def refuse_evaluation(self, number: int, measured: dict[str, float]) -> None:
        """Raise UserError when a number of an evaluation is not finite."""
        count = {"held_out_rows": len(self.stage.held_out)}
        remedy = "look at the held-out data, or lower --learning_rate"
        refuse_nonfinite(self.stage.run, number, measured, lambda: count, remedy)


def averages(sums: dict[str, Tensor]) -> dict[str, float]:
    """Return the global mean of every metric, from each rank's (sum, count); one without any number is left out."""
    table = torch.stack(list(sums.values()))
    if ranks.world_size() > 1:
        torch.distributed.all_reduce(table)
    found = {}
    for name, (total, count) in zip(sums, table.tolist(), strict=True):
        if count:
            found[name] = total / count
    return found
