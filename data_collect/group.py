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
from utils.records import write_jsonl
from utils.reporting import aligned, run_program, say, warn, write_json


@dataclass
class GroupArguments:
    answers: list[str] = required("answers of the model that is to learn, with its losses; then of other models")
    output_path: str = required("file to write, JSON Lines")
    base_models: str | None = option(
        help="names of the models of --answers, as a,b; None: what the records say, or the files' names",
        aliases=["--base_model"],
    )
    assign: str = option("crp", help="feedback for easy, medium, hard: c critique, r refinement, p preference")
    quantiles: list[float] = option([], help="two shares to cut at, as 0.2 0.5; none: thirds")
    per_task: bool = option(False, help="cut every task by itself instead of all together")
    random: bool = option(False, help="baseline: groups of the same sizes drawn at random")
    seed: int = option(42, help="seed of --random")
    summary: str | None = option(help="JSON file for sizes and statistics")
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
    (args,) = parse([GroupArguments], argv, description=__doc__)
    outputs = {"--output_path": args.output_path, "--summary": args.summary}
    claim("group.py", outputs, reads=args.answers, overwrite=args.overwrite)
    files = [read_answered(Path(path)) for path in args.answers]
    names = _names(args, files)
    problems, tally = joined(files, names)
    if not problems:
        raise UserError(f"{' and '.join(args.answers)} have no prompt in common; expected answers to the same prompts")
    for problem in problems:
        if problem[0].loss is None:
            raise UserError(f"{problem[0].record.where}: no ppl; expected what chatbot.py --mode ppl writes")
    if tally["the same answer by all"]:
        warn(f"{tally['the same answer by all']} problems have the same answer by all models: nothing to prefer")

    hardness, slots = _levels(problems, args, args.random)
    rows = [grouped_row(p, names, hard, args.assign[s]) for p, hard, s in zip(problems, hardness, slots, strict=True)]
    write_jsonl(Path(args.output_path), rows)
    summary = summarise(problems, slots, names, args)
    _report(summary, names, tally)
    if args.summary:
        settings = {name: getattr(args, name) for name in ("assign", "quantiles", "per_task", "random", "seed")}
        write_json(Path(args.summary), {**summary, "rows": dict(tally), **settings, "base_models": names})
    say(f"{args.output_path}: {len(rows)} problems")


def _names(args: GroupArguments, files: list[list[Answered]]) -> list[str]:
    if args.base_models is not None:
        names = [name.strip() for name in args.base_models.split(",")]
    else:
        stems = [Path(path).name.split(".")[0] for path in args.answers]
        names = [rows[0].answer.model or stem for rows, stem in zip(files, stems, strict=True)]
    if len(set(names)) != len(args.answers) or not all(names):
        raise UserError(f"--base_models {','.join(names)}: expected {len(args.answers)} different names, one a file")
    return names


def _levels(problems: Sequence[Sequence[Answered]], args: GroupArguments, draw: bool) -> tuple[list[int], list[int]]:
    """(how hard each problem is, in which group it is): they differ with --random alone."""
    tasks = [problem[0].task if args.per_task else "" for problem in problems]
    hardness, slots = [0] * len(problems), [0] * len(problems)
    for task in dict.fromkeys(tasks):
        mine = [number for number, other in enumerate(tasks) if other == task]
        of_mine = levels([problems[number][0].loss for number in mine], args.quantiles)
        drawn = random_levels(len(mine), args.quantiles, f"{args.seed} {task}") if draw else of_mine
        for number, level, slot in zip(mine, of_mine, drawn, strict=True):
            hardness[number], slots[number] = level, slot
    return hardness, slots


def summarise(problems: Sequence[Sequence[Answered]], slots: list[int], names: list[str], args: GroupArguments) -> dict:
    """Of each group its size, losses, lengths in words and tasks."""
    groups = []
    for slot, level in enumerate(LEVELS):
        mine = [problem for problem, other in zip(problems, slots, strict=True) if other == slot]
        losses = [problem[0].loss for problem in mine]
        words = {"prompt": [sum(len(m.content.split()) for m in problem[0].record.prompt) for problem in mine]}
        for number, name in enumerate(names):
            words[name] = [len(problem[number].answer.text.split()) for problem in mine]
        groups.append({
            "group": "random" if args.random else level, "feedback_type": KINDS[args.assign[slot]],
            "problems": len(mine),
            "loss": {"lowest": min(losses, default=None), "mean": _mean(losses), "highest": max(losses, default=None)},
            "words": {name: _mean(counts) for name, counts in words.items()},
            "tasks": dict(Counter(problem[0].task for problem in mine)),
        })  # fmt: skip
    return {"problems": len(problems), "groups": groups}


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _report(summary: dict[str, Any], names: list[str], tally: Counter[str]) -> None:
    say(", ".join(f"{what} {count}" for what, count in tally.items()))
    tasks = list(dict.fromkeys(task for group in summary["groups"] for task in group["tasks"]))
    header = ["group", "feedback", "problems", "lowest loss", "mean", "highest", "words: prompt", *names, *tasks]
    rows = [
        [g["group"], g["feedback_type"], g["problems"], *g["loss"].values(), *g["words"].values()]
        + [g["tasks"].get(task, 0) for task in tasks]
        for g in summary["groups"]
    ]
    say(aligned(header, rows))


if __name__ == "__main__":
    run_program(main)
