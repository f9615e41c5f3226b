#!/usr/bin/env bash
# Every test, in a virtual environment of its own: bash test.sh [pytest options, as -k losses]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/training/environment.sh" test

ruff check .
workers="${WORKERS:-$(nproc)}"                             # before the next line, which nproc would heed
export OMP_NUM_THREADS=1                                    # the workers share the cores
python -m pytest -n "${workers}" --dist loadscope "$@"
