"""Check what a run_*.sh is about to start, in a moment and without torch: devices, models, data, the run's folder.

    GPUS=8 OUTPUT_ROOT=output python training/preflight.py training/step1_sft/main.py --model_name_or_path … -- …

It is given the words that main.py will get: the script's flags, `--`, and those of the command line, which win. If
something would stop the run, it prints one line that names it and ends with exit code 2, before anything is written.
Otherwise it prints three lines for launch.sh: how many ranks, on what (`gpu` or `cpu`), and the folder of the run.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from argparse import ArgumentParser
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

try:
    import utils.errors  # noqa: F401
except ImportError:
    ArgumentParser().exit(2, "error: no environment is active; at the project's root: source training/environment.sh\n")

from utils.errors import UserError
from utils.provenance import check_folder, model_files
from utils.raw_datasets.named import NAMED
from utils.raw_datasets.sources import SUFFIXES
from utils.raw_datasets.spec import Spec
from utils.reporting import run_program

ROOT = Path(__file__).resolve().parents[1]
LANGUAGE, REWARD, CRITIC = "language model", "reward model", "critic of a PPO run"
VARIABLES = {  # of a run_*.sh
    "model_name_or_path": "MODEL", "data_path": "DATA", "output_dir": "OUTPUT", "reward_model_name_or_path": "REWARD",
}  # fmt: skip
MODELS = {  # None: either kind
    "model_name_or_path": LANGUAGE, "reward_model_name_or_path": REWARD, "critic_model_name_or_path": None,
}  # fmt: skip
DATA = ("data_path", "eval_data_path", "ptx_data_path")


@dataclass(frozen=True)
class Setting:
    """The values of one flag. `name` is what a person sets to change them: a variable of the run_*.sh, or the flag."""

    name: str
    values: tuple[str, ...]


def main(argv: Sequence[str] | None = None) -> None:
    program, *words = list(sys.argv[1:] if argv is None else argv)
    if program == "--help":
        sys.stdout.write(__doc__)
        return
    stage, given = Path(program).parent.name, settings(words)
    if not any(given["output_dir"].values):
        raise UserError(f"{given['output_dir'].name} is empty; expected the folder of the run")
    folder = Path(given["output_dir"].values[0])
    outputs = Path(os.environ.get("OUTPUT_ROOT") or ROOT / "output")
    found: list[str] = []
    if not (folder / "finished.json").is_file():  # a finished run reads nothing
        found += missing_inputs(stage, given, outputs)
    # all complaints at once: a person who sets up a cluster would else meet them one by one
    try:
        ranks, device = devices(os.environ)
    except UserError as error:
        found.append(str(error))
    if found:
        raise UserError("; ".join(found))
    program = f"{stage}/{Path(program).name}"
    overwrite = "overwrite" in given and given["overwrite"].values[:1] != ("False",)
    check_folder(program, given["output_dir"].name, folder, reads=reads(given, program), overwrite=overwrite)
    sys.stdout.write(f"{ranks}\n{device}\n{folder}\n")


def settings(words: Sequence[str]) -> dict[str, Setting]:
    """Return flags of main.py by name, as it will read them: those after a lone `--` win."""
    found: dict[str, Setting] = {}
    name, typed = None, False
    for word in words:
        if word == "--":
            name, typed = None, True
        elif word.startswith("--"):
            flag, equals, value = word.partition("=")
            name = flag[2:].replace("-", "_")
            # what a script sets is set for another in its first lines, what was typed on the command line
            remedied_by = flag if typed else VARIABLES.get(name, flag)
            found[name] = Setting(remedied_by, (value,) if equals else ())
        elif name:
            found[name] = Setting(found[name].name, (*found[name].values, word))
    return found


def devices(environment: Mapping[str, str]) -> tuple[int, str]:
    """Return (ranks, `gpu` or `cpu`). Raises UserError where more GPUs are asked for than there are; DS_ACCELERATOR=cpu
    asks for none. With a HOSTFILE, its lines decide."""
    asked = environment.get("GPUS") or ""
    if asked and not (asked.isdecimal() and int(asked) >= 1):
        raise UserError(f"GPUS is {asked!r}; expected a whole number, 1 or more")
    if environment.get("HOSTFILE"):
        return int(asked or 1), "gpu"
    found = 0
    if environment.get("DS_ACCELERATOR") != "cpu":
        found = count_gpus(environment)
    ranks = int(asked or found or 1)
    if found >= ranks:
        return ranks, "gpu"
    if found:
        raise UserError(f"{ranks} GPUs asked, {found} found; GPUS={found} uses these, or run on a machine with {ranks}")
    if ranks > 1 and environment.get("DS_ACCELERATOR") != "cpu":
        raise UserError(
            f"{ranks} GPUs asked, 0 found; GPUS=1 trains on the CPU, as the tiny scripts do (DS_ACCELERATOR=cpu in "
            f"front of the command: in {ranks} CPU processes), or run on a machine with GPUs"
        )
    return ranks, "cpu"


def count_gpus(environment: Mapping[str, str]) -> int:
    """Return how many GPUs nvidia-smi lists and CUDA_VISIBLE_DEVICES leaves."""
    try:
        listed = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True).stdout
    except OSError:
        return 0
    found = len(re.findall(r"^GPU ", listed, re.MULTILINE))
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return found
    before, *_ = visible.partition("-1")  # CUDA ends the list at the first number that is no GPU's
    return min(found, len(re.findall(r"[^\s,]+", before)))


def missing_inputs(stage: str, given: Mapping[str, Setting], outputs: Path) -> Iterator[str]:
    """Yield a complaint for each thing that the stage cannot read. A name that the Hugging Face hub may have passes.
    `outputs`: OUTPUT_ROOT."""
    for flag, wanted in MODELS.items():
        if flag not in given or not any(given[flag].values[:1]):
            continue
        name, *_ = given[flag].values
        if (stage, flag) == ("step2_reward", "model_name_or_path"):  # it starts from a model of either kind
            wanted = None
        why = model_complaint(name, wanted)
        if why:
            yield f"{why}; {remedy(given[flag], name, outputs)}"
    for flag in DATA:
        if flag not in given:
            continue
        for text in given[flag].values:
            path = Spec.of(text).path
            there = path in NAMED or Path(path).expanduser().exists()
            if not there and (is_path(path) or path.endswith(SUFFIXES)):
                yield f"{path}: no such file or folder; {remedy(given[flag], path, outputs)}"


def reads(given: Mapping[str, Setting], program: str) -> list[str | Path]:
    """Return the models and data that the stage reads."""
    models = [name for flag in given if flag.endswith("name_or_path") for name in given[flag].values]
    files = [file for name in models for file in model_files(name, program)]
    return [*files, *(Spec.of(text).path for flag in DATA if flag in given for text in given[flag].values)]


def model_complaint(name: str, wanted: str | None) -> str | None:
    """Return why a model cannot be read or is not of the kind `wanted` (None: either); None if nothing is wrong."""
    folder = Path(name).expanduser()
    if folder.is_file():
        return f"{name}: found a file; expected the folder of a model"
    if not folder.is_dir():
        if not is_path(name):
            return None
        return f"{name}: no such folder"
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return f"{name}: no config.json in this folder, so no model yet"
    except (OSError, ValueError) as error:
        return f"{folder / 'config.json'}: cannot be read: {error}"
    kind = LANGUAGE
    if "SequenceClassification" in str(config.get("architectures")):
        kind = REWARD
    if config.get("is_critic"):  # it has a reward model's head, but predicts what an unfinished answer is worth
        kind = CRITIC
    if wanted in (None, kind):
        return None
    return f"{name} is a {kind}; a {wanted} is wanted here"


def is_path(name: str) -> bool:
    """Return whether a name is a path: a hub's name has one slash at most, and is not in a folder that exists."""
    return name[0] in "/.~" or name.count("/") > 1 or ("/" in name and Path(name).parent.is_dir())


def remedy(setting: Setting, path: str, outputs: Path) -> str:
    """Return what to run first, the script whose OUTPUT is this folder or what makes the built-in world, or to set."""
    wanted = Path(path).expanduser().absolute()
    world = outputs.absolute() / "tutor" / "world"
    first = None
    if wanted.is_relative_to(world):
        first = f"`python data_collect/make_world.py --output_dir {world}`"
    for script in sorted(ROOT.glob("training/step*/run_*.sh")):
        made = re.search(r"^OUTPUT=\$\{OUTPUT:-\$OUTPUT_ROOT/(.+)\}", script.read_text(encoding="utf-8"), re.MULTILINE)
        if made and wanted == outputs.absolute() / made[1]:
            first = str(script.relative_to(ROOT))
    if first is None and wanted.is_relative_to(world.parent):
        first = "`bash run.sh`"
    if first:
        return f"run {first} first, or set {setting.name}"
    return f"set {setting.name} to one that exists"


if __name__ == "__main__":
    run_program(main)
