"""A step of a model with 128,000 words never holds all its logits."""

import subprocess
import sys

from toys import ROOT


def test_a_step_takes_at_most_half_the_memory_of_whole_logits():
    """docs/scaling.md has 4,096 positions; here are half as many."""
    started = {
        how: subprocess.Popen(
            [sys.executable, str(ROOT / "tests" / "benchmarks" / "head_memory.py"), "--how", how], stdout=subprocess.PIPE, text=True,
            env={"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        )
        for how in ("idle", "chunked", "whole")
    }  # fmt: skip
    peak = {how: float(process.communicate()[0]) for how, process in started.items()}
    assert peak["chunked"] - peak["idle"] <= 0.6 * (peak["whole"] - peak["idle"]), peak
