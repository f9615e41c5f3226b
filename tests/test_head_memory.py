"""A step of a model with 128,000 words never holds all its logits."""

import subprocess
import sys

import pytest
from toys import ROOT

PROGRAM = ROOT / "tests" / "benchmarks" / "head_memory.py"
ENVIRONMENT = {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def peak(how: str) -> float:
    words = [sys.executable, str(PROGRAM), "--how", how, "--positions", "3072"]
    return float(subprocess.run(words, env=ENVIRONMENT, capture_output=True, text=True, check=True).stdout)


@pytest.mark.full
def test_a_step_takes_at_most_half_the_memory_of_whole_logits():
    """Beyond the process itself; docs/scaling.md has the numbers of 4,096 positions."""
    idle = peak("idle")
    assert peak("chunked") - idle <= 0.5 * (peak("whole") - idle)
