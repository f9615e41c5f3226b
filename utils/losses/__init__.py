"""Losses: functions of tensors, the paper's equation beside the line. No model, no tokenizer, no rank."""
