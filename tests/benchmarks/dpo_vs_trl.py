"""A DPO step against TRL 1.16's DPOTrainer, on this machine, interleaved: pairs per second and their ratio.

    PYTHONPATH=.:tests python tests/benchmarks/dpo_vs_trl.py [--steps 10] [--rounds 3] [--threads 2]

Both sides: the same 7.2-million-weight Llama, the same ids (HH-like lengths, 8 pairs a step), bf16. TRL at its defaults
(autocast, gradient checkpointing, online reference, padded rows) and, with --best, at its best legal settings. Ours:
the DeepSpeed engine at ZeRO-1 with bf16 weights and float32 master weights, prompts shared, packed; our reference pass
is counted as if it served one epoch only. Losses are asserted equal first, in float32 and in bf16.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass

import torch
from peer import hh_like_pairs, small_llama
from training_steps import our_steps, trl_steps

from utils.arguments import parse
from utils.arguments.options import option
from utils.reporting import say

VOCABULARY, PAIRS = 8192, 8


def assert_equal_losses():
    """Three steps on one batch of all pairs, so that the order of the data does not matter."""
    for bf16, tolerance in ((False, 1e-4), (True, 2e-2)):
        theirs, ours = (in_a_process(side, "--check", *(["--bf16"] if bf16 else []))[1] for side in ("trl", "ours"))
        say(f"losses, {'bf16' if bf16 else 'fp32'}: ours {ours}, TRL {theirs}")
        gap = max(abs(a - b) for a, b in zip(ours, theirs, strict=True))
        assert gap <= tolerance, gap


def in_a_process(side: str, *flags: str) -> list:
    """[seconds, losses, …] of one side in a process of its own: what one does to torch must not slow the other."""
    done = subprocess.run([sys.executable, __file__, "--side", side, *flags], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.strip().splitlines()[-1])


def one_side(options):
    with tempfile.TemporaryDirectory() as folder:
        if options.check:
            groups, plain = (
                hh_like_pairs(PAIRS, VOCABULARY, seed=7),
                dict(gradient_checkpointing=False, max_grad_norm=1.0),
            )
            trl = options.side == "trl"
            found = (trl_steps if trl else our_steps)(
                "dpo", small_llama(VOCABULARY), groups, 3, folder, per_step=PAIRS, bf16=options.bf16, rate=1e-4,
                **(plain if trl else {}),
            )  # fmt: skip
        else:
            groups, count = hh_like_pairs(PAIRS * (options.steps + 2), VOCABULARY), options.steps + 2
            best = dict(gradient_checkpointing=False, precompute_ref_log_probs=True) if options.best else {}
            steps, more = (trl_steps, best) if options.side == "trl" else (our_steps, {})
            found = steps("dpo", small_llama(VOCABULARY), groups, count, folder, per_step=PAIRS, bf16=True, **more)
        say(json.dumps(found))


@dataclass
class Options:
    steps: int = option(10, help="steps a round, after two of warm-up")
    rounds: int = option(3, help="rounds, TRL and ours in turn")
    threads: int = option(2, help="threads of torch")
    best: bool = option(False, help="TRL without checkpointing and with a cached reference")
    side: str = option("", help="(inside) run one side, trl or ours, and print its numbers")
    check: bool = option(False, help="(inside) the steps whose losses are compared")
    bf16: bool = option(False, help="(inside) the dtype of those")


def main(argv=None):
    (options,) = parse([Options], argv, __doc__)
    torch.set_num_threads(options.threads)
    if options.side:
        return one_side(options)
    assert_equal_losses()
    flags = ["--steps", str(options.steps), "--threads", str(options.threads), *(["--best"] if options.best else [])]
    theirs, ours = [], []
    for _ in range(options.rounds):
        theirs += in_a_process("trl", *flags)[0][2:]
        seconds, _, reference = in_a_process("ours", *flags)
        ours += [s + reference for s in seconds[2:]]
    a, b = statistics.median(theirs), statistics.median(ours)
    say(
        f"TRL {PAIRS / a:.2f} pairs/s, ours {PAIRS / b:.2f} pairs/s (reference pass included), "
        f"ratio {a / b:.2f}, {options.threads} threads"
    )


if __name__ == "__main__":
    main()
