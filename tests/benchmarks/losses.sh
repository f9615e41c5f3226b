#!/usr/bin/env bash
# What policy losses are worth in the built-in world: after `bash run.sh`, each trains the SFT model on the same feedback,
# answers the same 400 prompts, and the oracle judges. About two minutes a loss on two CPU cores.
#
#     bash tests/benchmarks/losses.sh
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../../training/environment.sh"
export OUTPUT_ROOT="${OUTPUT_ROOT:-${ROOT}/output}" HF_HUB_OFFLINE=1
T="${OUTPUT_ROOT}/tutor" L="${OUTPUT_ROOT}/losses"

# SimPO and ORPO read mean log-probs per token, so their beta and their learning rate are on another scale than DPO's.
declare -A FLAGS=(
    [sigmoid]="" [ipo]="" [kto]=""
    [orpo]="--orpo_lambda 1.0 --learning_rate 2e-4"
    [simpo]="--beta 2.0 --simpo_gamma 1.0"
)
named=()
for loss in sigmoid ipo kto orpo simpo; do
    # shellcheck disable=SC2086
    OUTPUT="${L}/${loss}" bash training/step3_dpo/run_tiny.sh --loss "${loss}" ${FLAGS[${loss}]} "$@"
    python inference/chatbot.py --mode generate --model_name_or_path "${L}/${loss}" --bf16 --num_samples 4 --batch_size 64 \
        --data_path "${T}/world/prompts/test.jsonl" --output_path "${L}/${loss}.jsonl" --max_new_tokens 80
    named+=("${loss}=${L}/${loss}.jsonl")
done
python inference/evaluate_world.py --answers sft="${T}/answers/sft_16_scored.jsonl" "${named[@]}" --results "${L}/results.json"
