"""Losses that need more than their own pair (a whole prompt, the global batch, answers to other prompts, a running
mean, single tokens): their step is the same however it is cut into forward passes and ranks."""

import losses_worker
import pytest
import torch
from processes import run_function, together

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
