"""The end of the pipeline: completes results.json, and writes report.html, one page that needs nothing beside it.

    python inference/report.py --folder output/tutor

Reads what run.sh left in the folder. A stage that has not run is listed as missing; a folder without any is refused.
"""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

try:
    import utils.errors  # noqa: F401
except ImportError:
    ArgumentParser().exit(2, "error: no environment is active; at the project's root: source training/environment.sh\n")

from rich.table import Table

from utils.answering.reader import Reader
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
class ReportArguments:
    folder: str = option("output/tutor", help="folder of the pipeline; results.json and report.html are written there")
    num_prompts: int = option(12, help="held-out prompts whose answers are shown side by side")
    noise_temperature: float = option(0.7, help="of the oracle that compared feedback/test.jsonl, as it was told")
    overwrite: bool = overwriting()

    def __post_init__(self) -> None:
        expect(self, "0 or more", "num_prompts", "noise_temperature")


def main(argv: list[str] | None = None) -> None:
    (args,) = parse([ReportArguments], argv, __doc__)
    if not Path(args.folder).is_dir():
        raise UserError(f"--folder {args.folder}: no such folder; `bash run.sh` makes output/tutor")
    results, html = Path(args.folder, "results.json"), Path(args.folder, "report.html")
    claim("evaluate_world.py", {"--folder": results}, overwrite=args.overwrite)  # whose results it completes
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
    """Evenly spaced held-out prompts, the first answer of every name, judged by the oracle and the reward model:
    {"prompt": messages, "answers": {name: {"text", "utility", "points", "score"}}}."""
    everyone = list(found.answers.values())
    shared = [i for i in (everyone[0] if everyone else ()) if all(i in known for known in everyone)]
    chosen = [shared[k * len(shared) // count] for k in range(min(count, len(shared)))]
    asked = [replace(everyone[0][i], answers=tuple(known[i].answers[0] for known in everyone)) for i in chosen]
    scores: list[list[float | None]] = [[None] * len(everyone) for _ in asked]
    if asked and (found.folder / "reward" / "finished.json").exists():
        reader = Reader(ReaderArguments(str(found.folder / "reward")), reward=True)
        with progress("scoring the answers shown", len(asked)) as advance:
            scores = [advance() or reader.scores([record], 0)[0] for record in asked]
    return [
        {"prompt": record.prompt, "answers": dict(zip(found.answers, _judged(record, of_them), strict=True))}
        for record, of_them in zip(asked, scores, strict=True)
    ]


def _judged(record: Record, scores: list[float | None]) -> Iterator[dict[str, Any]]:
    exchange = read_prompt(record.prompt, record.where)
    for answer, score in zip(record.answers, scores, strict=True):
        seen = assess(exchange, answer.text, answer.finished)
        yield {"text": answer.text, "utility": seen.utility, "points": seen.points, "score": score}


def summary(results: dict[str, Any]) -> Table:
    """What the terminal shows: the true rewards, the reward model beside its ceiling, the time of every step."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for name, row in results.get("true_reward", {}).items():
        table.add_row("true reward", label(name), between(row["reward"]), f"{row['reward']['n']} prompts", style="bold")
    reward = results["reward_model"]
    if reward:
        of = f"{reward['share_of_ceiling']:.1%} of the ceiling {reward['ceiling']:.3f}" if "ceiling" in reward else ""
        table.add_row("reward model", "accuracy", between(reward["accuracy"]), of, style="bold")
    for name, seconds in results["seconds"].items():
        table.add_row("seconds", label(name), str(seconds))
    if results["seconds"]:
        table.add_row("", "in all", str(sum(results["seconds"].values())))
    return table


if __name__ == "__main__":
    run_program(main)
