#!/usr/bin/env bash
# DPO of the SFT Llama-2-7B with LoRA: one GPU of 80 GB, or several; the reference is the model without its adapter.
# As run_dpo_llama.sh, 64 pairs a step; adapters bear ten times the learning rate of whole weights.
# Edit the five lines below; any flag of main.py on the command line wins over those here: bash run_dpo_llama_lora.sh --seed 1
source "$(dirname "${BASH_SOURCE[0]}")/../launch.sh"

MODEL=${MODEL:-$OUTPUT_ROOT/sft_llama}
DATA=${DATA:-Anthropic/hh-rlhf}
OUTPUT=${OUTPUT:-$OUTPUT_ROOT/dpo_llama_lora}
GPUS=${GPUS:-1}
ZERO_STAGE=${ZERO_STAGE:-2}

launch \
    --template llama2 \
    --lora_dim 64 \
    --loss sigmoid \
    --beta 0.1 \
    --max_prompt_seq_len 512 \
    --max_answer_seq_len 512 \
    --per_device_train_batch_size 4 \
    --gradient_accumulation_steps 16 \
    --learning_rate 5e-6 \
    --lr_scheduler_type linear \
    --warmup_ratio 0.1 \
    --num_train_epochs 1 \
    --data_split 5,0,5 \
    --gradient_checkpointing \
    --bf16 \
    -- "$@"
