"""Optimizer steps of SFT, reward model and DPO against TRL 1.16 on the same ids, each side in processes of its own, in
turn.

The losses of three steps on one batch are compared first, in float32 and in bfloat16. TRL runs at its defaults
(autocast, gradient checkpointing, DPO's reference computed at every step); ours at ZeRO-1 with bfloat16 weights and
float32 master weights, and the reference pass counted as if it served one epoch only.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from gpu.common import SIZES, Part, Size, on_gpu, peak_gib, random_model, ratios, reset_peak, run_quietly, summary
from peer import EOS, hh_like_pairs
from processes import environment
from toys import ROOT
from training_steps import our_steps, trl_steps

from utils.reporting import write_json
from utils.tokens.group import Group, group

KINDS = ("sft", "reward", "dpo")
PER_STEP = 8 if on_gpu() else 4  # pairs; 8 is the default of TRL's trainers
STEPS, WARM_UP, ROUNDS = (12, 3, 2) if on_gpu() else (3, 1, 1)
LONGEST = 512 if on_gpu() else 40  # tokens of a prompt, and of an answer
# TRL: float32 sums in another order; bfloat16: autocast of float32 weights against weights in bfloat16
SAME = {"fp32": 2e-4, "bf16": 2e-2}


def groups_of(kind: str, size: Size, count: int, seed: int) -> list[Group]:
    pairs = hh_like_pairs(count, size.vocabulary, seed, LONGEST)
    assert all(g.answers[0][-1] == EOS for g in pairs)
    return [group(g.prompt, g.answers[:1]) for g in pairs] if kind == "sft" else pairs


def one_side(side: str, kind: str, size: Size, check: str) -> dict:
    """In a process of its own: seconds, losses, peak memory. `check`: fp32 or bf16, three steps on one batch."""
    model = random_model(size, torch.float32, reward=kind == "reward")
    steps = 3 if check else STEPS + WARM_UP
    groups = groups_of(kind, size, PER_STEP if check else PER_STEP * steps, seed=7 if check else 0)
    how = {"per_step": PER_STEP, "bf16": check != "fp32", "rate": 1e-4 if check else 1e-5}
    if side == "trl" and check:
        how |= dict(gradient_checkpointing=False, max_grad_norm=1.0, adam_beta2=0.999)
    reset_peak()
    with tempfile.TemporaryDirectory() as folder:
        seconds, losses, *reference = (trl_steps if side == "trl" else our_steps)(
            kind, model, groups, steps, folder, **how
        )
    return {"seconds": seconds, "losses": losses, "reference": sum(reference), "peak_gib": peak_gib(),
            "tokens": sum(g.tokens for g in groups) / steps}  # fmt: skip


def in_a_process(side: str, kind: str, size: Size, part: Part, check: str = "") -> dict:
    facts = part.folder / "peers" / f"{kind}-{side}{check}.json"
    words = [sys.executable, "-m", "gpu.peers_training", side, kind, size.name, str(facts), "--check", check]
    paths = {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "OMP_NUM_THREADS": str(torch.get_num_threads())}
    if on_gpu():  # with several, TRL would spread a process's batch over them
        paths["CUDA_VISIBLE_DEVICES"] = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    run_quietly(words, facts.with_suffix(".log"), max(part.left, 1.0), env=environment(**paths))
    return json.loads(facts.read_text(encoding="utf-8"))


def same_losses(kind: str, size: Size, part: Part, dtype: str) -> dict[str, float]:
    ours, theirs = (in_a_process(side, kind, size, part, dtype)["losses"] for side in ("ours", "trl"))
    gap = max(abs(a - b) / max(1.0, abs(b)) for a, b in zip(ours, theirs, strict=True))
    assert gap <= SAME[dtype], f"losses are {ours}, TRL's {theirs}"
    assert ours[0] != ours[-1], "nothing was learned"
    return {"loss": ours[-1], "gap": gap}


def timed(kind: str, size: Size, part: Part) -> dict[str, float]:
    """Pairs (SFT: answers) per second; a round is a process of each side, its ratio that of the steps' medians."""
    seconds: dict[str, list[float]] = {"trl": [], "ours": []}
    peaks, tokens = {}, 0.0
    for _ in range(ROUNDS):
        for side, found in seconds.items():
            facts = in_a_process(side, kind, size, part)
            kept = sorted(s + facts["reference"] for s in facts["seconds"][WARM_UP:])
            found.append(kept[len(kept) // 2])
            peaks[side], tokens = facts["peak_gib"], facts["tokens"]
    found = {"size": size.name, "peak_gib": peaks["ours"], "peak_gib_trl": peaks["trl"], "step_tokens": tokens}
    found |= summary(seconds["ours"], PER_STEP, "ours") | summary(seconds["trl"], PER_STEP, "theirs")
    return found | ratios(seconds["trl"], seconds["ours"]) | {"unit": "rows/s" if kind == "sft" else "pairs/s"}


def cases(kind: str, size: Size, part: Part) -> Iterator[tuple[str, Callable]]:
    for dtype in SAME:
        yield f"{kind}, the same losses, {dtype}", lambda dtype=dtype: same_losses(kind, size, part, dtype)
    yield f"{kind} against TRL", lambda: timed(kind, size, part)


def main(part: Part) -> None:
    """The part's name says which trainer: peers_sft, peers_reward, peers_dpo. At 0.5b: TRL keeps float32 weights."""
    part.run(cases(part.name.removeprefix("peers_"), SIZES["0.5b" if on_gpu() else "tiny"], part))


def worker() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("side", "kind", "size", "facts"):
        parser.add_argument(name)
    parser.add_argument("--check", default="")
    args = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", torch.get_num_threads())))
    write_json(Path(args.facts), one_side(args.side, args.kind, SIZES[args.size], args.check))


if __name__ == "__main__":
    worker()
