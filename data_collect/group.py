"""Problems grouped by how hard they are for a model, each group with the kind of feedback to ask for.

    python data_collect/group.py --answers answers-7b-ppl.jsonl answers-13b.jsonl --base_models vicuna-7b,vicuna-13b \\
        --output_path data_collect/data/initial_answers/group.txt

The first file is what inference/chatbot.py --mode ppl wrote: its losses decide. The second holds another model's
answers to the same prompts. The output is what data_collect/request.py reads.
"""

from __future__ import annotations

from argparse import ArgumentParser
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

try:
    import utils.errors  # noqa: F401
except ImportError:
    ArgumentParser().exit(2, "error: no environment is active; at the project's root: source training/environment.sh\n")

from utils.arguments import parse
from utils.arguments.options import option, overwriting, required
from utils.errors import UserError
from utils.feedback.difficulty import KINDS, LEVELS, Answered, grouped_row, joined, levels, random_levels, read_answered
from utils.outputs import claim
from utils.records.files import write_jsonl
from utils.reporting import run_program, say, warn, write_json
from utils.tables import aligned


@dataclass
class GroupArguments:
    answers: list[str] = required(
        "answers of the model that is to learn, with its losses; then of other models", title="Files"
    )
    output_path: str = required("file to write, JSON Lines")
    base_models: str | None = option(
        help="names of the models of --answers, as a,b; None: those of the records, or the files' names",
        aliases=["--base_model"],
    )
    assign: str = option(
        "crp", help="feedback for easy, medium, hard; c critique, r refinement, p preference", title="Groups"
    )
    quantiles: list[float] = option([], help="two shares to cut at, as 0.2 0.5; None: thirds")
    per_task: bool = option(False, help="cut every task by itself instead of all together")
    random: bool = option(False, help="draw groups of the same sizes at random; a baseline")
    seed: int = option(42, help="seed of --random")
    summary: str | None = option(help="JSON file for sizes and statistics", title="Files")
    overwrite: bool = overwriting()

    def __post_init__(self) -> None:
        if len(self.assign) != 3 or set(self.assign) - set(KINDS):
            raise UserError(f"--assign is {self.assign!r}; expected three letters of c, r, p, as crp")
        ordered = len(self.quantiles) == 2 and 0 <= self.quantiles[0] <= self.quantiles[1] <= 1
        if self.quantiles and not ordered:
            found = " ".join(map(str, self.quantiles))
            raise UserError(f"--quantiles {found}: expected two shares from 0 to 1, ascending")
        if self.seed != 42 and not self.random:
            raise UserError("--seed is used by --random alone; leave it out")
        if "p" in self.assign and len(self.answers) < 2:
            raise UserError(
                "--answers names one file; a preference (p of --assign) needs the answers of a second model"
            )


def main(argv: list[str] | None = None) -> None:
    """Group problems."""
    (args,) = parse([GroupArguments], argv, description=__doc__)
    outputs = {"--output_path": args.output_path, "--summary": args.summary}
    claim("group.py", outputs, reads=args.answers, overwrite=args.overwrite)
    files = [read_answered(Path(path)) for path in args.answers]
    names = _names(args, files)
    problems, tally = joined(files, names)
    if not problems:
        raise UserError(f"{' and '.join(args.answers)} have no prompt in common; expected answers to the same prompts")
    # The first model is the one that learns, and its loss is the difficulty.
    for problem in problems:
        if problem[0].loss is None:
            raise UserError(f"{problem[0].record.where}: no ppl; expected what chatbot.py --mode ppl writes")
    if tally["the same answer by all"]:
        warn(f"{tally['the same answer by all']} problems have the same answer by all models: nothing to prefer")

    difficulties, slots = _levels(problems, args)
    rows = []
    for problem, level, slot in zip(problems, difficulties, slots, strict=True):
        rows.append(grouped_row(problem, names, level=level, kind=args.assign[slot]))
    write_jsonl(Path(args.output_path), rows)
    summary = summarise(problems, slots, names=names, args=args)
    _report(summary, names, tally)
    if args.summary:
        summary |= {"rows": dict(tally), "assign": args.assign, "quantiles": args.quantiles, "per_task": args.per_task}
        summary |= {"random": args.random, "seed": args.seed, "base_models": names}
        write_json(Path(args.summary), summary)
    say(f"{args.output_path}: {len(rows)} problems")


def _names(args: GroupArguments, files: list[list[Answered]]) -> list[str]:
    if args.base_models is not None:
        names = [name.strip() for name in args.base_models.split(",")]
    else:
        names = []
        for path, (first, *_) in zip(args.answers, files, strict=True):
            stem, *_ = Path(path).name.split(".")
            names.append(first.answer.model or stem)
    # The names are keys of the row's outputs: two models of one name would overwrite each other.
    if len(set(names)) != len(args.answers) or not all(names):
        raise UserError(f"--base_models {','.join(names)}: expected {len(args.answers)} different names, one a file")
    return names


def _levels(problems: Sequence[Sequence[Answered]], args: GroupArguments) -> tuple[list[int], list[int]]:
    """Return the difficulty and the group of each problem; they differ with --random alone."""
    # One list for all problems, unless each task is cut by itself.
    of_task: dict[str, list[int]] = {}
    for number, (first, *_) in enumerate(problems):
        task = ""
        if args.per_task:
            task = first.task
        of_task.setdefault(task, []).append(number)
    difficulties, slots = [0] * len(problems), [0] * len(problems)
    for task, numbers in of_task.items():
        of_loss = levels([problems[number][0].loss for number in numbers], args.quantiles)
        drawn = of_loss
        # The baseline keeps the sizes of the groups and their feedback, but not their difficulty.
        if args.random:
            drawn = random_levels(len(numbers), args.quantiles, f"{args.seed} {task}")
        for number, level, slot in zip(numbers, of_loss, drawn, strict=True):
            difficulties[number], slots[number] = level, slot
    return difficulties, slots


def summarise(problems: Sequence[Sequence[Answered]], slots: list[int], names: list[str], args: GroupArguments) -> dict:
    """Summarise each group.

    Args:
        problems: the answers to each problem, one of each model.
        slots: the group of each problem.
        names: the models' names.
        args: the options.

    Returns:
        For each group its size, losses, lengths in words and tasks.
    """
    groups = []
    for slot, level in enumerate(LEVELS):
        losses, tasks = [], Counter()
        words: dict[str, list[int]] = {name: [] for name in ("prompt", *names)}
        for problem, other in zip(problems, slots, strict=True):
            if other != slot:
                continue
            first = problem[0]
            losses.append(first.loss)
            tasks[first.task] += 1
            words["prompt"].append(sum([len(message.content.split()) for message in first.record.prompt]))
            for name, row in zip(names, problem, strict=True):
                words[name].append(len(row.answer.text.split()))
        if args.random:
            level = "random"
        groups.append({
            "group": level, "feedback_type": KINDS[args.assign[slot]], "problems": len(losses),
            "loss": {"lowest": min(losses, default=None), "mean": _mean(losses), "highest": max(losses, default=None)},
            "words": {name: _mean(counts) for name, counts in words.items()},
            "tasks": dict(tasks),
        })  # fmt: skip
    return {"problems": len(problems), "groups": groups}


def _mean(values: Sequence[float]) -> float | None:
    if not values:
        return None
    return sum(values) / len(values)


def _report(summary: dict[str, Any], names: list[str], tally: Counter[str]) -> None:
    say(", ".join(f"{what} {count}" for what, count in tally.items()))
    tasks: dict[str, None] = {}
    for group in summary["groups"]:
        tasks |= dict.fromkeys(group["tasks"])
    header = ["group", "feedback", "problems", "lowest loss", "mean", "highest", "words: prompt", *names, *tasks]
    rows = []
    for group in summary["groups"]:
        row = [group["group"], group["feedback_type"], group["problems"]]
        row += [*group["loss"].values(), *group["words"].values()]
        rows.append(row + [group["tasks"].get(task, 0) for task in tasks])
    say(aligned(header, rows))


if __name__ == "__main__":
    run_program(main)
