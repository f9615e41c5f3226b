#!/usr/bin/env bash
# The built-in world: a small Llama from nothing, in about five minutes on two CPU cores.
# A few million random weights bear a learning rate a hundred times that of a 7B model, and need several epochs.
# Edit the five lines below; any flag of main.py on the command line wins over those here: bash run_tiny.sh --seed 1
source "$(dirname "${BASH_SOURCE[0]}")/../launch.sh"

MODEL=${MODEL:-$OUTPUT_ROOT/tutor/world/model}
DATA=${DATA:-$OUTPUT_ROOT/tutor/world/sft}
OUTPUT=${OUTPUT:-$OUTPUT_ROOT/tutor/sft}
GPUS=${GPUS:-1}
ZERO_STAGE=${ZERO_STAGE:-1}

launch \
    --from_scratch \
    --max_prompt_seq_len 192 \
    --max_answer_seq_len 96 \
    --per_device_train_batch_size 16 \
    --learning_rate 3e-3 \
    --weight_decay 0.05 \
    --warmup_ratio 0.05 \
    --num_train_epochs 5 \
    --bf16 \
    --logging_steps 50 \
    --checkpoint_every 250 \
    --sample_during_eval 4 \
    -- "$@"
