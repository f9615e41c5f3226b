"""The trainer of every stage: steps, evaluation, saved models, checkpoints and exact resume.

What one step does is handed in as `steps`: on given answers (utils/training/steps.py) or on rollouts of the policy
(utils/ppo/steps.py). What a run does besides is handed in as `extras` (utils/training/extras).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from utils.arguments.options import Interval
from utils.engine import checkpoints, ranks
from utils.engine.deepspeed_engine import Engine
from utils.reporting import progress, say, write_json
from utils.training.extras import Extras
from utils.training.saving import save_model
from utils.training.stage import Stage

Numbers = dict[str, float]


class Steps(Protocol):
    """One kind of training: what a step does, and how it is reported."""

    title: str  # of the progress bar
    total_steps: int
    evaluation_in_row: bool  # whether the evaluation of a step belongs to the step's row on screen and in metrics.json
    checkpoint_at_epochs: bool  # of few prompts every rollout ends an epoch, and checkpoints take time

    def opening(self) -> str:
        """Return the line that is printed before the first step."""

    def take(self, number: int) -> Numbers:
        """Take step `number` (from 1) and return its row for metrics.jsonl."""

    def epoch_ended(self, number: int) -> int | None:
        """Return the number (from 1) of the epoch that step `number` ended, if it ended one."""

    def columns(self, row: Numbers) -> dict[str, Any]:
        """Return the numbers that stand beside the progress bar."""

    def refuse_evaluation(self, number: int, measured: Numbers) -> None:
        """Raise UserError when a number of an evaluation is not finite."""


@dataclass(frozen=True)
class Companion:
    """A further model in training, and the renderer whose tokenizer and template are saved with it."""

    engine: Engine
    renderer: Any


@dataclass
class Trainer:
    """A run from its newest checkpoint, if there is one, to the saved models.

    Args:
        stage: the run and the model that it trains.
        steps: what one step does.
        evaluate: (step, the epoch that it ended) -> numbers of the held-out data.
        extras: what the run does besides.
        state: objects whose attributes a checkpoint keeps, by name.
        others: further models in training, by their folder inside the run's.
    """

    stage: Stage
    steps: Steps
    evaluate: Callable[[int, int | None], Numbers]
    extras: Extras
    state: dict[str, Any] = field(default_factory=dict)
    others: dict[str, Companion] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.run, self.engine = self.stage.run, self.stage.engine
        engines = [other.engine for other in self.others.values()]
        self._other_engines = {f"engine-{n}": engine for n, engine in enumerate(engines, start=1)}
        self._modules = [engine.module for engine in (self.engine, *engines)]
        self._kept = self.state | self.extras.states()

    def fit(self) -> None:
        """Train to the last step and save."""
        steps, report = self.steps, self.run.report
        done = self._resume()
        say(steps.opening())
        for module in self._modules:
            module.train()
        if done == 0 and self.run.args.eval_every != "never":
            report.log(0, self._evaluate(0, 0))
        with progress(steps.title, steps.total_steps) as advance:
            advance(done)
            for number in range(done + 1, steps.total_steps + 1):
                row = steps.take(number)
                advance(1, **steps.columns(row))
                self._finish_step(number, row)
        self._save(self.run.folder)
        self.run.finish(steps.total_steps)

    def _finish_step(self, step: int, row: Numbers) -> None:
        """Evaluate, log, save and write a checkpoint where the options ask for it after this step."""
        args, last, epoch = self.run.args, step == self.steps.total_steps, self.steps.epoch_ended(step)
        evaluation, saving = Interval.of(args.eval_every, "eval_every"), Interval.of(args.save_every, "save_every")
        measured: Numbers = {}
        if evaluation.due(step, epoch) or (last and args.eval_every != "never"):
            measured = self._evaluate(step, epoch)
        self.run.report.log(step, {**row, **measured})
        saved = {"step": step, **measured}
        if self.steps.evaluation_in_row:
            row = saved = {**row, **measured}
        if step % args.logging_steps == 0 or last:
            say(f"step {step}/{self.steps.total_steps}  {in_words(row)}")
        if saving.due(step, epoch):
            name = f"epoch-{epoch}" if saving.epochs else f"step-{step}"
            self._save(self.run.folder / name, saved)
        epoch_due = epoch and self.steps.checkpoint_at_epochs
        # Not after the last step: the saved models and finished.json take its place.
        if args.checkpoint_every and (step % args.checkpoint_every == 0 or epoch_due) and not last:
            self._checkpoint(step)

    def _evaluate(self, step: int, epoch: int | None) -> Numbers:
        """Return the numbers of the held-out data and of the extras, each named eval/…"""
        for module in self._modules:
            module.eval()
        found = self.evaluate(step, epoch) | self.extras.at_evaluation(step, epoch)
        for module in self._modules:
            module.train()
        measured = {f"eval/{name}": value for name, value in found.items()}
        self.steps.refuse_evaluation(step, measured)
        if found:
            say(f"evaluation at step {step}: {in_words(found)}", style="cyan")
        return measured

    def _save(self, folder: Path, numbers: Numbers | None = None) -> None:
        """Write every model to its place in `folder`, for plain transformers; `numbers`: to metrics.json beside it."""
        if self.run.args.debug:
            say("debug: nothing is saved")
            return
        save_model(self.engine, self.stage.renderer, folder, self.extras.after_saving)
        for name, other in self.others.items():
            save_model(other.engine, other.renderer, folder / name, self.extras.after_saving)
        if numbers is not None and ranks.rank() == 0:
            write_json(folder / "metrics.json", numbers)

    def _checkpoint(self, step: int) -> None:
        if self.run.args.debug:
            return
        extra = {name: vars(thing) for name, thing in self._kept.items()}
        checkpoints.save(
            self.engine,
            self.run.checkpoints,
            checkpoints.Snapshot(step, self.run.facts, extra),
            keep_last=self.run.args.keep_last,
            others=self._other_engines,
        )

    def _resume(self) -> int:
        """Load the newest checkpoint of this very run; return its step, or 0 without one."""
        found = self.run.resume_point()
        if found:
            extra = checkpoints.load(self.engine, self.run.checkpoints, found, self._other_engines)
            for name, thing in self._kept.items():
                # An earlier version kept nothing of an offline stage but its average, without a name.
                vars(thing).update(extra.get(name, extra))
            say(f"continuing after step {found}", style="green")
        else:
            # dropout differs from rank to rank
            ranks.seed_everything(self.run.args.seed + ranks.rank())
        self.run.report.start(found)
        return found


def in_words(numbers: Numbers) -> str:
    """Return numbers as a line for the screen."""
    return "  ".join(f"{name} {value:.4g}" for name, value in numbers.items())
