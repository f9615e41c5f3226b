"""What the stages share. Import its modules, not this package.

A real package, not a namespace: a stray `utils` elsewhere on the path must not win. Every program imports it first, so
it checks here, before anything slow is imported, that the program can run, and makes Ctrl-C one line until then.
"""

import os
import signal
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).resolve().parents[1]
COLLECTING = ("numpy", "rich", "transformers")
TRAINING = (*COLLECTING, "torch", "deepspeed", "datasets", "peft")
NEEDED = {"data_collect": COLLECTING, "inference": TRAINING, "training": TRAINING}  # packages, by a program's folder


def _check_program() -> None:
    """Refuse a program of another checkout (an editable install of the first, say), and an environment that lacks a
    package."""
    program = Path(getattr(sys.modules.get("__main__"), "__file__", None) or ".").resolve()
    for folder in program.parents:
        if (folder / "utils" / "__init__.py").is_file() and (folder / "training" / "launch.sh").is_file():
            if folder != ROOT:
                _refuse(
                    f"{program} would run with the utils of another checkout, {ROOT / 'utils'}; "
                    f"set PYTHONPATH={folder} or run `pip install -e {folder}`"
                )
            top = program.relative_to(ROOT).parts[0]
            missing = [package for package in NEEDED.get(top, ()) if find_spec(package) is None]
            if missing:
                _refuse(
                    f"{sys.executable} lacks the package {missing[0]}; activate the project's environment: "
                    f"source {ROOT}/training/environment.sh"
                )
            if top in NEEDED and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
                signal.signal(signal.SIGINT, _interrupted)
            return


def _refuse(message: str) -> NoReturn:
    sys.stderr.write(f"error: {message}\n")
    raise SystemExit(2)


def _interrupted(*_: Any) -> NoReturn:
    """End at Ctrl-C while a program still imports; `run_program` handles it afterwards."""
    if os.environ.get("RANK", "0") == "0":
        os.write(2, b"interrupted\n")
    os._exit(130)


_check_program()
