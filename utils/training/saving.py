"""Saving what was trained as folders that plain transformers loads, and measuring what merging an adapter changes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from utils.engine import ranks
from utils.engine.deepspeed_engine import Engine
from utils.model import loading
from utils.model.batch import collate
from utils.model.scoring import Policy
from utils.reporting import progress, say, warn, write_json
from utils.tokens.group import Group, group
from utils.training.ema import Average
from utils.training.model_card import write_cards
from utils.training.run import Run

# The measurement reads a few rows only: it may run on a CPU, and the log-probs of 256 positions over a vocabulary of
# 128,000 take 131 MB.
ROWS, CONTEXT, POSITIONS = 8, 128, 256
# 0.01 nats a token are 1 nat over an answer of 100 tokens, as much as preference training moves an answer. The toy of
# tests/test_merge.py loses 1e-4 by rounding alone.
LARGEST_KL = 0.01
# By as much another score changes the probability that an answer is preferred by at most 2.5 % (Bradley-Terry).
LARGEST_SCORE_GAP = 0.1


def save_model(
    run: Run, engine: Engine, renderer: Any, folder: Path, rows: Sequence[Group], average: Average | None = None
) -> None:
    """Write the engine's model to `folder`, with its average in ema/, and a card of each. With LoRA, `rows` tell how
    far the merged model is from the trained one; merge.json says it. A collective."""
    scorer = engine.module
    probes = _probes(rows) if hasattr(scorer.model, "get_base_model") else []
    trained = _read(engine, scorer, probes, ranks.device())
    _write(engine.full_state_dict(), scorer, renderer, folder, probes, trained)
    ranks.barrier()  # DeepSpeed's own collectives wait ten minutes, a barrier waits as long as rank 0 writes
    if average and average.updates:
        _write(average.whole(engine), scorer, renderer, folder / "ema")
        ranks.barrier()
    if ranks.rank() == 0:
        write_cards(run, folder, scores=not isinstance(scorer, Policy))
    ranks.barrier()


def _write(state: dict[str, Tensor] | None, scorer: nn.Module, renderer: Any, folder: Path,
           probes: Sequence[Group] = (), trained: Sequence[Tensor] = ()) -> None:  # fmt: skip
    if ranks.rank() != 0:
        return
    state = {name.removeprefix("model."): tensor for name, tensor in state.items()}
    merged = loading.save(scorer.model, state, renderer, folder)
    say(f"saved {folder}")
    if not probes:
        return
    place = _place(merged)
    like = type(scorer)(merged.eval().to(place))  # a Policy, RewardModel or Critic around the folder's own weights
    like.packed = scorer.packed
    if isinstance(scorer, Policy):
        like.temperature = scorer.temperature
    _report(trained, _read(like, like, probes, place), isinstance(scorer, Policy), str(merged.dtype), folder)


def _report(trained: Sequence[Tensor], merged: Sequence[Tensor], is_policy: bool, dtype: str, folder: Path) -> None:
    """Say and write how far the merged model is from the trained one: KL(trained || merged) of the next token, a mean
    over positions, or the largest difference of scores."""
    dtype = dtype.removeprefix("torch.")
    positions = sum(map(len, trained))
    pairs = list(zip(trained, merged, strict=True))
    if is_policy:
        gap = sum(float(F.kl_div(m, t, log_target=True, reduction="sum")) for t, m in pairs) / positions
        name, bound, words = "kl_per_token", LARGEST_KL, f"{gap:.2g} nats a token (KL, {positions} tokens)"
    else:
        gap = max(float((t - m).abs().max()) for t, m in pairs)
        name, bound, words = "largest_score_difference", LARGEST_SCORE_GAP, f"scores by up to {gap:.2g}"
    write_json(folder / "merge.json", {"dtype": dtype, name: gap, "positions": positions, "bound": bound})
    told = f"merging the adapter into {dtype} weights changes the model by {words}"
    if gap <= bound:
        say(told)
    else:
        remedy = "--merge_dtype fp32 keeps them; " if dtype != "float32" else ""
        warn(f"{folder}: {told}, above {bound}: changes under half a step of {dtype} are lost; {remedy}"
             f"adapter/ beside it is the trained adapter")  # fmt: skip


def _probes(rows: Sequence[Group]) -> list[Group]:
    """A few rows with the first answer of each; a prompt without answers stands for one, its first token for its
    prompt."""
    probes, left = [], POSITIONS
    for row in (rows[i] for i in range(min(ROWS, len(rows)))):
        prompt, answer = (row.prompt, row.answers[0]) if row.answers else (row.prompt[:1], row.prompt[1:])
        if len(answer[:left]):
            probes.append(group(prompt[-CONTEXT:], [answer[:left]]))
            left -= len(answer[:left])
    return probes


def _read(model: Any, scorer: nn.Module, probes: Sequence[Group], place: torch.device) -> list[Tensor]:
    """What `model` (the engine, or a scorer) says of each probe, float32 on the CPU: log-probs [N, V], or scores."""
    more = {"distributions": True} if isinstance(scorer, Policy) else {}
    found, training = [], scorer.training
    scorer.eval()
    with torch.no_grad(), progress("merged model" if model is scorer else "model with adapter", len(probes)) as advance:
        for probe in probes:
            found.append(model(collate([probe], packed=scorer.packed).to(place), **more).float().cpu())
            advance()
    scorer.train(training)
    return found


def _place(model: nn.Module) -> torch.device:
    """This rank's device if the model and its activations fit beside what is there, else the CPU."""
    place = ranks.device()
    if place.type == "cuda":
        free, _ = torch.cuda.mem_get_info(place)
        if free < 2 * sum(p.numel() * p.element_size() for p in model.parameters()):
            return torch.device("cpu")
    return place
