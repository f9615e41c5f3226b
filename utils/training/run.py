"""One run of a stage: its folder, its identity, whether it is done, what it continues from."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterator, Set
from pathlib import Path
from typing import Any

import torch

from utils.arguments.options import ModelArguments, TrainingArguments
from utils.engine import checkpoints, ranks
from utils.errors import UserError
from utils.provenance import check_folder, model_files, record_folder
from utils.raw_datasets.spec import Spec
from utils.reporting import Report, say, warn

# Options that change how a run is watched or stored, not what it computes: with other values it is the same run.
OF_NO_CONSEQUENCE = {
    "output_dir", "run_name", "logging_steps", "checkpoint_every", "keep_last", "report_to", "cache_dir",
    "rebuild_cache", "overwrite",
}  # fmt: skip
# Changes what is saved, not what is trained: a checkpoint goes on with another, a finished run does not.
OF_SAVING = {"merge_dtype"}
ROOT = Path(__file__).resolve().parents[2]


def cache_folder(model_args: ModelArguments) -> Path:
    """Return where tokenised data and reference log-probs are kept, shared by all runs."""
    return Path(model_args.cache_dir or ROOT / "output" / "cache")


class Run:
    """The folder of a run. The same command finds it finished, or continues it; another command is refused, and so is
    a folder that another `program` wrote (utils/outputs.py)."""

    def __init__(self, args: TrainingArguments, groups: list[Any], program: str = "main.py") -> None:
        self.args, self.folder, self.program = args, Path(args.output_dir), program
        if not args.debug:
            reads = list(_reads(groups, program))
            check_folder(program, "--output_dir", self.folder, reads=reads, overwrite=args.overwrite)
        self.checkpoints = self.folder / "checkpoints"
        self.report = Report(self.folder, args.report_to, args.run_name, enabled=not args.debug)
        self.groups = groups
        options: dict[str, Any] = {}
        for group in groups:
            options |= dataclasses.asdict(group)
        for name in OF_NO_CONSEQUENCE & options.keys():
            del options[name]
        if options.get("lora_dim") and options["merge_dtype"] is None:
            options["merge_dtype"] = args.dtype_name
        # As JSON gives them back, so that they can be compared with those of a checkpoint.
        self.facts: dict[str, Any] = {"options": json.loads(json.dumps(options))}

    @property
    def finished(self) -> bool:
        """Tell whether this very run has ended and its model is in the folder; if so, it is printed."""
        try:
            done = json.loads((self.folder / "finished.json").read_text(encoding="utf-8"))
        except (OSError, json.JSONDecodeError):
            return False
        if self._is_another(self._differences(done["options"], "finished run")):
            return False
        say(f"{self.folder}: already finished after {done['steps']} steps; nothing to do")
        return not self.args.debug

    def begin(self, data: str, model: str, **others: str) -> None:
        """Fix the run's identity, and write args.json.

        Args:
            data: hash of the training data.
            model: hash of the starting model.
            others: hashes of further models, by their role.
        """
        self.facts |= {
            "data": data, "model": model, **others, "world_size": ranks.world_size(),
            "threads": torch.get_num_threads(),
        }  # fmt: skip
        self.report.write_args(self.groups, **{k: v for k, v in self.facts.items() if k != "options"})

    def resume_point(self) -> int:
        """Return the step to continue after, 0 for a fresh start. Raises UserError when the checkpoint is another
        run's."""
        if self.args.debug:
            return 0
        if ranks.rank() == 0:
            record_folder(self.program, self.folder)
        found = checkpoints.newest(self.checkpoints)
        if found is None:
            return 0
        step, facts = found
        if self._is_another(self._differences(facts["options"], "checkpoint", OF_SAVING)):
            return 0
        for name in sorted(self.facts.keys() - {"options", "threads"}):
            if facts.get(name) != self.facts[name]:
                start = self.facts["options"].get("model_name_or_path")
                what = f"content of --model_name_or_path {start}" if name == "model" else name
                why = f"this checkpoint was made with another {what} ({facts.get(name)}, now {self.facts[name]})"
                if self._is_another(f"{self.checkpoints}: {why}; restore it, or give another --output_dir"):
                    return 0
        # Only a warning: the number of threads changes the order in which a CPU adds, not what is computed.
        if facts["threads"] != self.facts["threads"]:
            before, now = facts["threads"], self.facts["threads"]
            warn(f"the checkpoint was made with {before} threads, now {now}: the last bits may differ")
        return step

    def finish(self, steps: int) -> None:
        """Write that the run has ended."""
        if self.args.debug or ranks.rank() != 0:
            return
        self.report.write_json("finished.json", {"steps": steps, **self.facts})

    def _differences(self, before: dict[str, Any], what: str, but: Set[str] = frozenset()) -> str | None:
        """Return the first option that is not as it was, in words; `what` holds `before`, options `but` are not
        compared."""
        now = self.facts["options"]
        for name in sorted((before.keys() | now.keys()) - but):
            if before.get(name) != now.get(name) and not self.args.debug:
                return (
                    f"{self.folder} holds a {what} with other options (--{name} {before.get(name)}, now "
                    f"{now.get(name)}); give the same options, or another --output_dir"
                )
        return None

    def _is_another(self, why: str | None) -> bool:
        """Return whether the folder holds another run, and `why`. That is an error, or with --overwrite the run is
        removed: what could be continued, and the models saved for choosing, which would be taken for this run's."""
        if why is None:
            return False
        if not self.args.overwrite:
            raise UserError(f"{why}, or --overwrite to begin anew in this one")
        if ranks.rank() == 0:
            say(f"--overwrite: the run in {self.folder} is begun anew", style="yellow")
            (self.folder / "finished.json").unlink(missing_ok=True)
            models = [*self.folder.glob("epoch-[0-9]*"), *self.folder.glob("step-[0-9]*")]
            for folder in (self.checkpoints, *models):
                shutil.rmtree(folder, ignore_errors=True)
        return True


def _reads(groups: list[Any], program: str) -> Iterator[str | Path]:
    """Yield the models and data sets that the options of a stage name."""
    for group in groups:
        for name, value in vars(group).items():
            if name.endswith("name_or_path"):
                yield from model_files(value, program)
            elif name.endswith("data_path"):
                yield from (Spec.of(text).path for text in value)
