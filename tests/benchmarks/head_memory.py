"""One DPO-like step of a tiny bf16 model with 128,000 words; prints the peak memory of this process in MB.

PYTHONPATH=.:tests python tests/benchmarks/head_memory.py --how chunked --positions 4096
"""

from __future__ import annotations

import resource
import sys
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from toys import tiny_lm

from utils.arguments import parse
from utils.arguments.options import option
from utils.model.batch import collate
from utils.model.scoring import Policy
from utils.tokens.group import group

WORDS, ANSWER = 128_000, 128


@dataclass
class Options:
    how: Literal["chunked", "whole", "idle"] = option(
        "chunked", help="log-probs from hidden states, from logits that the model makes, or everything but the step"
    )
    positions: int = option(2048, help="answer tokens of the step")


def main(argv: list[str] | None = None) -> None:
    (options,) = parse([Options], argv, __doc__)
    how, positions = options.how, options.positions
    torch.set_num_threads(1)
    policy = Policy(tiny_lm(vocab_size=WORDS, hidden_size=32, num_hidden_layers=1).bfloat16())
    policy.chunked = how == "chunked"
    draw = np.random.default_rng(0)
    ids = lambda n: draw.integers(5, WORDS, n)  # noqa: E731
    groups = [group(ids(16), [ids(ANSWER), ids(ANSWER)], [(0, 1)]) for _ in range(positions // (2 * ANSWER))]
    batch = collate(groups)
    if how != "idle":
        ratio = batch.sum_per_answer(policy(batch))
        F.softplus(ratio[batch.rejected] - ratio[batch.chosen]).sum().backward()
    sys.stdout.write(f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f}\n")


if __name__ == "__main__":
    main()
