"""How far a saved model is from the trained one whose LoRA adapter was added into its weights, in merge.json."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from utils.engine import ranks
from utils.model.batch import collate
from utils.model.scoring import Policy
from utils.reporting import progress, say, warn, write_json
from utils.tokens.group import Group, group
from utils.training.extras import Hooks
from utils.training.saving import SavedModel
from utils.training.stage import Stage

# The measurement reads a few rows only: it may run on a CPU, and the log-probs of 256 positions over a vocabulary of
# 128,000 take 131 MB.
ROWS, CONTEXT, POSITIONS = 8, 128, 256
# 0.01 nats a token are 1 nat over an answer of 100 tokens, as much as preference training moves an answer. The toy of
# tests/test_merge.py loses 1e-4 by rounding alone.
LARGEST_KL = 0.01
# By as much another score changes the probability that an answer is preferred by at most 2.5 % (Bradley-Terry).
LARGEST_SCORE_GAP = 0.1


def begin(stage: Stage) -> Hooks:
    """Compare every saved model with the trained one on held-out rows."""

    def measure_merge(saved: SavedModel) -> None:
        probes = _probes(stage.held_out)
        scorer = saved.engine.module
        trained = _read(saved.engine, scorer, probes, ranks.device())
        if ranks.rank() == 0 and probes:
            _report(saved, trained, _read_saved(saved.model, scorer, probes))

    return Hooks(after_saving=measure_merge)


def _read_saved(model: nn.Module, scorer: nn.Module, probes: Sequence[Group]) -> list[Tensor]:
    place = _place(model)
    # a Policy, RewardModel or Critic around the folder's own weights
    like = type(scorer)(model.eval().to(place))
    like.packed = scorer.packed
    if isinstance(scorer, Policy):
        like.temperature = scorer.temperature
    return _read(like, like, probes, place)


def _report(saved: SavedModel, trained: Sequence[Tensor], merged: Sequence[Tensor]) -> None:
    """Print and write KL(trained || merged) of the next token, a mean over positions, or the largest difference of
    scores."""
    folder, dtype = saved.folder, str(saved.model.dtype).removeprefix("torch.")
    positions = sum(map(len, trained))
    pairs = list(zip(trained, merged, strict=True))
    if isinstance(saved.engine.module, Policy):
        gap = sum(float(F.kl_div(m, t, log_target=True, reduction="sum")) for t, m in pairs) / positions
        name, bound, words = "kl_per_token", LARGEST_KL, f"{gap:.2g} nats a token (KL, {positions} tokens)"
    else:
        gap = max(float((t - m).abs().max()) for t, m in pairs)
        name, bound, words = "largest_score_difference", LARGEST_SCORE_GAP, f"scores by up to {gap:.2g}"
    write_json(folder / "merge.json", {"dtype": dtype, name: gap, "positions": positions, "bound": bound})
    told = f"merging the adapter into {dtype} weights changes the model by {words}"
    if gap <= bound:
        say(told)
        return
    remedy = ""
    if dtype != "float32":
        remedy = "--merge_dtype fp32 keeps them; "
    warn(f"{folder}: {told}, above {bound}: changes under half a step of {dtype} are lost; {remedy}"
         f"adapter/ beside it is the trained adapter")  # fmt: skip


def _probes(rows: Sequence[Group]) -> list[Group]:
    """Return a few rows with the first answer of each; in a prompt without answers the first token is taken for the
    prompt, and the rest for the answer."""
    probes, left = [], POSITIONS
    for number in range(min(ROWS, len(rows))):
        row = rows[number]
        prompt, answer = row.prompt[:1], row.prompt[1:]
        if row.answers:
            prompt, answer = row.prompt, row.answers[0]
        if len(answer[:left]):
            probes.append(group(prompt[-CONTEXT:], [answer[:left]]))
            left -= len(answer[:left])
    return probes


def _read(model: Any, scorer: nn.Module, probes: Sequence[Group], place: torch.device) -> list[Tensor]:
    """Return the numbers of each probe, float32 on the CPU: log-probs [N, V] of a policy, or scores.

    Args:
        model: what is called: the engine, or the scorer itself.
        scorer: the module inside.
        probes: prompts with an answer each.
        place: where `model` is.
    """
    title = "merged model" if model is scorer else "model with adapter"
    more = {"distributions": True} if isinstance(scorer, Policy) else {}
    found, training = [], scorer.training
    scorer.eval()
    with torch.no_grad(), progress(title, len(probes)) as advance:
        for probe in probes:
            found.append(model(collate([probe], packed=scorer.packed).to(place), **more).float().cpu())
            advance()
    scorer.train(training)
    return found


def _place(model: nn.Module) -> torch.device:
    """Return this rank's device if the model and its activations fit beside what is there, else the CPU."""
    place = ranks.device()
    if place.type == "cuda":
        free, _ = torch.cuda.mem_get_info(place)
        if free < 2 * sum(p.numel() * p.element_size() for p in model.parameters()):
            return torch.device("cpu")
    return place
