"""Pairs of a chosen and a rejected answer from feedback, and the sets of pairs to train on.

pairing     feedback -> pairs
sets        duplicates, test prompts, the division by prompt, the written forms
measures    lengths, wins by model, conflicts and cycles
"""

from utils.feedback.pairs.measures import measured
from utils.feedback.pairs.pairing import KINDS, PAIRS, WAITING, Collected, Pair, collect, prompt_key
from utils.feedback.pairs.sets import divided, rows

__all__ = ["KINDS", "PAIRS", "WAITING", "Collected", "Pair", "collect", "divided", "measured", "prompt_key", "rows"]
