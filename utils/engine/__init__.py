"""Train with DeepSpeed: the engine, its configuration, the ranks, frozen models, checkpoints, speed."""
