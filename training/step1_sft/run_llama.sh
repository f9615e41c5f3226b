#!/usr/bin/env bash
# Llama-2-7B on Anthropic HH's chosen answers: 8 GPUs of 80 GB, ZeRO-3, global batch 128.
# Before: access to the model on the Hugging Face hub (HF_TOKEN), or MODEL=/a/folder. Nothing else.
# Memory: about 25 GB a GPU (6.7 B weights x 16 bytes / 8, activations of 4,096 tokens). Time: about 1 hour on 8 A100s
# (60 M tokens x 54 GFLOP at 40 % of their peak). Both are estimates, not measurements.
# Learning rate and epochs are those with which Sonkar et al. 2024 (arXiv:2402.05000) fine-tune 7B models; warm-up and
# batch are starting points to tune. `--data_split 5,0,5` keeps half of the data for DPO.
# Edit the five lines below; any flag of main.py on the command line wins over those here: bash run_llama.sh --seed 1
source "$(dirname "${BASH_SOURCE[0]}")/../launch.sh"

MODEL=${MODEL:-meta-llama/Llama-2-7b-hf}
DATA=${DATA:-Anthropic/hh-rlhf}
OUTPUT=${OUTPUT:-$OUTPUT_ROOT/sft_llama}
GPUS=${GPUS:-8}
ZERO_STAGE=${ZERO_STAGE:-3}

launch \
    --template llama2 \
    --max_prompt_seq_len 512 \
    --max_answer_seq_len 512 \
    --per_device_train_batch_size 4 \
    --gradient_accumulation_steps 4 \
    --learning_rate 2e-5 \
    --weight_decay 0.0 \
    --warmup_ratio 0.03 \
    --num_train_epochs 3 \
    --data_split 5,0,5 \
    --gradient_checkpointing \
    --bf16 \
    --save_every epoch \
    -- "$@"
