"""What bash run.sh left in its folder: the numbers of every stage, what the feedback cost, the files themselves."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

from utils.errors import UserError
from utils.llm.ledger import Ledger
from utils.records import Record, RecordError, read_jsonl, read_records
from utils.report.page.words import label
from utils.reporting import commit, versions
from utils.statistics import mean_interval, wilson_interval
from utils.tokens.templates.choosing import Tally, choose
from utils.world.truth import utilities, verdict_ceiling

STAGES = {"sft": "supervised fine-tuning", "reward": "the reward model", "dpo": "DPO", "ppo": "PPO"}
RUN_FILES = ("metrics.jsonl", "calibration.json", "samples-step-*.jsonl", "args.json", "train.log", "run_*.sh")
FILES = {  # the rows of the page's list of files -> patterns
    "results": ("results.json",),
    **{name: tuple(f"{name}/{pattern}" for pattern in RUN_FILES) for name in STAGES},
    "feedback": ("asked/*.jsonl", "feedback/*.json*"),
    "answers": ("answers/*-curve.json", "answers/*.jsonl"),
}


def _by_number(path: Path) -> tuple[int, str]:
    """samples-step-92 before samples-step-184."""
    return len(path.name), path.name


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
        stage = (self.folder / "metrics.jsonl").exists()
        remedy = f"give --folder {self.folder.resolve().parent}" if stage else "`bash run.sh` makes output/tutor"
        found = "one stage's folder" if stage else "no run of the pipeline"
        raise UserError(f"--folder {self.folder}: {found}; expected one of {sought} and results.json in it; {remedy}")

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
        """results.json with everything that can be read from the other files."""
        results = self.json("results.json")
        if "true_reward" not in results:
            self.missing.append("the true reward of every stage (inference/evaluate_world.py measures it)")
        results["stages"] = {name: self.stage(name) for name in STAGES if name in self.metrics}
        self.missing += [f"{name}: {STAGES[name]} has not been run" for name in STAGES if name not in self.metrics]
        results |= {"reward_model": self.reward_model(), "against_first": self.against_first()}
        results |= {"best_of_n": self.best_of_n(results.get("true_reward", {})), "feedback": self.feedback()}
        return results | {
            "seconds": self.seconds(), "missing": self.missing, "versions": versions(), "commit": commit(),
        }  # fmt: skip

    def stage(self, name: str) -> dict[str, Any]:
        rows, args = self.metrics[name], self.json(f"{name}/args.json")
        evaluations = [{k: v for k, v in row.items() if k == "step" or k.startswith("eval/")} for row in rows]
        evaluations = [row for row in evaluations if len(row) > 1]
        finished = (self.folder / name / "finished.json").exists()
        if not finished:
            self.missing.append(f"{name}: stopped after step {rows[-1]['step']}; run the same command again to continue")
        speeds = sorted(row["tokens_per_second"] for row in rows if "tokens_per_second" in row) or [None]
        shares = sorted(row["gemm_share"] for row in rows if "gemm_share" in row) or [None]
        return {
            "steps": rows[-1]["step"], "finished": finished, "first": evaluations[:1], "last": evaluations[1:][-1:],
            "median_tokens_per_second": speeds[len(speeds) // 2], "median_gemm_share": shares[len(shares) // 2],
            "commit": args.get("commit"), "versions": args.get("versions", {}),
        }  # fmt: skip

    def reward_model(self) -> dict[str, Any]:
        """Accuracy on the held-out verdicts, next to the ceiling that their noise allows, and calibration. {} when not
        measured."""
        evaluated = [row for row in self.metrics.get("reward", []) if "eval/accuracy" in row]
        if not evaluated:
            return {}
        last, file = evaluated[-1], self.folder / "feedback" / "test.jsonl"
        records = list(read_records(file)) if file.exists() else []
        found = {name: last.get(f"eval/{name}") for name in ("accuracy", "margin", "brier", "ece")}
        found |= {"step": last["step"], "calibration": self.json("reward/calibration.json")}
        if not found["calibration"]:
            self.missing.append("the reward model's calibration (its training writes reward/calibration.json)")
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

    def best_of_n(self, rewards: dict[str, Any]) -> dict[str, Any]:
        """{"of": name, "scorer", "score": {n: estimate}, "kl_bound": {n: nats}, "reward": {n: estimate}}: the curve
        that rerank.py wrote and, of the answers that the same model scored, the true reward. Parts may be empty."""
        files = sorted((self.folder / "answers").glob("*-curve.json"))
        curves = [curve for file in files if (curve := self.json(f"answers/{file.name}")).get("expected")]
        of, row = next(((name, row["best_of"]) for name, row in rewards.items() if "best_of" in row), ("", {}))
        scorer = row.get("scorer") or (curves[0]["scorer"] if curves else "")
        curve = next((curve["expected"] for curve in curves if curve["scorer"] == scorer), {})
        if not curve:
            self.missing.append("the score of best-of-n over n (inference/rerank.py measures it)")
        if not row:
            self.missing.append("the true reward of best-of-n over n (evaluate_world.py measures it on scored answers)")
        return {
            "of": of, "scorer": scorer, "reward": row.get("reward", {}),
            "score": {n: point["score"] for n, point in curve.items()},
            "kl_bound": {n: point["kl_bound"] for n, point in curve.items()},
        }  # fmt: skip

    def feedback(self) -> dict[str, Any]:
        """What the ledger reports (docs/feedback.md), and how many pairs for training came of it. {} without one."""
        file = self.folder / "asked" / "ledger"
        if not file.exists():
            self.missing.append("what the feedback cost (no ledger, asked/ledger)")
            return {}
        with Ledger(file, create=False) as ledger:
            report = ledger.report()
        return report | {"pairs": self.json("feedback/stats.json").get("kinds", {})}

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

    def files(self) -> dict[str, list[str]]:
        """The files that there are, relative to the folder, by FILES' names: links of the page."""
        found = {}
        for name, patterns in FILES.items():
            paths = [path for pattern in patterns for path in sorted(self.folder.glob(pattern), key=_by_number)]
            if paths:
                found[name] = [path.relative_to(self.folder).as_posix() for path in paths]
        return found


def by_id(records: Iterable[Record]) -> dict[str, Record]:
    """Raises RecordError for an id that comes twice: answers of all names are matched by it."""
    found: dict[str, Record] = {}
    for record in records:
        if (first := found.setdefault(record.id, record)) is not record:
            raise RecordError(f"{record.where}: the id {record.id!r} is that of {first.where}, too; expected it once")
    return found
