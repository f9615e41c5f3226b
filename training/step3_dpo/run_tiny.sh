#!/usr/bin/env bash
# The built-in world: DPO from the SFT model, in about two minutes on two CPU cores.
# A small model bears a learning rate a hundred times that of a 7B model, and needs a second epoch.
# Edit the five lines below; any flag of main.py on the command line wins over those here: bash run_tiny.sh --seed 1
source "$(dirname "${BASH_SOURCE[0]}")/../launch.sh"

MODEL=${MODEL:-$OUTPUT_ROOT/tutor/sft}
DATA=${DATA:-$OUTPUT_ROOT/tutor/feedback}
OUTPUT=${OUTPUT:-$OUTPUT_ROOT/tutor/dpo}
GPUS=${GPUS:-1}
ZERO_STAGE=${ZERO_STAGE:-1}

launch \
    --loss sigmoid \
    --beta 0.1 \
    --max_prompt_seq_len 192 \
    --max_answer_seq_len 96 \
    --per_device_train_batch_size 32 \
    --learning_rate 1e-4 \
    --warmup_ratio 0.1 \
    --num_train_epochs 2 \
    --bf16 \
    --logging_steps 50 \
    --checkpoint_every 50 \
    --sample_during_eval 4 \
    -- "$@"
