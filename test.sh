#!/usr/bin/env bash
# Every test, in a virtual environment of its own: bash test.sh [pytest options, as -k losses]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/training/environment.sh" test

ruff check .
export OMP_NUM_THREADS=1                                    # two workers share the cores
python -m pytest -n "${WORKERS:-$(nproc)}" --dist loadscope "$@"
