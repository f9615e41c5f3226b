"""Scoring the answers to one prompt against padded Hugging Face scoring: same model and threads, in turn, medians.

    PYTHONPATH=.:tests python tests/benchmarks/scoring_vs_hf.py [--threads 1] [--repeats 5]

A reward model's scores, and a language model's log-probs of answers, in float32. They are compared before anything is
timed. The peer pads each batch of answers, each behind a copy of the prompt, and computes the logits of answers alone;
the batch size that suits it best counts.
"""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from peer import small_llama
from torch import Tensor
from transformers import AutoModelForSequenceClassification

from utils.arguments import parse
from utils.arguments.options import option
from utils.model.passes import Passes
from utils.model.reward_model import RewardModel
from utils.model.scoring import Policy
from utils.tokens.group import Group, group

VOCABULARY, ANSWERS, BUDGET = 8192, 64, 16_384
CASES = ((256, 32), (768, 32), (256, 128), (768, 128))  # tokens of the prompt, of an answer at most
BATCHES = (8, 64)  # of the peer
TOLERANCE = 1e-4


@dataclass
class Options:
    threads: int = option(1, help="of torch")
    repeats: int = option(5, help="measurements of each side")


def main(argv: list[str] | None = None) -> None:
    (args,) = parse([Options], argv, description=__doc__)
    torch.set_num_threads(args.threads)
    config = small_llama(VOCABULARY).config
    config.num_labels = 1
    torch.manual_seed(0)
    reward = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32).eval()
    # As large as a trained head: at its first values all scores would be equal within the tolerance.
    reward.score.weight.data *= 50
    policy = small_llama(VOCABULARY).eval()
    draw = np.random.default_rng(0)
    print(f"Llama of 7.2 million weights, {ANSWERS} answers to a prompt, float32, {args.threads} thread(s)")
    for prompt, longest in CASES:
        ids = draw.integers(3, VOCABULARY, prompt).tolist()
        whole = group(ids, [draw.integers(3, VOCABULARY, longest).tolist() for _ in range(ANSWERS)])
        for what, model in (("scores", reward), ("log-probs", policy)):
            report(f"{what:9} prompt of {prompt}, answers of {longest}", model, whole, repeats=args.repeats)


def report(name: str, model, whole: Group, repeats: int) -> None:
    """Compare the numbers, then time both sides in turn."""
    # A model of its own for each side: packed rows switch the attention of theirs.
    theirs, mine = model, scorer_of(copy.deepcopy(model))
    sides: dict[str, Callable[[], Tensor]] = {"shared": lambda: shared(mine, whole)}
    for size in BATCHES:
        sides[f"padded, {size} at a time"] = lambda size=size: padded(theirs, whole, size)
    numbers = {side: compute() for side, compute in sides.items()}
    ours = numbers.pop("shared")
    assert ours.std() > 100 * TOLERANCE, "all numbers alike: nothing would be compared"
    gap = max(float((ours - other).abs().max() / other.abs().max().clamp(min=1)) for other in numbers.values())
    assert gap <= TOLERANCE, gap
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    for _ in range(repeats):
        for side, compute in sides.items():
            start = time.perf_counter()
            compute()
            seconds[side].append(time.perf_counter() - start)
    medians = {side: statistics.median(found) for side, found in seconds.items()}
    took = medians.pop("shared")
    peer = min(medians, key=medians.get)
    print(f"{name}: {peer} {medians[peer]:.2f} s, shared {took:.2f} s: {medians[peer] / took:.1f} times "
          f"(they differ by {gap:.0e})", flush=True)  # fmt: skip


def scorer_of(model) -> Policy | RewardModel:
    if hasattr(model, "score"):
        return RewardModel(model)
    return Policy(model)


@torch.no_grad()
def shared(scorer: Policy | RewardModel, whole: Group) -> Tensor:
    """One number an answer, the prompt computed once a row."""
    found = []
    for batch in Passes([whole], 1, BUDGET, packed=scorer.packed):
        values = scorer(batch)
        found.append(values if isinstance(scorer, RewardModel) else batch.sum_per_answer(values))
    return torch.cat(found)


@torch.no_grad()
def padded(model, whole: Group, size: int) -> Tensor:
    """The same by transformers' own forward pass over right-padded rows."""
    found, prompt = [], whole.prompt.tolist()
    for start in range(0, len(whole.answers), size):
        rows = [prompt + answer.tolist() for answer in whole.answers[start : start + size]]
        longest = max(map(len, rows))
        ids = torch.tensor([row + [model.config.pad_token_id] * (longest - len(row)) for row in rows])
        mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
        if hasattr(model, "score"):
            found.append(model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, 0])
            continue
        kept = longest - len(prompt) + 1
        logits = model(input_ids=ids, attention_mask=mask, use_cache=False, logits_to_keep=kept).logits
        logprobs = logits[:, :-1].log_softmax(-1)
        of_tokens = logprobs.gather(-1, ids[:, len(prompt) :, None]).squeeze(-1)
        found.append((of_tokens * mask[:, len(prompt) :]).sum(-1))
    return torch.cat(found)


if __name__ == "__main__":
    main()
