"""Train on given answers: what SFT, reward models and DPO share, from the run's folder to the saved model."""
