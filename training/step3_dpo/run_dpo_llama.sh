#!/usr/bin/env bash
# DPO of the SFT Llama-2-7B on Anthropic HH: 8 GPUs of 80 GB, ZeRO-3, 64 pairs a step. Expect accuracy 0.6 to 0.7.
# Before: training/step1_sft/run_llama.sh, or MODEL=/a/folder.
# Memory: about 25 GB a GPU (6.7 B weights x 16 bytes / 8, activations of a batch). Time: about 45 minutes on 8 A100s
# (25 M tokens x 67 GFLOP at 40 % of their peak, reference log-probs included). Both are estimates, not measurements.
# Beta, batch, learning rate, schedule and warm-up are starting points to tune: a larger beta holds the policy closer to
# the reference. `--data_split 5,0,5` takes the half of the data that SFT did not see.
# Edit the five lines below; any flag of main.py on the command line wins over those here: bash run_dpo_llama.sh --seed 1
source "$(dirname "${BASH_SOURCE[0]}")/../launch.sh"

MODEL=${MODEL:-$OUTPUT_ROOT/sft_llama}
DATA=${DATA:-Anthropic/hh-rlhf}
OUTPUT=${OUTPUT:-$OUTPUT_ROOT/dpo_llama}
GPUS=${GPUS:-8}
ZERO_STAGE=${ZERO_STAGE:-3}

launch \
    --template llama2 \
    --loss sigmoid \
    --beta 0.1 \
    --max_prompt_seq_len 512 \
    --max_answer_seq_len 512 \
    --per_device_train_batch_size 2 \
    --gradient_accumulation_steps 4 \
    --learning_rate 5e-7 \
    --lr_scheduler_type linear \
    --warmup_ratio 0.1 \
    --num_train_epochs 1 \
    --data_split 5,0,5 \
    --gradient_checkpointing \
    --bf16 \
    --save_every epoch \
    -- "$@"
