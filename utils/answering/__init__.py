"""Run a trained model over a file of prompts or in a conversation."""
