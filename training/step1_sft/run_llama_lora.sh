#!/usr/bin/env bash
# Llama-2-7B with LoRA: one GPU of 80 GB, or several.
# Rank and learning rate are starting points to tune: adapters start from zero and bear ten times the rate of whole
# weights. `--data_split 5,0,5` keeps half of the data for DPO.
# Edit the five lines below; any flag of main.py on the command line wins over those here: bash run_llama_lora.sh --seed 1
source "$(dirname "${BASH_SOURCE[0]}")/../launch.sh"

MODEL=${MODEL:-meta-llama/Llama-2-7b-hf}
DATA=${DATA:-Anthropic/hh-rlhf}
OUTPUT=${OUTPUT:-$OUTPUT_ROOT/sft_llama_lora}
GPUS=${GPUS:-1}
ZERO_STAGE=${ZERO_STAGE:-2}

launch \
    --template llama2 \
    --lora_dim 64 \
    --max_prompt_seq_len 512 \
    --max_answer_seq_len 512 \
    --per_device_train_batch_size 8 \
    --gradient_accumulation_steps 8 \
    --learning_rate 2e-4 \
    --warmup_ratio 0.03 \
    --num_train_epochs 3 \
    --data_split 5,0,5 \
    --gradient_checkpointing \
    --bf16 \
    -- "$@"
