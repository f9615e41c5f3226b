#!/usr/bin/env bash
# DPO of Mistral-7B-Instruct: 8 GPUs of 80 GB, ZeRO-3.
# Beta, learning rate, schedule and warm-up for the reasons in run_dpo_llama.sh. The model comes with its SFT: all data
# are used.
# Edit the five lines below; any flag of main.py on the command line wins over those here: bash run_dpo_mistral.sh --seed 1
source "$(dirname "${BASH_SOURCE[0]}")/../launch.sh"

MODEL=${MODEL:-mistralai/Mistral-7B-Instruct-v0.2}
DATA=${DATA:-Anthropic/hh-rlhf}
OUTPUT=${OUTPUT:-$OUTPUT_ROOT/dpo_mistral}
GPUS=${GPUS:-8}
ZERO_STAGE=${ZERO_STAGE:-3}

launch \
    --loss sigmoid \
    --beta 0.1 \
    --max_prompt_seq_len 1024 \
    --max_answer_seq_len 1024 \
    --per_device_train_batch_size 2 \
    --gradient_accumulation_steps 4 \
    --learning_rate 5e-7 \
    --lr_scheduler_type linear \
    --warmup_ratio 0.1 \
    --num_train_epochs 1 \
    --gradient_checkpointing \
    --bf16 \
    --save_every epoch \
    -- "$@"
