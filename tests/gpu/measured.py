"""Run a program as `python PROGRAM FLAGS …` does, and write down the most memory that it took and its seconds.

    python -m gpu.measured FACTS.json training/step1_sft/main.py --model_name_or_path …

The model is not saved at the end: with 8 billion weights that takes longer than the steps that are measured.
"""

from __future__ import annotations

import runpy
import sys
import time
from pathlib import Path

from gpu.common import peak_gib, synchronize

from utils.reporting import write_json
from utils.training import saving


def main() -> None:
    facts, program, *flags = sys.argv[1:]
    saving.save = lambda *_: None
    sys.argv = [program, *flags]
    start = time.perf_counter()
    runpy.run_path(program, run_name="__main__")
    synchronize()
    write_json(Path(facts), {"peak_gib": peak_gib(), "program_seconds": time.perf_counter() - start})


if __name__ == "__main__":
    main()
