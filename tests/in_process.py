"""Running a program in the tests' own process, as `python PATH …` runs it, without the seconds that a new one takes to
import torch. Not for ZeRO-3, which would go on sharding the models of other tests."""

from __future__ import annotations

import os
import runpy
import sys
from pathlib import Path

from stages import command

STAGES = SFT, REWARD, DPO = "step1_sft", "step2_reward", "step3_dpo"
PPO = "step3_ppo"


def run(path: Path | str, *words: object) -> int:
    """The exit code. A stage that is one process sets RANK and MASTER_PORT: they are taken back."""
    environment, argv = dict(os.environ), sys.argv
    sys.argv = [str(path), *map(str, words)]
    try:
        runpy.run_path(str(path), run_name="__main__")
    except SystemExit as stopped:
        return stopped.code or 0
    finally:
        sys.argv = argv
        os.environ.clear()
        os.environ.update(environment)
    return 0


def run_stage(stage: str, model: Path, data: Path, out: Path, cache: Path, *flags: str) -> int:
    """Its exit code; the flags win over those of stages.command()."""
    words = command(stage, model, data, out)[1:]
    words[words.index("--cache_dir") + 1] = str(cache)
    return run(*words, *flags)
