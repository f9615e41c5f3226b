#!/usr/bin/env bash
# Everything, on the built-in world: supervised fine-tuning, feedback, reward model, DPO, best-of-16, and the truth about
# each, in about fifteen minutes on two CPU cores. A second `bash run.sh` continues, or says that all is done.
#
#     bash run.sh            OUTPUT_ROOT=/scratch/out bash run.sh
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/training/environment.sh"
export OUTPUT_ROOT="${OUTPUT_ROOT:-${ROOT}/output}" HF_HUB_OFFLINE=1
T="${OUTPUT_ROOT}/tutor"
mkdir -p "${T}/.done"

# step NAME COMMAND …: run it, note its seconds; skipped when this very command has already succeeded
step() {
    local name="$1" started=${SECONDS} command; shift
    command="$(printf '%q ' "$@")"
    if [[ "$(head -n 1 "${T}/.done/${name}" 2>/dev/null)" == "${command}" ]]; then
        echo "── ${name}: done before"
        return
    fi
    echo "── ${name}"
    "$@"
    printf '%s\n%s\n' "${command}" "$((SECONDS - started))" >"${T}/.done/.${name}.partial"
    mv "${T}/.done/.${name}.partial" "${T}/.done/${name}"
}

# sample MODEL PROMPTS ANSWERS N: N answers to each prompt
sample() {
    python inference/chatbot.py --mode generate --model_name_or_path "$1" --data_path "$2" --output_path "$3" \
        --num_samples "$4" --temperature 1.0 --top_p 1.0 --top_k 0 --no_repeat_ngram_size 0 --max_new_tokens 80 \
        --batch_size $((256 / $4)) --bf16
}

# judge SPLIT: SFT's own answers to the prompts of a split, and the oracle's noisy verdicts on them
judge() {
    sample "${T}/sft" "${T}/world/prompts/$1.jsonl" "${T}/answers/for_feedback_$1.jsonl" 4
    python data_collect/label_world.py --data_path "${T}/answers/for_feedback_$1.jsonl" --output_path "${T}/feedback/$1.jsonl" \
        --pairs_per_prompt 0
}

# reward: from the oracle's verdicts on SFT's answers and on the teachers', measured on those on SFT's answers
reward() {
    DATA="${T}/feedback ${T}/world/pairs" bash training/step2_reward/run_tiny.sh --eval_data_path "${T}/feedback"
}

# best_of_16: SFT's 16 answers to each test prompt, scored by the reward model, the best kept
best_of_16() {
    sample "${T}/sft" "${T}/world/prompts/test.jsonl" "${T}/answers/sft_16.jsonl" 16
    python inference/chatbot.py --mode rm --model_name_or_path "${T}/reward" --data_path "${T}/answers/sft_16.jsonl" \
        --output_path "${T}/answers/sft_16_scored.jsonl" --bf16
    python inference/rerank.py --data_path "${T}/answers/sft_16_scored.jsonl" --n 16 --output_path "${T}/answers/best_of_16.jsonl"
}

truth() {
    python inference/evaluate_world.py --answers sft="${T}/answers/sft_16.jsonl" best_of_16="${T}/answers/best_of_16.jsonl" \
        dpo="${T}/answers/dpo.jsonl" --results "${T}/results.json"
}

step world          python data_collect/make_world.py --output_dir "${T}/world"
step sft            bash training/step1_sft/run_tiny.sh
step feedback       judge train
step test_feedback  judge test
step reward         reward
step dpo            bash training/step3_dpo/run_tiny.sh
step best_of_16     best_of_16
step dpo_answers    sample "${T}/dpo" "${T}/world/prompts/test.jsonl" "${T}/answers/dpo.jsonl" 4
step truth          truth
python inference/report.py --folder "${T}"
