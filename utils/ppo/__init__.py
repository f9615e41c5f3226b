"""Train on the policy's own answers (PPO): rollouts, their models and rewards, advantages, the steps of the trainer."""
