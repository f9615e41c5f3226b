#!/usr/bin/env bash
# PPO of the SFT Llama-2-7B with the reward model of step 2: 8 GPUs of 80 GB, ZeRO-3, 512 answers a rollout.
# Before: training/step1_sft/run_llama.sh and training/step2_reward/run_llama.sh, or MODEL= and REWARD=/a/folder.
# Memory: about 65 GB a GPU (actor and critic 27 GB, the actor's whole weights 13 GB and the cache of 64 answers 21 GB
# during a rollout). Time: about 5 hours on 8 A100s (a minute a rollout and its updates). Both are estimates.
# Each answer is learned from once, in 4 steps: the policy stays near the one that wrote it. The critic learns 5 times
# as fast, and alone for 5 rollouts: advantages of a critic that knows nothing are noise. `--data_split 4,3,3` takes
# prompts that SFT, with its 5,0,5, did not see.
# Edit the five lines below; any flag of main.py on the command line wins over those here: bash run_ppo_llama.sh --seed 1
source "$(dirname "${BASH_SOURCE[0]}")/../launch.sh"

MODEL=${MODEL:-$OUTPUT_ROOT/sft_llama}
DATA=${DATA:-Anthropic/hh-rlhf}
OUTPUT=${OUTPUT:-$OUTPUT_ROOT/ppo_llama}
GPUS=${GPUS:-8}
ZERO_STAGE=${ZERO_STAGE:-3}

launch \
    --reward_model_name_or_path "${REWARD:-$OUTPUT_ROOT/reward_llama}" \
    --template llama2 \
    --max_prompt_seq_len 512 \
    --max_answer_seq_len 512 \
    --prompts_per_rollout 128 \
    --samples_per_prompt 4 \
    --generation_batch_size 16 \
    --minibatches 4 \
    --ppo_epochs 1 \
    --per_device_train_batch_size 2 \
    --per_device_eval_batch_size 4 \
    --learning_rate 1e-6 \
    --critic_learning_rate 5e-6 \
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
