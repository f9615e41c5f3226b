"""Train: the trainer of every stage, steps on given answers, the run's folder, and what a run does besides."""
