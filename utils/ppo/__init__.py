"""Train on the model's own answers: rollouts, rewards, advantages and the trainer of PPO."""
