"""Turn records into tokens: prompt templates, groups of a prompt and its answers, the store on disk."""
