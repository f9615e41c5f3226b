"""The bandit of learning from AI feedback: the same steps as on all rows, and the claim of its paper."""

import json

import nbformat
import numpy as np
import pytest
import torch
from in_process import run as run_program
from nbclient import NotebookClient
from processes import environment
from toys import ROOT

from utils.evaluation.bandit import BanditSetting, fit_policy, fit_reward, improve, run, softmax, wins

NOTEBOOK = ROOT / "inference" / "synthetic-rlaif.ipynb"
SMALL = BanditSetting(actions=6, teacher_centre=4, student_centre=2, width=4, samples=50, reward_steps=40, sft_steps=40)


def descend(loss_of, actions, steps, learning_rate):
    """Plain gradient descent on a mean over rows, in torch."""
    table = torch.zeros(actions, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.SGD([table], lr=learning_rate)
    for _ in range(steps):
        optimizer.zero_grad()
        loss_of(table).backward()
        optimizer.step()
    return table.detach().numpy()


def test_wins_by_hand():
    found = wins(np.array([[3, 1], [1, 3], [2, 2], [0, 2]]), actions=4)
    expected = np.zeros((4, 4))
    expected[3, 1], expected[2, 0] = 2 / 4, 1 / 4
    assert np.array_equal(found, expected)


def test_the_reward_is_that_of_descent_on_every_pair():
    pairs = np.random.default_rng(0).choice(SMALL.actions, size=(SMALL.samples, 2), p=SMALL.student)
    high, low = torch.as_tensor(pairs.max(axis=1)), torch.as_tensor(pairs.min(axis=1))
    by_rows = descend(
        lambda table: -torch.nn.functional.logsigmoid(table[high] - table[low]).mean(), SMALL.actions,
        SMALL.reward_steps, SMALL.learning_rate,
    )  # fmt: skip
    assert np.allclose(fit_reward(wins(pairs, SMALL.actions), SMALL), by_rows, rtol=0, atol=1e-14)


def test_the_policy_is_that_of_descent_on_every_action():
    taught = np.random.default_rng(1).choice(SMALL.actions, size=SMALL.samples, p=SMALL.teacher)
    rows = torch.as_tensor(taught)
    by_rows = descend(
        lambda table: torch.nn.functional.cross_entropy(table.expand(len(rows), -1), rows), SMALL.actions,
        SMALL.sft_steps, SMALL.learning_rate,
    )  # fmt: skip
    frequency = np.bincount(taught, minlength=SMALL.actions) / SMALL.samples
    assert np.allclose(fit_policy(frequency, SMALL), softmax(by_rows), rtol=0, atol=1e-14)


def test_no_other_policy_has_a_higher_objective():
    rng = np.random.default_rng(2)
    student, reward = rng.dirichlet(np.ones(6)), rng.normal(size=6)

    def objective(policy):
        return policy @ reward - 0.3 * policy @ np.log(policy / student)

    best = objective(improve(student, reward, beta=0.3))
    assert all(objective(policy) < best for policy in rng.dirichlet(np.ones(6), size=500))


def test_the_claim_of_the_paper(tmp_path):
    assert run_program(ROOT / "inference" / "bandit.py", "--output_path", tmp_path / "bandit.json", "--seeds", 3) == 0
    found = json.loads((tmp_path / "bandit.json").read_text())
    expected = found["expected_true_reward"]
    order = [expected[name] for name in ("teacher", "sft", "rlaif", "student")]
    assert all(better["low"] > worse["high"] for better, worse in zip(order, order[1:], strict=False))
    assert found["fall_of_learned_reward"]["low"] > 0.5
    for name in ("policies", "samples"):
        assert (tmp_path / f"bandit-{name}.png").read_bytes().startswith(b"\x89PNG")


def test_the_reward_knows_nothing_of_actions_never_compared():
    outcome = run(BanditSetting(samples=2000, reward_steps=500, sft_steps=500), seed=0)
    never = np.setdiff1d(np.arange(100), np.random.default_rng(0).choice(100, (2000, 2), p=outcome.setting.student))
    assert len(never) and np.all(outcome.reward_I[never] == 0) and outcome.fall() > 0


@pytest.mark.slow
def test_the_notebook():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in cells)
    place = {"metadata": {"path": NOTEBOOK.parent}}
    client = NotebookClient(notebook, timeout=120, kernel_name="python3", resources=place)
    client.execute(env=environment(PYTHONPATH=str(ROOT)))
    outputs = [output for cell in cells for output in cell.outputs]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 2
    assert "student at 80" in "".join(output.text for output in outputs if output.output_type == "stream")
