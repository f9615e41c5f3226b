"""Evaluate models: win rates with intervals from judged comparisons, in the formats of AlpacaEval and of C's files."""
