#!/usr/bin/env bash
# Checks and numbers that need a GPU; without one the same code runs on tiny shapes on the CPU.
#
#     bash tests/gpu/run.sh list                          the parts, and how long each may take
#     bash tests/gpu/run.sh all                           every part; the numbers go into docs/numbers.md
#     SIZE=8b-lora bash tests/gpu/run.sh speed_ppo        one part, at most eight minutes
#     bash tests/gpu/run.sh table                         docs/numbers.md again, from the results file
#
# SIZE: 0.5b, 1.5b, 8b-lora (several with commas; unset: all). DEVICE=cpu: as if there were no GPU. RESULTS: the JSON
# file, output/gpu/results.json. Whatever environment is active is used; nothing is installed.
set -euo pipefail
ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
if [[ -z "${VIRTUAL_ENV:-}" && -f "${ROOT}/.venv/bin/activate" ]]; then
    # shellcheck source=/dev/null
    source "${ROOT}/.venv/bin/activate"
fi
export PYTHONPATH="${ROOT}:${ROOT}/tests" HF_HUB_OFFLINE=1 PYTHONUNBUFFERED=1 TOKENIZERS_PARALLELISM=false
if [[ "${DEVICE:-}" == cpu ]]; then
    export CUDA_VISIBLE_DEVICES=
fi
if command -v python >/dev/null; then python=python; else python=python3; fi
exec "${python}" -m gpu.suite "${@:-all}" --size "${SIZE:-}" --results "${RESULTS:-${ROOT}/output/gpu/results.json}"
