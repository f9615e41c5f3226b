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
command -v python >/dev/null || { echo "error: no environment is active; type: source ${ROOT}/training/environment.sh" >&2; exit 2; }
export PYTHONPATH="${ROOT}${PYTHONPATH:+:${PYTHONPATH}}"    # this checkout wins, on every rank and node
: "${OUTPUT_ROOT:=${ROOT}/output}"

free_port() { python -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

# launch --flag value …: start main.py of this stage on GPUS ranks, with MODEL, DATA, OUTPUT and ZERO_STAGE as the
# run_*.sh sets them, from the folder in which the command was typed: relative paths are read from there. preflight.py
# names what is missing before anything is started or written. DS_ACCELERATOR=cpu starts GPUS ranks on the CPU. All
# output is shown and kept in OUTPUT/train.log. A mistake ends with exit code 2, Ctrl-C with 130, one line for all ranks.
launch() {
    local data words facts ranks device output word code=0
    [[ -n "${MODEL:-}" ]] || { echo "error: MODEL is empty; set it at the top of ${BASH_SOURCE[1]}" >&2; exit 2; }
    [[ -n "${DATA:-}" ]] || { echo "error: DATA is empty; set it at the top of ${BASH_SOURCE[1]}, or DATA=… bash ${BASH_SOURCE[1]##*/}" >&2; exit 2; }
    for word in "$@"; do
        [[ "${word}" == --help || "${word}" == -h ]] && exec python "${STAGE_DIR}/main.py" "$@"
    done
    read -r -a data <<<"${DATA}"                            # several data sets are separated by spaces
    words=("${STAGE_DIR}/main.py" --model_name_or_path "${MODEL}" --data_path "${data[@]}" --output_dir "${OUTPUT}"
        --zero_stage "${ZERO_STAGE}" "$@")
    if [[ -n "${DOCTOR:-}" ]]; then                          # look and train nothing: docs/doctor.md
        exec python "${ROOT}/training/doctor.py" "$(basename "${STAGE_DIR}")" --gpus "${GPUS:-1}" "${words[@]:1}"
    fi
    facts="$(GPUS="${GPUS:-}" HOSTFILE="${HOSTFILE:-}" OUTPUT_ROOT="${OUTPUT_ROOT}" \
        python "${ROOT}/training/preflight.py" "${words[@]}")"
    { read -r ranks; read -r device; read -r output; } <<<"${facts}"   # the folder of --output_dir, where that is given
    local starter=() launcher=(deepspeed --no_local_rank --log_level critical)   # a rank says why it ends
    if [[ -n "${HOSTFILE:-}" ]]; then
        # every node must know the port before it starts, so it cannot be whichever is free here: torchrun's default
        starter=("${launcher[@]}" --hostfile "${HOSTFILE}" --master_port "${MASTER_PORT:-29500}")
    elif [[ "${ranks}" -gt 1 ]]; then
        starter=("${launcher[@]}" --master_port "${MASTER_PORT:-$(free_port)}")
        if [[ "${device}" == gpu && "${CUDA_VISIBLE_DEVICES:-}" =~ ^[0-9,]+$ ]]; then   # which --num_gpus would ignore
            starter+=(--include "localhost:$(cut -d, -f "1-${ranks}" <<<"${CUDA_VISIBLE_DEVICES}")")
        else
            starter+=(--num_gpus "${ranks}")
        fi
        [[ "${device}" == cpu ]] && starter+=(--no_python)  # the words that start it follow
    fi
    if [[ "${device}" == cpu ]]; then
        export DS_ACCELERATOR=cpu OMP_NUM_THREADS="${OMP_NUM_THREADS:-$(( $(nproc) > ranks ? $(nproc) / ranks : 1 ))}"
        starter+=(env CUDA_VISIBLE_DEVICES= python -u)      # torch must not find GPUs that DeepSpeed does not use
    elif [[ "${#starter[@]}" -eq 0 ]]; then
        starter=(python -u)
    fi
    local made=""
    [[ -d "${output}" ]] || made="${output}"
    mkdir -p "${output}"
    cp "${BASH_SOURCE[1]}" "${output}/"                     # the script that made the model stays beside it
    if [[ "${starter[0]}" != deepspeed ]]; then
        "${starter[@]}" "${words[@]}" 2>&1 | tee -ai "${output}/train.log" || code=$?   # -i: Ctrl-C must not end it before the program
        (( code != 2 && code != 130 )) || leave_nothing "${made}"
        return "${code}"
    fi
    set -m                                                  # a process group of its own: its processes end together
    { "${starter[@]}" "${words[@]}" 2>&1 </dev/null | tee -a "${output}/train.log"; } &
    set +m
    trap 'end_ranks $! 130 interrupted "${output}"' INT
    trap 'end_ranks $! 143 terminated "${output}"' TERM HUP
    wait $! || code=$?
    (( code != 2 )) || leave_nothing "${made}"
    (( code <= 192 )) || echo "error: a rank was killed by signal $((256 - code)) (9: perhaps for want of memory)" >&2
    exit "${code}"
}

# leave_nothing FOLDER: remove the folder, made by this start, if the program ended before it wrote anything there
leave_nothing() {
    if [[ -n "$1" && -z "$(find "$1" -mindepth 1 ! -name 'run_*.sh' ! -name train.log)" ]]; then
        rm -f "$1"/run_*.sh "$1/train.log"
        rmdir "$1"
    fi
}

# end_ranks GROUP CODE WORD FOLDER: end every process of the group, say one line, exit
end_ranks() {
    trap '' INT TERM HUP
    kill -- "-$1" 2>/dev/null || true
    if [[ -e "$4/args.json" ]]; then echo "$3; run the same command again to continue" >&2; else echo "$3" >&2; fi
    exit "$2"
}
