#!/usr/bin/env bash
# PPO of the SFT Llama-2-7B with LoRA: one or several GPUs of 80 GB. The actor without its
# adapter is the reference: no second copy.
# As run_ppo_llama.sh, with half the prompts a rollout for one GPU; adapters bear ten times the learning rate.
# Edit the five lines below; any flag of main.py on the command line wins over those here: bash run_ppo_llama_lora.sh --seed 1
source "$(dirname "${BASH_SOURCE[0]}")/../launch.sh"

MODEL=${MODEL:-$OUTPUT_ROOT/sft_llama}
DATA=${DATA:-Anthropic/hh-rlhf}
OUTPUT=${OUTPUT:-$OUTPUT_ROOT/ppo_llama_lora}
GPUS=${GPUS:-1}
ZERO_STAGE=${ZERO_STAGE:-2}

launch \
    --reward_model_name_or_path "${REWARD:-$OUTPUT_ROOT/reward_llama_lora}" \
    --template llama2 \
    --lora_dim 64 \
    --max_prompt_seq_len 512 \
    --max_answer_seq_len 512 \
    --prompts_per_rollout 64 \
    --samples_per_prompt 4 \
    --generation_batch_size 16 \
    --minibatches 4 \
    --ppo_epochs 1 \
    --per_device_train_batch_size 2 \
    --per_device_eval_batch_size 4 \
    --learning_rate 1e-5 \
    --critic_learning_rate 2e-5 \
    --lr_scheduler_type constant_with_warmup \
    --warmup_steps 20 \
    --value_warmup 5 \
    --kl_coef 0.05 \
    --normalize_scores \
    --offload_reference_and_reward \
    --gradient_checkpointing \
    --data_split 4,3,3 \
    --max_eval_samples 256 \
    --max_steps 300 \
    --eval_every 50 \
    --save_every 100 \
    --checkpoint_every 10 \
    --bf16 \
    -- "$@"
