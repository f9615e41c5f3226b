"""KL estimates, advantages, whitening and the clipped losses: hand-worked numbers, and a slow writing of the same."""

import math
import random

import pytest
import torch

from utils.losses.policy import (
    KLController,
    answer_rows,
    clipped_policy_losses,
    clipped_value_losses,
    explained_variance,
    flat,
    generalised_advantages,
    kl_estimate,
    leave_one_out,
    relative_to_group,
    standard_deviation,
    whitened,
)

T = torch.tensor


def close(found, expected, tolerance=1e-6):
    assert found.tolist() == pytest.approx(expected, abs=tolerance)


def test_rewards_advantages_and_returns_of_one_answer():
    """publicstaticvo/DAIF's numbers: KL 0.2, −0.1, 0.3 at coefficient 0.1, σ(1) at the end, γ 1, λ 0.95."""
    rewards, values = -0.1 * T([0.2, -0.1, 0.3]), T([0.1, 0.2, 0.3])
    rewards[-1] += torch.sigmoid(T(1.0))
    close(rewards, [-0.02, 0.01, 0.7010586])
    advantages = generalised_advantages(rewards, values, [3], 1.0, 0.95)
    close(advantages, [0.5464554, 0.4910057, 0.4010586])
    close(advantages + values, [0.6464554, 0.6910057, 0.7010586])


def slow_advantages(rewards, values, gamma, lam):
    """The sum of equation 16, term by term."""
    n = len(rewards)
    deltas = [rewards[t] + gamma * (values[t + 1] if t + 1 < n else 0.0) - values[t] for t in range(n)]
    return [sum((gamma * lam) ** (s - t) * deltas[s] for s in range(t, n)) for t in range(n)]


@pytest.mark.parametrize("gamma, lam", [(1.0, 0.95), (0.9, 0.5), (0.99, 0.0), (0.7, 1.0)])
def test_advantages_of_answers_of_any_length(gamma, lam):
    draw = random.Random(0)
    lengths = [draw.randint(1, 9) for _ in range(20)]
    rewards, values = ([[draw.gauss(0, 1) for _ in range(n)] for n in lengths] for _ in range(2))
    expected = [a for r, v in zip(rewards, values, strict=True) for a in slow_advantages(r, v, gamma, lam)]
    join = lambda parts: T([x for part in parts for x in part])  # noqa: E731
    close(generalised_advantages(join(rewards), join(values), lengths, gamma, lam), expected, 1e-5)
    assert torch.equal(flat(answer_rows(join(values), lengths), lengths), join(values))


def test_kl_estimates():
    ratio = T([0.5, -0.5, 0.0])
    close(kl_estimate(ratio, "k1"), [0.5, -0.5, 0.0])
    close(kl_estimate(ratio, "k2"), [0.125, 0.125, 0.0])
    close(kl_estimate(ratio, "k3"), [math.exp(-0.5) - 1 + 0.5, math.exp(0.5) - 1 - 0.5, 0.0])


@pytest.mark.parametrize("kind", ["k1", "k2", "k3"])
def test_kl_estimates_are_near_the_kl(kind):
    """Over draws from π, k1 and k3 have the mean Σ π log(π/ρ); k2 is near it for near distributions."""
    pi, rho = torch.softmax(T([0.3, 0.0, -0.2]), 0).double(), torch.softmax(T([0.0, 0.1, 0.0]), 0).double()
    exact = (pi * (pi / rho).log()).sum()
    draws = torch.multinomial(pi, 200_000, replacement=True, generator=torch.Generator().manual_seed(0))
    assert kl_estimate((pi / rho).log()[draws], kind).mean() == pytest.approx(float(exact), rel=0.1)


def test_advantages_within_a_group():
    close(leave_one_out(T([1.0, 2.0, 6.0])), [1 - 4, 2 - 3.5, 6 - 1.5])
    close(relative_to_group(T([1.0, 2.0, 3.0])), [-0.9999, 0.0, 0.9999], 1e-4)
    close(relative_to_group(T([2.0, 2.0])), [0.0, 0.0])


def test_whitening_counts_only_what_is_learned():
    values, weights = T([1.0, 3.0, 100.0]), T([1.0, 1.0, 0.0])
    close(whitened(values, weights)[:2], [-1.0, 1.0])
    close(whitened(values, weights, keep_mean=True)[:2], [1.0, 3.0])
    random_values = torch.randn(1000, generator=torch.Generator().manual_seed(0)) * 5 + 3
    done = whitened(random_values, torch.ones(1000))
    assert float(done.mean()) == pytest.approx(0, abs=1e-5) and float(done.std()) == pytest.approx(1, abs=1e-2)


def test_whitening_nothing_gives_zeros_and_masked_numbers_do_not_leak():
    close(whitened(T([3.0, math.nan]), torch.zeros(2)), [0.0, 0.0])
    close(whitened(T([1.0, 3.0, math.nan]), T([0.5, 0.25, 0.0]))[:2], [-1.0, 1.0])
    assert whitened(T([1.0, math.nan]), torch.ones(2)).isnan().all()


def test_the_spread_of_a_single_number_is_zero():
    assert standard_deviation(T([4.0])) == 0 and standard_deviation(T([1.0, 3.0])) == pytest.approx(2**0.5)


def test_clipped_losses():
    old, logprobs = torch.zeros(4), T([1.5, 1.5, 0.5, 0.5]).log()
    advantages = T([1.0, -1.0, 1.0, -1.0])
    close(clipped_policy_losses(logprobs, old, advantages, 0.2), [-1.2, 1.5, -0.5, 0.8])
    close(clipped_value_losses(T([1.0, 1.0]), T([0.0, 0.9]), T([2.0, 2.0]), 0.2), [0.5 * 1.8**2, 0.5])
    close(clipped_value_losses(T([1.0]), T([0.0]), T([2.0]), 0), [0.5])


def test_a_clipped_token_teaches_nothing():
    logprobs = T([1.5, 0.5]).log().requires_grad_()
    clipped_policy_losses(logprobs, torch.zeros(2), T([1.0, 1.0]), 0.2).sum().backward()
    close(logprobs.grad, [0.0, -0.5])


def test_explained_variance():
    returns = T([1.0, 2.0, 3.0])
    assert explained_variance(returns, returns) == 1
    assert explained_variance(torch.full((3,), 9.0), returns) == pytest.approx(0)
    assert explained_variance(returns, torch.ones(3)) == 0
    assert math.isnan(explained_variance(returns, T([1.0, math.nan, 3.0])))


def test_the_coefficient_is_led_towards_its_target():
    """Ziegler et al.: 40 answers of 10,000 at twice the target move it by 0.2 x 40 / 10,000."""
    led, fixed = KLController(0.1, 6.0, 10_000), KLController(0.1, None, 10_000)
    for controller in (led, fixed):
        controller.update(12.0, 40)
    assert led.coefficient == pytest.approx(0.1 * (1 + 0.2 * 0.004)) and fixed.coefficient == 0.1
    led.update(5.7, 100)
    assert led.coefficient == pytest.approx(0.1 * 1.0008 * (1 - 0.05 * 0.01))
