"""One run of a stage: its folder, its identity, whether it is done, what it continues from."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Set
from pathlib import Path
from typing import Any

import torch

from utils import checkpoints, ranks
from utils.arguments.options import ModelArguments, TrainingArguments
from utils.errors import UserError
from utils.reporting import Report, say, warn

# options that change how a run is watched or stored, not what it computes
OF_NO_CONSEQUENCE = {
    "output_dir", "run_name", "logging_steps", "checkpoint_every", "keep_last", "report_to", "cache_dir",
    "rebuild_cache",
}  # fmt: skip
OF_SAVING = {"merge_dtype"}  # changes what is saved, not what is trained: a checkpoint goes on with another


ROOT = Path(__file__).resolve().parents[1]


def cache_folder(model_args: ModelArguments) -> Path:
    """Where tokenised data and reference log-probs are kept, shared by all runs."""
    return Path(model_args.cache_dir) if model_args.cache_dir else ROOT / "output" / "cache"


class Run:
    """The folder of a run. The same command finds it finished, or continues it; another command is refused."""

    def __init__(self, args: TrainingArguments, groups: list[Any]) -> None:
        self.args, self.folder = args, Path(args.output_dir)
        self.checkpoints = self.folder / "checkpoints"
        self.report = Report(self.folder, args.report_to, args.run_name, enabled=not args.debug)
        self.groups = groups
        options = {k: v for group in groups for k, v in dataclasses.asdict(group).items() if k not in OF_NO_CONSEQUENCE}
        if options.get("lora_dim") and options["merge_dtype"] is None:
            options["merge_dtype"] = args.dtype_name
        self.facts: dict[str, Any] = {"options": json.loads(json.dumps(options))}

    @property
    def finished(self) -> bool:
        """True when this very run has ended and its model is in the folder; says so."""
        try:
            done = json.loads((self.folder / "finished.json").read_text(encoding="utf-8"))
        except (OSError, json.JSONDecodeError):
            return False
        self._refuse_differences(done["options"], "finished run")
        say(f"{self.folder}: already finished after {done['steps']} steps; nothing to do")
        return not self.args.debug

    def begin(self, data: str, model: str, **others: str) -> None:
        """Fix the run's identity once the hashes of data, starting model and `others` (the critic's start, say) are
        known, and write args.json."""
        self.facts |= {
            "data": data, "model": model, **others, "world_size": ranks.world_size(),
            "threads": torch.get_num_threads(),
        }  # fmt: skip
        self.report.write_args(self.groups, **{k: v for k, v in self.facts.items() if k != "options"})

    def resume_point(self) -> int:
        """The step to continue after; 0 for a fresh start. UserError when the checkpoint is another run's."""
        if self.args.debug:
            return 0
        found = checkpoints.newest(self.checkpoints)
        if found is None:
            return 0
        step, facts = found
        self._refuse_differences(facts["options"], "checkpoint", OF_SAVING)
        for name in sorted(self.facts.keys() - {"options", "threads"}):
            if facts.get(name) != self.facts[name]:
                start = self.facts["options"].get("model_name_or_path")
                what = f"content of --model_name_or_path {start}" if name == "model" else name
                raise UserError(
                    f"{self.checkpoints}: this checkpoint was made with another {what} ({facts.get(name)}, now "
                    f"{self.facts[name]}); restore it, or give another --output_dir"
                )
        if facts["threads"] != self.facts["threads"]:
            before, now = facts["threads"], self.facts["threads"]
            warn(f"the checkpoint was made with {before} threads, now {now}: the last bits may differ")
        return step

    def finish(self, steps: int) -> None:
        if self.args.debug or ranks.rank() != 0:
            return
        self.report.write_json("finished.json", {"steps": steps, **self.facts})

    def _refuse_differences(self, before: dict[str, Any], what: str, but: Set[str] = frozenset()) -> None:
        now = self.facts["options"]
        changed = sorted(k for k in (before.keys() | now.keys()) - but if before.get(k) != now.get(k))
        if changed and not self.args.debug:
            k = changed[0]
            raise UserError(
                f"{self.folder} holds a {what} with other options (--{k} {before.get(k)}, now {now.get(k)}); "
                f"give the same options, or another --output_dir"
            )
