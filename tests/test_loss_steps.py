"""Losses that need more than their own pair (a whole prompt, the global batch, answers to other prompts, a running
mean, single tokens): their step is the same however it is cut into forward passes and ranks."""

import losses_worker
import numpy as np
import pytest
import torch
from processes import run_function, together
from toys import tiny_lm

from utils.losses.inputs import ListInputs
from utils.losses.options import DPOArguments
from utils.model.batch import collate
from utils.model.scoring import Policy
from utils.tokens.group import Feedback, group

WHOLE = (("per_device", 8),)
CUTS = {"4x2": (("per_device", 4), ("accumulation", 2)), "split groups": (("per_device", 8), ("budget", 40))}
TWO_RANKS = {"two ranks": (("per_device", 4),), "two ranks, split": (("per_device", 4), ("budget", 40))}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder, steps = tmp_path_factory.mktemp("steps"), {}
    for ranks, cuts in ((1, (WHOLE, *CUTS.values())), (2, tuple(TWO_RANKS.values()))):
        out, log = folder / f"{ranks}.pt", folder / f"{ranks}.log"
        code = together(run_function, log, "losses_worker", "main", str(out), cuts, ranks=ranks)
        assert code == 0, log.read_text(errors="replace")[-5000:]
        steps |= torch.load(out, weights_only=False)
    return steps


@pytest.mark.parametrize("loss", losses_worker.LOSSES)
@pytest.mark.parametrize("cut", [*CUTS, *TWO_RANKS])
def test_a_step_does_not_depend_on_the_cut(found, loss, cut):
    expected, value, states, held_out = found[loss, WHOLE]
    moved, other, other_states, other_held_out = found[loss, (CUTS | TWO_RANKS)[cut]]
    assert expected.norm() > 1e-3
    assert (moved - expected).norm() / expected.norm() <= 2e-6
    assert other == pytest.approx(value, abs=1e-6) and other_held_out == pytest.approx(held_out, abs=1e-6)
    assert states.keys() == other_states.keys()
    for name, state in states.items():
        assert other_states[name] == {"count": state["count"], "mean": pytest.approx(state["mean"], abs=1e-6)}
        assert state["count"] == 2 * 24  # both log-ratios of three pairs of each group


@pytest.mark.parametrize("loss", ["mse", "exo", "plackett_luce"])
def test_lists_in_packed_and_padded_rows(loss):
    """Sixteen answers to a prompt, computed once with it or each behind a copy of it."""
    draw, found = np.random.default_rng(1), []
    known = Feedback(rating=np.float32(draw.normal(0, 0.1, 16)), rank=np.int32(draw.integers(1, 9, 16)))
    ids = lambda n: draw.integers(5, 200, n)  # noqa: E731
    groups = [group(ids(20), [ids(draw.integers(1, 20)) for _ in range(16)], feedback=known) for _ in range(2)]
    objective = DPOArguments(loss=loss).objective()
    for packed in (True, False):
        policy, batch = Policy(tiny_lm()), collate(groups, packed=packed)
        logprobs_A = batch.sum_per_answer(policy(batch))
        losses = objective(ListInputs.of(batch, logprobs_A, logprobs_A - torch.linspace(-90, -10, 32)))
        losses.sum().backward()
        gradient = torch.cat([p.grad.flatten() for p in policy.parameters()])
        found.append((losses.detach(), gradient))
    (one, gradient), (other, other_gradient) = found
    assert torch.allclose(one, other, rtol=1e-5) and gradient.norm() > 1e-3
    assert (gradient - other_gradient).norm() / gradient.norm() <= 1e-5
