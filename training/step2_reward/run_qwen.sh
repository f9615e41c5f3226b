#!/usr/bin/env bash
# A reward model from Qwen2.5-7B: 8 GPUs of 80 GB, ZeRO-3.
# Learning rate, warm-up and one epoch for the reasons in run_llama.sh.
# Edit the five lines below; any flag of main.py on the command line wins over those here: bash run_qwen.sh --seed 1
source "$(dirname "${BASH_SOURCE[0]}")/../launch.sh"

MODEL=${MODEL:-Qwen/Qwen2.5-7B}
DATA=${DATA:-Anthropic/hh-rlhf}
OUTPUT=${OUTPUT:-$OUTPUT_ROOT/reward_qwen}
GPUS=${GPUS:-8}
ZERO_STAGE=${ZERO_STAGE:-3}

launch \
    --max_prompt_seq_len 1024 \
    --max_answer_seq_len 1024 \
    --per_device_train_batch_size 4 \
    --gradient_accumulation_steps 2 \
    --learning_rate 5e-6 \
    --warmup_ratio 0.03 \
    --num_train_epochs 1 \
    --gradient_checkpointing \
    --bf16 \
    -- "$@"
