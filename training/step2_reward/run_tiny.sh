#!/usr/bin/env bash
# The built-in world: a reward model from the SFT model, in about two minutes on two CPU cores. It learns from verdicts
# on the SFT model's answers and on the teachers', and is measured on held-out verdicts on the SFT model's.
# A small model bears a learning rate a hundred times that of a 7B model.
# Edit the five lines below; any flag of main.py on the command line wins over those here: bash run_tiny.sh --seed 1
source "$(dirname "${BASH_SOURCE[0]}")/../launch.sh"

MODEL=${MODEL:-$OUTPUT_ROOT/tutor/sft}
DATA=${DATA:-$OUTPUT_ROOT/tutor/feedback $OUTPUT_ROOT/tutor/world/pairs}
OUTPUT=${OUTPUT:-$OUTPUT_ROOT/tutor/reward}
GPUS=${GPUS:-1}
ZERO_STAGE=${ZERO_STAGE:-1}

HELD_OUT=                                                   # other data sets are measured on their own test splits
[[ "$DATA" != "$OUTPUT_ROOT/tutor/feedback "* ]] || HELD_OUT=$OUTPUT_ROOT/tutor/feedback
launch \
    ${HELD_OUT:+--eval_data_path "$HELD_OUT"} \
    --max_prompt_seq_len 192 \
    --max_answer_seq_len 96 \
    --per_device_train_batch_size 16 \
    --learning_rate 5e-4 \
    --warmup_ratio 0.05 \
    --num_train_epochs 2 \
    --bf16 \
    --logging_steps 50 \
    --checkpoint_every 50 \
    -- "$@"
