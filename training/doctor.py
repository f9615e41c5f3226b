"""Look at the data, the tokenizer and the model of a stage before money is spent, and name what would silently ruin it.

    python training/doctor.py STAGE [the options of the stage]
    python training/doctor.py step3_dpo --model_name_or_path output/sft --data_path pairs.jsonl --output_dir output/dpo

STAGE is step1_sft, step2_reward, step3_dpo or step3_ppo. It prints one coloured example and tables, then a line for
each finding; docs/doctor.md lists them all. Nothing is trained or written. Exit code: 0; 1 where something would ruin
the run (warnings do not count); 2 for a mistake in what was given.
"""

from __future__ import annotations

from argparse import ArgumentParser

try:
    import utils.errors  # noqa: F401
except ImportError:
    ArgumentParser().exit(2, "error: no environment is active; at the project's root: source training/environment.sh\n")

import importlib
import sys

from utils.arguments import HELP, entries, parse, show_help
from utils.arguments.options import DataArguments, ModelArguments, SamplingArguments, TrainingArguments
from utils.arguments.ppo import PPOArguments
from utils.doctor import DoctorArguments, StageData, examine, gather, show
from utils.errors import UserError
from utils.reporting import run_program, say

SHARED = [ModelArguments, DataArguments, TrainingArguments]
STAGES = {  # what the stage's main.py gives to parse() beside SHARED; a name is a class in that main.py
    StageData("step1_sft", 1, "demonstrations"): [SamplingArguments],
    StageData("step2_reward", 2, "comparisons"): ["RewardLossArguments"],
    StageData("step3_dpo", 3, "comparisons"): [SamplingArguments, "DPOArguments"],
    StageData("step3_ppo", 3, "prompts"): [PPOArguments],
}


def main(argv: list[str] | None = None) -> int:
    words = list(sys.argv[1:] if argv is None else argv)
    stages, known = {stage.name: stage for stage in STAGES}, ", ".join(stage.name for stage in STAGES)
    name = words[0] if words and not words[0].startswith("-") else None
    if name is not None and name not in stages:
        raise UserError(f"stage {name}: no such stage; expected one of {known}")
    if HELP & set(words):
        show_help(entries(option_classes(name)), words, f"{name or 'STAGE'} [options]", __doc__)
    if name is None:
        raise UserError(f"the stage is missing; expected one of {known}")
    *groups, options = parse(option_classes(name), words[1:], __doc__)
    subject = gather(stages[name], groups, options)
    show(subject, options.gpu_tflops)
    findings = examine(subject)
    if findings:
        say("")
    for finding in findings:
        if finding.severe:
            say(f"found: {finding}", style="red")
        else:
            say(f"warning: {finding}", style="yellow")
    return int(any(finding.severe for finding in findings))


def option_classes(name: str | None) -> list[type]:
    """Return the option classes of a stage (None: those that all share) and the doctor's own."""
    own: list[type] = []
    for stage, classes in STAGES.items():
        if stage.name == name:
            for group in classes:
                if isinstance(group, str):
                    group = getattr(importlib.import_module(f"training.{name}.main"), group)
                own.append(group)
    return [*SHARED, *own, DoctorArguments]


if __name__ == "__main__":
    run_program(main)
