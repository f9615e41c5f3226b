#!/usr/bin/env bash
# Everything, on the built-in world: supervised fine-tuning, feedback, reward model, DPO, PPO, best-of-16, and the truth
# about each, in about fifteen minutes on two CPU cores. A second `bash run.sh` continues, or says that all is done.
#
#     bash run.sh            OUTPUT_ROOT=/scratch/out bash run.sh
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/training/environment.sh"
export OUTPUT_ROOT="${OUTPUT_ROOT:-${ROOT}/output}" HF_HUB_OFFLINE=1
T="${OUTPUT_ROOT}/tutor"
mkdir -p "${T}/.done"

# step NAME COMMAND …: run it, note its number and seconds; skipped when this very command has already succeeded
STEPS=0
step() {
    local name="$1" started=${SECONDS} command seconds; shift
    command="$(printf '%q ' "$@")"
    if [[ "$(head -n 1 "${T}/.done/${name}" 2>/dev/null)" == "${command}" ]]; then
        echo "── ${name}: done before"
        seconds="$(tail -n 1 "${T}/.done/${name}")"
    else
        echo "── ${name}"
        "$@"
        seconds="$((SECONDS - started))"
    fi
    STEPS=$((STEPS + 1))
    printf '%s\n%s %s\n' "${command}" "${STEPS}" "${seconds##* }" >"${T}/.done/.${name}.partial"
    mv "${T}/.done/.${name}.partial" "${T}/.done/${name}"
}

# sample MODEL PROMPTS ANSWERS N: N answers to each prompt
sample() {
    python inference/chatbot.py --mode generate --model_name_or_path "$1" --data_path "$2" --output_path "$3" \
        --num_samples "$4" --temperature 1.0 --top_p 1.0 --top_k 0 --no_repeat_ngram_size 0 --max_new_tokens 80 \
        --batch_size $((256 / $4)) --bf16
}

# score ANSWERS SCORED: the reward model's score of every answer
score() {
    python inference/chatbot.py --mode rm --model_name_or_path "${T}/reward" --data_path "$1" --output_path "$2" --bf16
}

# oracle: start the world's judge as a server of OpenAI's API, unless it runs; it ends with this script
oracle() {
    [[ -z "${ORACLE:-}" ]] || return 0
    rm -f "${T}/oracle.url"
    python data_collect/oracle_server.py --port 0 --url_file "${T}/oracle.url" --parent_pid $$ >"${T}/oracle.log" 2>&1 &
    for _ in {1..300}; do [[ -s "${T}/oracle.url" ]] && break; sleep 0.2; done
    ORACLE="$(cat "${T}/oracle.url")" || { cat "${T}/oracle.log"; exit 2; }
}

# ask KIND INPUT OUTPUT [FLAGS]: feedback of the oracle, through the client, the ledger and the parsers of any other judge
ask() {
    oracle
    python data_collect/request.py --kind "$1" --input_files "$2" --output_file "$3" --ledger "${T}/asked/ledger" \
        --api_type oracle --base_url "${ORACLE}" --temperature 0 "${@:4}"
}

# feedback: SFT answers, the oracle compares them two by two, rates, criticises and refines some; sets of all that
feedback() {
    local answers="${T}/answers/for_feedback_train.jsonl" asked="${T}/asked"
    sample "${T}/sft" "${T}/world/prompts/train.jsonl" "${answers}" 4
    ask ranking "${answers}" "${asked}/rankings.jsonl" --orders random
    ask rating "${answers}" "${asked}/ratings.jsonl" --nums 200
    ask critique "${answers}" "${asked}/critiques.jsonl" --nums 200
    ask improve "${asked}/critiques.jsonl" "${asked}/improved.jsonl"
    ask refinement "${answers}" "${asked}/refinements.jsonl" --nums 200
    python data_collect/pairs.py --data_path "${asked}"/{rankings,ratings,improved,refinements}.jsonl --form sets --stats \
        --valid_share 0 --output_dir "${T}/feedback"
    python data_collect/ledger.py report --ledger "${asked}/ledger"
}

# test_feedback: noisy verdicts on answers to unseen prompts, for measuring the reward model
test_feedback() {
    sample "${T}/sft" "${T}/world/prompts/test.jsonl" "${T}/answers/for_feedback_test.jsonl" 4
    ask ranking "${T}/answers/for_feedback_test.jsonl" "${T}/feedback/test.jsonl" --orders random
}

# best_of_16: SFT's 16 answers to each test prompt, scored by the reward model, the best kept
best_of_16() {
    sample "${T}/sft" "${T}/world/prompts/test.jsonl" "${T}/answers/sft_16.jsonl" 16
    score "${T}/answers/sft_16.jsonl" "${T}/answers/sft_16_scored.jsonl"
    python inference/rerank.py --data_path "${T}/answers/sft_16_scored.jsonl" --n 16 --output_path "${T}/answers/best_of_16.jsonl"
}

# test_answers NAME: a policy's 4 answers to each test prompt, scored by the reward model
test_answers() {
    sample "${T}/$1" "${T}/world/prompts/test.jsonl" "${T}/answers/$1.jsonl" 4
    score "${T}/answers/$1.jsonl" "${T}/answers/$1_scored.jsonl"
}

truth() {
    python inference/evaluate_world.py --answers sft="${T}/answers/sft_16_scored.jsonl" best_of_16="${T}/answers/best_of_16.jsonl" \
        dpo="${T}/answers/dpo_scored.jsonl" ppo="${T}/answers/ppo_scored.jsonl" --results "${T}/results.json"
}

step world          python data_collect/make_world.py --output_dir "${T}/world"
step sft            bash training/step1_sft/run_tiny.sh
step feedback       feedback
step test_feedback  test_feedback
step reward         bash training/step2_reward/run_tiny.sh
step dpo            bash training/step3_dpo/run_tiny.sh
step ppo            bash training/step3_ppo/run_ppo_tiny.sh
step best_of_16     best_of_16
step dpo_answers    test_answers dpo
step ppo_answers    test_answers ppo
step truth          truth
python inference/report.py --folder "${T}"
