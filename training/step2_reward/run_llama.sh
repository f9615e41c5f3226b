#!/usr/bin/env bash
# A reward model from Llama-2-7B on Anthropic HH: 8 GPUs of 80 GB, ZeRO-3. Expect accuracy near 0.7.
# Before: access to the model on the Hugging Face hub (HF_TOKEN), or MODEL=$OUTPUT_ROOT/sft_llama, which
# training/step1_sft/run_llama.sh makes. Memory: about 25 GB a GPU (6.7 B weights x 16 bytes / 8, activations of a
# batch). Time: about 1 hour on 8 A100s (50 M tokens x 54 GFLOP at 40 % of their peak). Both are estimates.
# One epoch: held-out accuracy shows whether a second one overfits. Warm-up and learning rate, for 64 pairs a step, are
# starting points to tune.
# Edit the five lines below; any flag of main.py on the command line wins over those here: bash run_llama.sh --seed 1
source "$(dirname "${BASH_SOURCE[0]}")/../launch.sh"

MODEL=${MODEL:-meta-llama/Llama-2-7b-hf}
DATA=${DATA:-Anthropic/hh-rlhf}
OUTPUT=${OUTPUT:-$OUTPUT_ROOT/reward_llama}
GPUS=${GPUS:-8}
ZERO_STAGE=${ZERO_STAGE:-3}

launch \
    --template llama2 \
    --max_prompt_seq_len 512 \
    --max_answer_seq_len 512 \
    --per_device_train_batch_size 4 \
    --gradient_accumulation_steps 2 \
    --learning_rate 5e-6 \
    --warmup_ratio 0.03 \
    --num_train_epochs 1 \
    --gradient_checkpointing \
    --bf16 \
    -- "$@"
