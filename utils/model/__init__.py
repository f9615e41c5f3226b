"""Load, adapt and read models: weights and tokenizers, LoRA, packed batches, log-probs and scores."""
