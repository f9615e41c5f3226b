#!/usr/bin/env bash
# Every test but those marked `full`, in a virtual environment of its own: bash test.sh [pytest options, as -k losses]
# With them, some minutes more: bash test.sh --all [pytest options]
set -euo pipefail
which=(-m "not full")
if [[ "${1:-}" == --all ]]; then which=(); shift; fi
source "$(dirname "${BASH_SOURCE[0]}")/training/environment.sh" test

ruff check .
workers="${WORKERS:-$(nproc)}"                             # before the next line, which nproc would heed
export OMP_NUM_THREADS=1                                    # the workers share the cores
python -m pytest -n "${workers}" --dist loadscope "${which[@]}" "$@"
