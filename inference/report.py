"""The end of the pipeline: completes results.json, and writes report.html, one page that needs nothing beside it.

    python inference/report.py --folder output/tutor

Reads what run.sh left in the folder. A stage that has not run is listed as missing; a folder without any is refused.
"""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

try:
    import utils.errors  # noqa: F401
except ImportError:
    ArgumentParser().exit(2, "error: no environment is active; at the project's root: source training/environment.sh\n")

from rich.table import Table

from utils.answering.inference_model import InferenceModel
from utils.arguments import parse
from utils.arguments.inference import ReaderArguments
from utils.arguments.options import expect, option, overwriting
from utils.errors import UserError
from utils.outputs import claim
from utils.records import Record
from utils.report.files import files_of
from utils.report.page import between, label, page
from utils.report.pipeline import Pipeline
from utils.reporting import progress, run_program, say, write_json, write_text
from utils.world.exchanges import read_prompt
from utils.world.oracle import assess


@dataclass
class PipelineReportArguments:
    folder: str = option(
        "output/tutor", help="folder of the pipeline; results.json and report.html are written there", title="Report"
    )
    num_prompts: int = option(12, help="held-out prompts whose answers are shown side by side")
    noise_temperature: float = option(0.7, help="noise of the oracle that compared feedback/test.jsonl, as it was told")
    overwrite: bool = overwriting()

    def __post_init__(self) -> None:
        expect(self, "0 or more", "num_prompts", "noise_temperature")


def main(argv: list[str] | None = None) -> None:
    (args,) = parse([PipelineReportArguments], argv, __doc__)
    if not Path(args.folder).is_dir():
        raise UserError(f"--folder {args.folder}: no such folder; `bash run.sh` makes output/tutor")
    results, html = Path(args.folder, "results.json"), Path(args.folder, "report.html")
    # It completes the results of evaluate_world.py, which stays the program that they are recorded under.
    claim("evaluate_world.py", {"--folder": results}, overwrite=args.overwrite)
    claim("report.py", {"--folder": html}, overwrite=args.overwrite)
    found = Pipeline(Path(args.folder), args.noise_temperature)
    found.expect_a_run()
    results, shown = found.complete_results(), exchanges(found, args.num_prompts)
    write_json(found.folder / "results.json", results)
    write_text(found.folder / "report.html", page(results, found.metrics, shown, files_of(found.folder)))
    say(summary(results))
    for line in found.missing:
        say(f"missing: {line}", style="yellow")
    say(f"written to {found.folder / 'results.json'} and {found.folder / 'report.html'}")


def exchanges(found: Pipeline, count: int) -> list[dict[str, Any]]:
    """Return evenly spaced held-out prompts, the first answer of every name judged by the oracle and the reward model.

    Each is {"prompt": messages, "answers": {name: {"text", "utility", "points", "score"}}}; the score is None without a
    reward model.
    """
    shown = _side_by_side(list(found.answers.values()), count)
    scores: list[list[float | None]] = [[None] * len(record.answers) for record in shown]
    if shown and (found.folder / "reward" / "finished.json").exists():
        model = InferenceModel(ReaderArguments(str(found.folder / "reward")), reward=True)
        with progress("scoring the answers shown", len(shown)) as advance:
            # One at a time, so that a score does not depend on how many prompts are shown.
            for number, record in enumerate(shown):
                (scores[number],) = model.scores([record], max_seq_len=0)
                advance()
    judged = []
    for record, of_record in zip(shown, scores, strict=True):
        exchange, answers = read_prompt(record.prompt, record.where), {}
        for name, answer, score in zip(found.answers, record.answers, of_record, strict=True):
            seen = assess(exchange, answer.text, answer.finished)
            answers[name] = {"text": answer.text, "utility": seen.utility, "points": seen.points, "score": score}
        judged.append({"prompt": record.prompt, "answers": answers})
    return judged


def _side_by_side(stages: list[Mapping[str, Record]], count: int) -> list[Record]:
    """Return up to `count` evenly spaced prompts that all stages answered, with the first answer of every stage."""
    if not stages:
        return []
    first, *others = stages
    shared = [id_ for id_ in first if all(id_ in known for known in others)]
    records = []
    for number in range(min(count, len(shared))):
        id_ = shared[number * len(shared) // count]
        records.append(replace(first[id_], answers=tuple(known[id_].answers[0] for known in stages)))
    return records


def summary(results: dict[str, Any]) -> Table:
    """Return the table for the terminal: true rewards, the reward model's accuracy and ceiling, the time of a step."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for name, row in results.get("true_reward", {}).items():
        table.add_row("true reward", label(name), between(row["reward"]), f"{row['reward']['n']} prompts", style="bold")
    for judge, rates in results["win_rates"].items():
        for model, against in rates.items():
            for reference, rate in against.items():
                # Of two names the later one is the model: sft is the first, and what the others are compared with.
                if list(rates).index(model) > list(rates).index(reference):
                    won = f"{label(model)} beats {label(reference)}"
                    table.add_row("win rate", won, between(rate), f"by the {label(judge)}")
    reward = results["reward_model"]
    if reward:
        of = ""
        if "ceiling" in reward:
            of = f"{reward['share_of_ceiling']:.1%} of the ceiling {reward['ceiling']:.3f}"
        table.add_row("reward model", "accuracy", between(reward["accuracy"]), of, style="bold")
    for name, seconds in results["seconds"].items():
        table.add_row("seconds", label(name), str(seconds))
    if results["seconds"]:
        table.add_row("", "in all", str(sum(results["seconds"].values())))
    return table


if __name__ == "__main__":
    run_program(main)
