#!/usr/bin/env bash
# Win rate of a checkpoint on AlpacaEval's instructions: generate, judge through the ledger, print.
#
#   REFERENCE=alpaca_eval.json bash inference/eval_ckpt.sh GPU CHECKPOINT RUN_NAME [ANNOTATOR] [TEMPERATURE] [MODEL_NAME]
#   REFERENCE=alpaca_eval.json bash inference/eval_ckpt.sh 0 output/dpo_llama mistral7b_dpo gpt4 0.7
#
# ANNOTATOR    gpt4, claude, chatgpt, another model's name, or all: gpt4 and claude (claude)
# TEMPERATURE  of the answers; 0 is greedy (0.7)
# MODEL_NAME   whose tokenizer is used where the checkpoint has none of its own
#
# The same command continues: nothing is generated or paid for twice. Keys are read from OPENAI_API_KEY and
# ANTHROPIC_API_KEY.
set -euo pipefail

REFERENCE="${REFERENCE:-}"              # outputs to compare with: JSON list of instruction, output, generator
OUTPUT="${OUTPUT:-output/alpaca_eval}"  # the results are in a folder of it, named by RUN_NAME
GENERATE="${GENERATE:---top_p 0.9 --max_new_tokens 512}"  # further options of chatbot.py --mode generate
JUDGE="${JUDGE:-}"                      # further options of data_collect/request.py: --base_url, --max_usd

if [[ $# -lt 3 || $# -gt 6 ]]; then
    echo "error: found $# arguments; expected GPU CHECKPOINT RUN_NAME [ANNOTATOR] [TEMPERATURE] [MODEL_NAME]" >&2
    exit 2
fi
GPU="$1" CHECKPOINT="$2" RUN_NAME="$3" ANNOTATOR="${4:-claude}" TEMPERATURE="${5:-0.7}" MODEL_NAME="${6:-}"
[[ -f "${REFERENCE}" ]] || { echo "error: REFERENCE '${REFERENCE}' is no file; expected the outputs to compare with" >&2; exit 2; }
ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
if [[ -z "${VIRTUAL_ENV:-}" && -f "${ROOT}/.venv/bin/activate" ]]; then
    # shellcheck source=/dev/null
    source "${ROOT}/.venv/bin/activate"
fi
export PYTHONPATH="${ROOT}${PYTHONPATH:+:${PYTHONPATH}}" CUDA_VISIBLE_DEVICES="${GPU}"

case "${ANNOTATOR}" in
    all) annotators=(gpt4 claude) ;;
    claude_2) annotators=(claude) ;;    # that model is no longer served
    *) annotators=("${ANNOTATOR}") ;;
esac
read -r -a generate <<<"${GENERATE}"
read -r -a judge <<<"${JUDGE}"
if [[ "${TEMPERATURE}" =~ ^0*\.?0*$ ]]; then
    sampling=(--num_samples 0)
    # A greedy answer has no top-p.
    read -r -a generate <<<"$(sed -E 's/--top_p +[^ ]+//' <<<"${GENERATE}")"
else
    sampling=(--num_samples 1 --temperature "${TEMPERATURE}")
fi
[[ -z "${MODEL_NAME}" || -f "${CHECKPOINT}/tokenizer_config.json" ]] || generate+=(--tokenizer_name_or_path "${MODEL_NAME}")

folder="${OUTPUT}/${RUN_NAME}"
mkdir -p "${folder}"
python "${ROOT}/inference/chatbot.py" --mode generate --model_name_or_path "${CHECKPOINT}" --data_path "${REFERENCE}" \
    --output_path "${folder}/answers.jsonl" "${sampling[@]}" "${generate[@]}"
python "${ROOT}/inference/eval_alpaca.py" --model_outputs "${folder}/answers.jsonl" --generator "${RUN_NAME}" \
    --output_dir "${folder}"
for annotator in "${annotators[@]}"; do
    judged="${folder}/${annotator//\//_}"
    python "${ROOT}/data_collect/request.py" --kind label --api_type "${annotator}" --model1_name "${RUN_NAME}" \
        --model2_name reference --input_files "${folder}/model_outputs.json" "${REFERENCE}" \
        --max_num_comparisons 1000000 --output_file "${judged}/annotations.json" "${judge[@]}"
    python "${ROOT}/inference/eval_alpaca.py" --annotations "${judged}/annotations.json" --generator "${RUN_NAME}" \
        --model_outputs "${folder}/model_outputs.json" --json "${judged}/win_rate.json"
done
