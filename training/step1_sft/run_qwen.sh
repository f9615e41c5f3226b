#!/usr/bin/env bash
# Qwen2.5-7B with its own chat template: 8 GPUs of 80 GB, ZeRO-3.
# The learning rate is half of run_llama.sh's, a careful start: tune it.
# `--data_split 5,0,5` keeps half of the data for DPO.
# Edit the five lines below; any flag of main.py on the command line wins over those here: bash run_qwen.sh --seed 1
source "$(dirname "${BASH_SOURCE[0]}")/../launch.sh"

MODEL=${MODEL:-Qwen/Qwen2.5-7B}
DATA=${DATA:-Anthropic/hh-rlhf}
OUTPUT=${OUTPUT:-$OUTPUT_ROOT/sft_qwen}
GPUS=${GPUS:-8}
ZERO_STAGE=${ZERO_STAGE:-3}

launch \
    --max_prompt_seq_len 1024 \
    --max_answer_seq_len 1024 \
    --per_device_train_batch_size 4 \
    --gradient_accumulation_steps 4 \
    --learning_rate 1e-5 \
    --warmup_ratio 0.03 \
    --num_train_epochs 3 \
    --data_split 5,0,5 \
    --gradient_checkpointing \
    --bf16 \
    --save_every epoch \
    -- "$@"
