# shellcheck shell=bash
# The machinery behind every run_*.sh: sourced, never run. An experiment is edited in its run_*.sh, a cluster in
# training/cluster.sh (optional, not in git; see cluster.sh.example).
set -euo pipefail

STAGE_DIR="$(cd "$(dirname "${BASH_SOURCE[1]}")" && pwd)"   # the folder of the run_*.sh
ROOT="$(cd "${STAGE_DIR}/../.." && pwd)"
# shellcheck source=/dev/null
[[ -f "${ROOT}/training/cluster.sh" ]] && source "${ROOT}/training/cluster.sh"
if [[ -z "${VIRTUAL_ENV:-}" && -f "${ROOT}/.venv/bin/activate" ]]; then
    # shellcheck source=/dev/null
    source "${ROOT}/.venv/bin/activate"
fi
export PYTHONPATH="${ROOT}${PYTHONPATH:+:${PYTHONPATH}}"    # this checkout wins, on every rank and node
: "${OUTPUT_ROOT:=${ROOT}/output}"

free_port() { python -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
gpus() { nvidia-smi --list-gpus 2>/dev/null | wc -l; }

# launch --flag value …: start main.py of this stage on GPUS ranks, with MODEL, DATA, OUTPUT and ZERO_STAGE as the
# run_*.sh sets them. Everything said is shown and kept in OUTPUT/train.log.
launch() {
    local ranks="${GPUS:-$(gpus)}" data
    [[ -n "${MODEL:-}" ]] || { echo "error: MODEL is empty; set it at the top of ${BASH_SOURCE[1]}" >&2; exit 2; }
    [[ -n "${DATA:-}" ]] || { echo "error: DATA is empty; set it at the top of ${BASH_SOURCE[1]}, or DATA=… bash ${BASH_SOURCE[1]##*/}" >&2; exit 2; }
    read -r -a data <<<"${DATA}"                            # several data sets are separated by spaces
    if [[ "${ranks}" -gt "$(gpus)" || "$(gpus)" -eq 0 ]]; then
        export DS_ACCELERATOR=cpu OMP_NUM_THREADS="${OMP_NUM_THREADS:-$(( $(nproc) > ranks && ranks > 0 ? $(nproc) / ranks : 1 ))}"
    fi
    local starter=(python)
    if [[ -n "${HOSTFILE:-}" ]]; then
        starter=(deepspeed --no_local_rank --hostfile "${HOSTFILE}" --master_port "${MASTER_PORT:-29500}")
    elif [[ "${ranks}" -gt 1 ]]; then
        starter=(deepspeed --no_local_rank --num_gpus "${ranks}" --master_port "${MASTER_PORT:-$(free_port)}")
    fi
    mkdir -p "${OUTPUT}"
    cp "${BASH_SOURCE[1]}" "${OUTPUT}/"                     # the script that made the model stays beside it
    cd "${STAGE_DIR}"
    "${starter[@]}" main.py --model_name_or_path "${MODEL}" --data_path "${data[@]}" --output_dir "${OUTPUT}" \
        --zero_stage "${ZERO_STAGE}" "$@" 2>&1 | tee -a "${OUTPUT}/train.log"
}
