"""The results of `bash run.sh`, read from its folder: the numbers of every stage, what the feedback cost, the files."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from utils.errors import UserError
from utils.llm.ledger import Ledger
from utils.provenance import commit, versions
from utils.records import Record, RecordError
from utils.records.files import read_records
from utils.records.lines import read_jsonl
from utils.report.page.words import label
from utils.report.win_rates import win_rates
from utils.statistics import wilson_interval
from utils.tokens.templates.choosing import Tally, choose
from utils.world.truth import verdict_ceiling

STAGES = {"sft": "supervised fine-tuning", "reward": "the reward model", "dpo": "DPO", "ppo": "PPO"}


@dataclass
class Pipeline:
    """A pipeline's folder. `missing` names what a whole run would have and this one lacks."""

    folder: Path
    noise_temperature: float
    missing: list[str] = field(default_factory=list)

    def expect_a_run(self) -> None:
        """Refuse a folder that holds no stage's metrics and no results."""
        if self.metrics or "true_reward" in self.json("results.json"):
            return
        sought = ", ".join(f"{name}/metrics.jsonl" for name in STAGES)
        found, remedy = "no run of the pipeline", "`bash run.sh` makes output/tutor"
        if (self.folder / "metrics.jsonl").exists():
            found, remedy = "one stage's folder", f"give --folder {self.folder.resolve().parent}"
        raise UserError(f"--folder {self.folder}: {found}; expected one of {sought} and results.json in it; {remedy}")

    def json(self, name: str) -> dict[str, Any]:
        """Return the object in a JSON file; empty when there is no file."""
        path = self.folder / name
        if not path.exists():
            return {}
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except (json.JSONDecodeError, UnicodeDecodeError, OSError) as error:
            raise UserError(f"{path}: not JSON ({error}); move it away and run again") from error

    @cached_property
    def metrics(self) -> dict[str, list[dict[str, Any]]]:
        """Return the rows of every stage that has begun."""
        found = {}
        for name in STAGES:
            file = self.folder / name / "metrics.jsonl"
            if file.exists() and file.stat().st_size:  # empty before the first step
                found[name] = [row for row, _ in read_jsonl(file)]
        return found

    @cached_property
    def answers(self) -> dict[str, dict[str, Record]]:
        """Return, for every name in `true_reward`, the prompts with their answers by the prompt's id."""
        found = {}
        for name, row in self.json("results.json").get("true_reward", {}).items():
            file = Path(row["file"])
            if not file.exists():
                file = self.folder / "answers" / file.name  # the whole folder may have been moved
            if file.exists():
                found[name] = by_id(read_records(file))
            else:
                self.missing.append(f"the answers of {label(name)}, {row['file']}")
        return found

    def complete_results(self) -> dict[str, Any]:
        """Return results.json with everything that can be read from the other files."""
        results = self.json("results.json")
        if "true_reward" not in results:
            self.missing.append("the true reward of every stage (inference/evaluate_world.py measures it)")
        results["stages"] = {name: self.stage(name) for name in STAGES if name in self.metrics}
        for name, words in STAGES.items():
            if name not in self.metrics:
                self.missing.append(f"{name}: {words} has not been run")
        results |= {"reward_model": self.reward_model(), "win_rates": win_rates(self.answers)}
        results |= {"best_of_n": self.best_of_n(results.get("true_reward", {})), "feedback": self.feedback()}
        return results | {
            "seconds": self.seconds(), "missing": self.missing, "versions": versions(), "commit": commit(),
        }  # fmt: skip

    def stage(self, name: str) -> dict[str, Any]:
        """Return a stage's steps, its first and last evaluation, its speed and its commit."""
        rows, args = self.metrics[name], self.json(f"{name}/args.json")
        steps = rows[-1]["step"]
        evaluations = []
        for row in rows:
            evaluation = {column: value for column, value in row.items() if column.startswith("eval/")}
            if evaluation:
                evaluations.append({"step": row["step"], **evaluation})
        finished = (self.folder / name / "finished.json").exists()
        if not finished:
            self.missing.append(f"{name}: stopped after step {steps}; run the same command again to continue")
        return {
            "steps": steps,
            "finished": finished,
            "first": evaluations[:1],
            "last": evaluations[1:][-1:],
            "median_tokens_per_second": _median(rows, "tokens_per_second"),
            "median_gemm_share": _median(rows, "gemm_share"),
            "commit": args.get("commit"),
            "versions": args.get("versions", {}),
        }

    def reward_model(self) -> dict[str, Any]:
        """Return the accuracy on the held-out verdicts, next to the ceiling that their noise allows, and calibration.
        {} when not measured."""
        evaluated = [row for row in self.metrics.get("reward", []) if "eval/accuracy" in row]
        if not evaluated:
            return {}
        last, file = evaluated[-1], self.folder / "feedback" / "test.jsonl"
        records = []
        if file.exists():
            records = list(read_records(file))
        found = {name: last.get(f"eval/{name}") for name in ("accuracy", "margin", "brier", "ece")}
        found |= {"step": last["step"], "calibration": self.json("reward/calibration.json")}
        if not found["calibration"]:
            self.missing.append("the reward model's calibration (its training writes reward/calibration.json)")
        pairs = 0
        for record in records:  # counted as training counts them
            row = choose(record, "comparisons", Tally())
            if row:
                pairs += len(row.pairs)
        # A pair counts 0, 1/2 (a tie) or 1. So accuracy x 2 x pairs is a whole number when it was measured on exactly
        # these pairs; 1e-4 is far more than the rounding of a mean of some thousand float32 numbers.
        halves = 2 * found["accuracy"] * pairs
        if pairs and abs(halves - round(halves)) < 1e-4:
            found["accuracy"] = wilson_interval(round(halves) / 2, pairs).to_json()
        else:
            self.missing.append("how many pairs the reward model's accuracy is over (feedback/test.jsonl has others)")
            found["accuracy"] = {"value": found["accuracy"], "low": None, "high": None, "n": None}
        ceiling = self.ceiling(records)
        if ceiling is None:
            return found
        return found | {"ceiling": ceiling, "share_of_ceiling": found["accuracy"]["value"] / ceiling}

    def ceiling(self, records: list[Record]) -> float | None:
        """Return the best accuracy that the oracle's noise allows on these verdicts; None, with the reason among the
        missing, where it cannot be known."""
        try:
            ceiling = verdict_ceiling(records, self.noise_temperature)
            why = "feedback/test.jsonl has no decided verdict"
        except UserError as error:  # records of another world
            ceiling, why = math.nan, str(error)
        if math.isnan(ceiling):
            self.missing.append(f"the ceiling of the reward model's accuracy: {why}")
            return None
        return ceiling

    def best_of_n(self, rewards: dict[str, Any]) -> dict[str, Any]:
        """Return the curve that rerank.py wrote and, of the answers that the same model scored, the true reward.

        Returns:
            {"of": name, "scorer", "reward": {n: estimate}, "score": {n: estimate}, "kl_bound": {n: nats}}; parts may be
            empty.
        """
        of, row = "", {}
        for name, measured in rewards.items():
            if "best_of" in measured:
                of, row = name, measured["best_of"]
                break
        curves = {}  # scorer -> its curve
        for file in sorted((self.folder / "answers").glob("*-curve.json")):
            curve = self.json(f"answers/{file.name}")
            if curve.get("expected"):
                # Of two curves by one reward model the first in the order of names counts.
                curves.setdefault(curve["scorer"], curve["expected"])
        # The curve and the true reward must be of the same reward model, or they cannot be compared.
        scorer = row.get("scorer") or next(iter(curves), "")
        if scorer not in curves:
            self.missing.append("the score of best-of-n over n (inference/rerank.py measures it)")
        if not row:
            self.missing.append("the true reward of best-of-n over n (evaluate_world.py measures it on scored answers)")
        found = {"of": of, "scorer": scorer, "reward": row.get("reward", {}), "score": {}, "kl_bound": {}}
        for number, point in curves.get(scorer, {}).items():
            found["score"][number] = point["score"]
            found["kl_bound"][number] = point["kl_bound"]
        return found

    def feedback(self) -> dict[str, Any]:
        """Return what the ledger reports (docs/feedback.md), and how many pairs it gave. {} without one."""
        file = self.folder / "asked" / "ledger"
        if not file.exists():
            self.missing.append("what the feedback cost (no ledger, asked/ledger)")
            return {}
        with Ledger(file, create=False) as ledger:
            report = ledger.report()
        return report | {"pairs": self.json("feedback/stats.json").get("kinds", {})}

    def seconds(self) -> dict[str, int]:
        """Return the seconds of each step of run.sh, in its order; .done/NAME ends with its number and seconds."""
        found = []
        for file in (self.folder / ".done").glob("[!.]*"):
            *_, last = ["", *file.read_text(encoding="utf-8").splitlines()]
            words = last.split()
            if len(words) == 2 and all(map(str.isdigit, words)):
                number, seconds = map(int, words)
                found.append((number, file.name, seconds))
        return {name: seconds for _, name, seconds in sorted(found)}


def _median(rows: Iterable[Mapping[str, Any]], column: str) -> float | None:
    """Return the upper median of a column; None without any value."""
    values = sorted(row[column] for row in rows if column in row)
    if not values:
        return None
    return values[len(values) // 2]


def by_id(records: Iterable[Record]) -> dict[str, Record]:
    """Return the records by their id. Raises RecordError for an id that comes twice: answers are matched by it."""
    found: dict[str, Record] = {}
    for record in records:
        if (first := found.setdefault(record.id, record)) is not record:
            raise RecordError(f"{record.where}: the id {record.id!r} is that of {first.where}, too; expected it once")
    return found
