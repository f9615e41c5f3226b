"""The end of the pipeline: completes results.json, and writes report.html, one page that needs nothing beside it.

    python inference/report.py --folder output/tutor

Reads what run.sh left in the folder: a stage that has not run is said to be missing, and is no error.
"""

from __future__ import annotations

import itertools
import json
import math
from argparse import ArgumentParser
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

try:
    import utils.errors  # noqa: F401
except ImportError:
    ArgumentParser().exit(2, "error: no environment is active; at the project's root: source training/environment.sh\n")

from rich.table import Table

from utils.answering import Reader
from utils.arguments import parse
from utils.arguments.inference import ReaderArguments
from utils.arguments.options import expect, option, overwriting
from utils.errors import UserError
from utils.outputs import claim
from utils.page import between, label, page
from utils.records import Record, RecordError, read_jsonl, read_records
from utils.reporting import commit, progress, run_program, say, versions, write_json, write_text
from utils.statistics import mean_interval, wilson_interval
from utils.templates.choosing import Tally, choose
from utils.truth import utilities, verdict_ceiling
from utils.world.exchanges import read_prompt
from utils.world.oracle import assess

STAGES = {"sft": "supervised fine-tuning", "reward": "the reward model", "dpo": "DPO", "ppo": "PPO"}


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
    results = found.complete_results()
    write_json(found.folder / "results.json", results)
    write_text(found.folder / "report.html", page(results, found.metrics, found.exchanges(args.num_prompts)))
    say(summary(results))
    for line in found.missing:
        say(f"missing: {line}", style="yellow")
    say(f"written to {found.folder / 'results.json'} and {found.folder / 'report.html'}")


# ------------------------------------------------------------------------------------------------- what there is


@dataclass
class Pipeline:
    """What a pipeline left in its folder; `missing` says in words what is not there."""

    folder: Path
    noise_temperature: float
    missing: list[str] = field(default_factory=list)

    def json(self, name: str) -> dict[str, Any]:
        """The object in a JSON file; empty when there is no file."""
        path = self.folder / name
        try:
            return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        except (json.JSONDecodeError, UnicodeDecodeError, OSError) as error:
            raise UserError(f"{path}: not JSON ({error}); move it away and run again") from error

    @cached_property
    def metrics(self) -> dict[str, list[dict[str, Any]]]:
        """The rows of every stage that has begun."""
        files = {name: self.folder / name / "metrics.jsonl" for name in STAGES}
        return {name: [row for row, _ in read_jsonl(f)] for name, f in files.items() if f.exists() and f.stat().st_size}

    @cached_property
    def answers(self) -> dict[str, dict[str, Record]]:
        """Of every name in `true_reward`: prompt's id -> the prompt with its answers."""
        found = {}
        for name, row in self.json("results.json").get("true_reward", {}).items():
            moved = self.folder / "answers" / Path(row["file"]).name  # the whole folder may have been moved
            file = Path(row["file"]) if Path(row["file"]).exists() else moved
            if file.exists():
                found[name] = by_id(read_records(file))
            else:
                self.missing.append(f"the answers of {label(name)}, {row['file']}")
        return found

    def complete_results(self) -> dict[str, Any]:
        results = self.json("results.json")
        if "true_reward" not in results:
            self.missing.append("the true reward of every stage (inference/evaluate_world.py measures it)")
        results["stages"] = {name: self.stage(name) for name in STAGES if name in self.metrics}
        self.missing += [f"{name}: {STAGES[name]} has not been run" for name in STAGES if name not in self.metrics]
        results |= {"reward_model": self.reward_model(), "against_first": self.against_first()}
        return results | {
            "seconds": self.seconds(), "missing": self.missing, "versions": versions(), "commit": commit(),
        }  # fmt: skip

    def stage(self, name: str) -> dict[str, Any]:
        rows, args = self.metrics[name], self.json(f"{name}/args.json")
        evaluations = [{k: v for k, v in row.items() if k == "step" or k.startswith("eval/")} for row in rows]
        evaluations = [row for row in evaluations if len(row) > 1]
        finished = (self.folder / name / "finished.json").exists()
        if not finished:
            self.missing.append(f"{name}: stopped after step {rows[-1]['step']}; the same command continues")
        speeds = sorted(row["tokens_per_second"] for row in rows if "tokens_per_second" in row) or [None]
        shares = sorted(row["gemm_share"] for row in rows if "gemm_share" in row) or [None]
        return {
            "steps": rows[-1]["step"], "finished": finished, "first": evaluations[:1], "last": evaluations[1:][-1:],
            "median_tokens_per_second": speeds[len(speeds) // 2], "median_gemm_share": shares[len(shares) // 2],
            "commit": args.get("commit"),
        }  # fmt: skip

    def reward_model(self) -> dict[str, Any]:
        """Accuracy on the held-out verdicts, next to the ceiling that their noise allows. {} when not measured."""
        evaluated = [row for row in self.metrics.get("reward", []) if "eval/accuracy" in row]
        if not evaluated:
            return {}
        last, file = evaluated[-1], self.folder / "feedback" / "test.jsonl"
        records = list(read_records(file)) if file.exists() else []
        found = {name: last.get(f"eval/{name}") for name in ("accuracy", "margin", "brier", "ece")}
        found["step"] = last["step"]
        chosen = [choose(record, "comparisons", Tally()) for record in records]  # counted as training counts them
        pairs = sum(len(row.pairs) for row in chosen if row)
        halves = 2 * found["accuracy"] * pairs  # a tie counts half
        if pairs and abs(halves - round(halves)) < 1e-4:  # a whole number: these are the pairs it was measured on
            found["accuracy"] = wilson_interval(round(halves) / 2, pairs).to_json()
        else:
            self.missing.append("how many pairs the reward model's accuracy is over (feedback/test.jsonl has others)")
            found["accuracy"] = {"value": found["accuracy"], "low": None, "high": None, "n": None}
        ceiling = self.ceiling(records)
        if ceiling is None:
            return found
        return found | {"ceiling": ceiling, "share_of_ceiling": found["accuracy"]["value"] / ceiling}

    def ceiling(self, records: list[Record]) -> float | None:
        """What the oracle's noise allows on these verdicts; None, and said to be missing, where nobody can know."""
        try:
            ceiling = verdict_ceiling(records, self.noise_temperature)
            why = "feedback/test.jsonl has no decided verdict"
        except UserError as error:  # records of another world
            ceiling, why = math.nan, str(error)
        if math.isnan(ceiling):
            self.missing.append(f"the ceiling of the reward model's accuracy: {why}")
            return None
        return ceiling

    def seconds(self) -> dict[str, int]:
        """Of the steps of run.sh, in its order: the last line of .done/NAME is the step's number and its seconds."""
        found = []
        for file in (self.folder / ".done").glob("[!.]*"):
            words = (file.read_text(encoding="utf-8").splitlines() or [""])[-1].split()
            if len(words) == 2 and all(word.isdigit() for word in words):
                found.append((int(words[0]), file.name, int(words[1])))
        return {name: seconds for _, name, seconds in sorted(found)}

    def against_first(self) -> dict[str, Any]:
        """How often an answer is worth more than one of the first name to the same prompt; equal counts half. Over all
        pairs of answers; the interval is over prompts."""
        worth = {name: {i: utilities(record) for i, record in known.items()} for name, known in self.answers.items()}
        if len(worth) < 2:
            return {}
        (first, base), *others = worth.items()
        rates = {}
        for name, mine in others:
            pairs = [itertools.product(mine[i], base[i]) for i in mine if i in base]
            rates[name] = mean_interval([fmean((a > b) + 0.5 * (a == b) for a, b in prompt) for prompt in pairs])
        return {"first": first, "win_rate": {name: rate.to_json() for name, rate in rates.items()}}

    def exchanges(self, count: int) -> list[dict[str, Any]]:
        """Evenly spaced held-out prompts, the first answer of every name, judged by the oracle and the reward model:
        {"prompt": messages, "answers": {name: {"text", "utility", "points", "score"}}}."""
        everyone = list(self.answers.values())
        shared = [i for i in (everyone[0] if everyone else ()) if all(i in known for known in everyone)]
        chosen = [shared[k * len(shared) // count] for k in range(min(count, len(shared)))]
        asked = [replace(everyone[0][i], answers=tuple(known[i].answers[0] for known in everyone)) for i in chosen]
        scores: list[list[float | None]] = [[None] * len(everyone) for _ in asked]
        if asked and (self.folder / "reward" / "finished.json").exists():
            reader = Reader(ReaderArguments(str(self.folder / "reward")), reward=True)
            with progress("scoring the answers shown", len(asked)) as advance:
                scores = [advance() or reader.scores([record], 0)[0] for record in asked]
        return [
            {"prompt": record.prompt, "answers": dict(zip(self.answers, _judged(record, of_them), strict=True))}
            for record, of_them in zip(asked, scores, strict=True)
        ]


def by_id(records: Iterable[Record]) -> dict[str, Record]:
    """Raises RecordError for an id that comes twice: answers of all names are matched by it."""
    found: dict[str, Record] = {}
    for record in records:
        if (first := found.setdefault(record.id, record)) is not record:
            raise RecordError(f"{record.where}: the id {record.id!r} is that of {first.where}, too; expected it once")
    return found


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
    table.add_row("", "in all", str(sum(results["seconds"].values())))
    return table


if __name__ == "__main__":
    run_program(main)
