"""Losses against numbers worked by hand (test_trl.py and test_losses_trl.py hold them against TRL's)."""

import math

import pytest
import torch

from utils.errors import UserError
from utils.losses import accuracy
from utils.losses.inputs import ListInputs, PairInputs, VoteInputs
from utils.losses.objective import Running
from utils.losses.options import LOSSES, DPOArguments

# What options are where a test does not say: β and ε of SOURCES.md's worked example, the rest as the program has them.
OPTIONS = vars(DPOArguments()) | {"beta": 0.1, "label_smoothing": 0.1}
BY_UNIT = {unit: sorted(n for n, loss in LOSSES.items() if loss.unit == unit) for unit in ("pair", "vote", "prompt")}


def pairs_of(chosen, rejected, chosen_logprob=None, rejected_logprob=None):
    """Pairs of lists of numbers: answers of 4 and 2 tokens, rated 5 and 3; log-probs are the log-ratios where none are
    given; of the first two tokens the log-ratios are 0.6 and −0.5 of a whole log-ratio of 1."""
    sides = [torch.as_tensor(values) for values in (chosen, rejected)]
    given = (chosen_logprob, rejected_logprob)
    logprobs = [side if v is None else torch.as_tensor(v) for side, v in zip(sides, given, strict=True)]
    count = torch.ones_like(sides[0])
    shared = {"chosen_shared": 0.6 * sides[0], "rejected_shared": sides[1]}
    return PairInputs(*sides, 4 * count, 2 * count, *logprobs, 5 * count, 3 * count, **shared)


def seen_by(loss, inputs):
    """What the loss is given of the global batch, when that is `inputs`."""
    return loss.look(inputs).detach() if loss.look else None


def value(name, inputs, **options):
    loss = LOSSES[name]
    given = {"seen": seen_by(loss, inputs), "state": Running()} | OPTIONS | options
    return loss(inputs, **given)


# log π(chosen) − log ρ(chosen) = −10 − (−11) = 1, rejected −12 − (−11.5) = −0.5: Δ = 1.5; β = 0.1: βΔ = 0.15
HAND = pairs_of([1.0], [-0.5], [-10.0], [-12.0])


@pytest.mark.parametrize(
    "name, options, expected",
    [
        ("sigmoid", {}, 0.6209570),  # log(1 + exp(−0.15))
        ("cdpo", {"label_smoothing": 0.0}, 0.6209570),
        ("cdpo", {}, 0.6359570),  # 0.9 log(1 + e^−0.15) + 0.1 log(1 + e^0.15)
        ("robust", {}, 0.6022070),  # (0.9 · 0.6209570 − 0.1 · 0.7709570) / 0.8
        ("cdpo_over_beta", {}, 6.3595705),  # 0.63595705 / 0.1
        ("ipo", {}, 12.25),  # (1.5 − 5)²
        ("ipo_mean", {}, 20.25),  # (1/4 + 0.5/2 − 5)² = (0.5 − 5)²
        ("hinge", {}, 0.85),  # 1 − 0.15
        ("reference_free", {}, 0.5981389),  # log(1 + exp(−0.1 (−10 + 12)))
        ("importance_correction", {}, 0.3766295),  # 0.6209570 e^−0.5
        ("sft", {}, 10.0),
        ("rpo", {"rpo_alpha": 1.0}, 3.1209570),  # 0.6209570 + 10/4
        (
            "orpo",
            {"orpo_lambda": 0.1},
            2.5027409,
        ),  # 2.5 + 0.1 log(1 + e^−x), x = 3.5 − log((1 − e^−2.5)/(1 − e^−6))
        ("simpo", {"simpo_gamma": 1.0}, 1.0700554),  # log(1 + exp(−(0.1 (−2.5 + 6) − 1)))
        ("cpo", {"cpo_alpha": 1.0}, 3.0981389),  # 0.5981389 + 2.5
        ("sigmoid_norm", {}, 0.6684596),  # log(1 + exp(−0.1 · 0.5))
        ("ld_dpo", {"ld_alpha": 0.5}, 0.6302582),  # log(1 + exp(−0.1 (0.8 + 0.5))), 0.8 = 0.5 · 1 + 0.5 · 0.6
        ("margin", {"margin_scale": 1.0}, 1.9960354),  # log(1 + exp(−(0.15 − 2)))
        ("exo_pair", {}, 0.4313885),  # p log(p/0.9) + (1 − p) log((1 − p)/0.1), p = σ(0.15)
        ("nca_pair", {}, 1.3508248),  # log(1 + e^−0.1) + ½ log(1 + e^0.1) + ½ log(1 + e^−0.05)
        ("bco_pair", {}, 1.3128563),  # log(1 + e^−0.1) + log(1 + e^−0.05)
        ("sppo_hard", {}, 36.25),  # (1 − 5)² + (−0.5 + 5)²
        ("apo_zero", {}, 0.9625234),  # σ(−0.1) + σ(−0.05)
        ("apo_down", {}, 0.9875493),  # σ(0.1) + σ(−0.15)
        ("discopop", {}, 0.8493376),  # (1 − m) 0.6209570 + m e^−0.15, m = σ(3)
        ("f_dpo", {"f_divergence": "reverse_kl"}, 0.6209570),
        ("f_dpo", {"f_divergence": "forward_kl"}, 0.6311544),  # of −e^−1 + e^0.5
        ("f_dpo", {"f_divergence": "js"}, 0.6606522),  # of log σ(1) − log σ(−0.5)
        ("f_dpo", {"f_divergence": "alpha", "f_alpha": 0.5}, 0.6276909),  # of 2 (e^0.25 − e^−0.5)
        ("kto_pair", {}, 0.4687955),  # ½ σ(−0.1 (1 − 0)) + ½ σ(−0.1 (1 + 0.5)): z_w = 1, z_l = max(0, −0.5)
        ("aot", {"label_smoothing": 0.0}, 0.6209570),  # of one pair: DPO
        ("aot_unpaired", {"label_smoothing": 0.0}, 0.6209570),
    ],
)
def test_by_hand(name, options, expected):
    assert value(name, HAND, **options).tolist() == pytest.approx([expected], abs=1e-6)


def test_bco_with_what_it_saw():
    running = Running()
    running.update(torch.tensor([[1.0, -0.5], [0.5, -0.2]]))
    assert (running.count, running.mean) == (4, pytest.approx(0.2))
    # δ = 0.02: log(1 + e^−0.08) + log(1 + e^−0.07)
    assert value("bco_pair", HAND, state=running).item() == pytest.approx(1.3127065, abs=1e-6)
    running.update(torch.tensor([[1.2]]))
    assert (running.count, running.mean) == (5, pytest.approx(0.4))


def test_aot_compares_in_order():
    """u = 3, 1 and v = 0, 2: in order 1 − 0 and 3 − 2, so that the first pair is held against v = 2."""
    pairs = pairs_of([3.0, -1.0], [0.0, 0.0], [3.0, 1.0], [0.0, 0.0])  # v = u − Δ = 0, 2
    one = math.log(1 + math.exp(-0.1))
    assert value("aot", pairs, label_smoothing=0.0).tolist() == pytest.approx([one, one], abs=1e-6)
    # r_w = 3, −1 and r_l = −2, 5: −1 against −2, 3 against 5
    pairs = pairs_of([3.0, -1.0], [-2.0, 5.0])
    expected = [math.log(1 + math.exp(0.2)), one]
    assert value("aot_unpaired", pairs, label_smoothing=0.0).tolist() == pytest.approx(expected, abs=1e-6)
    # a pair that was judged twice takes two places
    twice = pairs_of([1.0, 1.0, 4.0], [-3.0, 0.0, 2.0])
    expected = [math.log(1 + math.exp(-0.1 * x)) for x in (4.0, 1.0, 2.0)]
    assert value("aot_unpaired", twice, label_smoothing=0.0).tolist() == pytest.approx(expected, abs=1e-6)


def test_votes_by_hand():
    votes = VoteInputs(torch.tensor([1.0, -0.5]), torch.tensor([True, False]), torch.zeros(2))
    weights = {"desirable_weight": 2.0, "undesirable_weight": 1.0}
    found = value("kto", votes, seen=torch.tensor([[1.0], [-0.2]]), **weights)  # z = 0.4: 2 σ(−0.06), σ(−0.09)
    assert found.tolist() == pytest.approx([0.9700090, 0.4775152], abs=1e-6)
    found = value("kto", votes, seen=torch.tensor([[-1.0]]), desirable_weight=1.0)  # z = 0: σ(−0.1), σ(−0.05)
    assert found.tolist() == pytest.approx([0.4750208, 0.4875026], abs=1e-6)
    assert value("apo_zero_unpaired", votes).tolist() == pytest.approx([0.4750208, 0.4875026], abs=1e-6)


def lists_of(ratios, ratings=None, ranks=None, prompt_of=None, tokens=None):
    count = len(ratios)
    return ListInputs(
        torch.as_tensor(ratios), torch.tensor(ratings or [math.nan] * count), torch.tensor(ranks or [0] * count),
        torch.tensor(prompt_of or [0] * count), torch.as_tensor(ratios), torch.tensor(tokens or [1] * count),
    )  # fmt: skip


LISTED = lists_of([1.0, -1.0, 0.0], [1.0, 0.0, 0.5], [1, 3, 2])


@pytest.mark.parametrize(
    "name, expected",
    [
        ("mse", 0.1733346),
        ("exo", 0.0602689),
        ("plackett_luce", 0.7208677),  # log(e + 1/e + 1) − 1 + log(1 + 1/e)
    ],
)
def test_lists_by_hand(name, expected):
    assert value(name, LISTED, beta=1.0).tolist() == pytest.approx([expected], abs=1e-6)
    # two prompts of different lengths are two lists
    both = lists_of([1.0, -1.0, 0.0, 2.0, 2.0], [1.0, 0.0, 0.5, 3.0, 3.0], [1, 3, 2, 1, 1], [0, 0, 0, 1, 1])
    second = {"mse": 4.0, "exo": 0.0, "plackett_luce": 2 * math.log(2)}[name]  # (2 − 0)²; equal shares; a tie
    assert value(name, both, beta=1.0).tolist() == pytest.approx([expected, second], abs=1e-6)


@pytest.mark.parametrize("name", ["mse", "exo"])
def test_lists_of_means(name):
    whole = lists_of([2.0, -3.0, 0.0], [1.0, 0.0, 0.5], tokens=[2, 3, 5])
    assert value(f"{name}_mean", whole, beta=1.0).tolist() == pytest.approx(value(name, LISTED, beta=1.0).tolist())


def test_the_sft_weight_of_the_program():
    objective = DPOArguments(sft_weight=0.05).objective()
    assert objective(HAND).tolist() == pytest.approx([1.1209570], abs=1e-6)  # 0.6209570 + 0.05 · 10


def test_a_mixture():
    options = DPOArguments(loss="sigmoid:0.8,bco_pair:0.2", beta=0.1)
    objective = options.objective()
    assert objective.at_start() == pytest.approx((0.8 + 0.4) * math.log(2)) and list(objective.states) == ["bco_pair"]
    objective.settle(objective.see(HAND))
    delta = 0.1 * 0.25  # of r = 1 and −0.5
    bco = math.log(1 + math.exp(delta - 0.1)) + math.log(1 + math.exp(-0.05 - delta))
    assert objective(HAND).tolist() == pytest.approx([0.8 * 0.6209570 + 0.2 * bco], abs=1e-6)
    assert not DPOArguments(loss="simpo,sft").objective().reference and options.objective().reference


@pytest.mark.parametrize(
    "given, words",
    [
        ({"loss": "kto", "sft_weight": 1.0}, "--sft_weight is for losses of pairs; kto is of each vote"),
        ({"loss": "sigmoid:0.5,kto:0.5"}, "sigmoid is averaged over each pair, kto over each vote"),
        ({"loss": "mse,plackett_luce"}, "reads ranked and rated data; expected losses of one kind of data"),
        ({"loss": "sigmoid,sigmoid:2"}, "names sigmoid twice"),
        ({"loss": "sigmoid:x"}, "sigmoid has the weight 'x'; expected a number above 0"),
        ({"loss": "sigmoid:-1"}, "sigmoid has the weight '-1'; expected a number above 0"),
        ({"loss": ""}, "known: aot, "),
        ({"loss": "simpo", "reference_model_name_or_path": "x"}, "--loss simpo has no reference"),
        ({"loss": "simpo", "ref_update_every": 2}, "--ref_update_every needs a loss with a reference"),
        ({"ref_mixup": 0.5}, "--ref_mixup 0.5 needs --ref_update_every above 0"),
        ({"loss": "exo_pair"}, "--loss exo_pair needs --label_smoothing above 0"),
        ({"loss": "mse", "pairs_from_ratings": True}, "--pairs_from_ratings is for losses of pairs"),
        ({"simpo_gamma": 2.0}, "--loss sigmoid does not use --simpo_gamma; simpo would"),
        ({"loss": "orpo", "beta": 0.5}, "--loss orpo does not use --beta; aot, "),
        ({"label_smoothing": 0.5, "loss": "cdpo"}, "--label_smoothing is 0.5; expected 0 or more and below 0.5"),
    ],
)
def test_options_that_do_not_fit_the_loss_are_refused(given, words):
    with pytest.raises(UserError) as refused:
        DPOArguments(**given)
    assert words in str(refused.value)
    assert DPOArguments(loss="margin,sigmoid").objective().data == "rated_comparisons"


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_the_value_at_the_start(name):
    """What a run's first step is held against. Losses without such a value have none for a reason: they read ratings,
    ranks, or log-probs themselves."""
    found, options = LOSSES[name], OPTIONS | {"beta": 0.25}
    expected = found.value_at_start(options)
    free = not found.reference or found.unit == "prompt" or name in ("margin", "rpo")
    assert (expected is None) == free
    if expected is not None:
        zero = pairs_of([0.0, 0.0], [0.0, 0.0], [-3.0, -4.0], [-5.0, -1.0])
        if found.unit == "vote":
            zero = VoteInputs(torch.zeros(2), torch.tensor([True, False]), torch.zeros(2))
            options["seen"] = torch.zeros(1, 1)
        assert value(name, zero, **options).tolist() == pytest.approx([expected] * 2, abs=1e-6)


@pytest.mark.parametrize("name", BY_UNIT["pair"])
def test_extreme_margins_stay_finite(name):
    chosen, rejected = (torch.tensor(values, requires_grad=True) for values in ([-1e4, 1e4], [1e4, -1e4]))
    found = value(name, pairs_of(chosen, rejected, -chosen.abs(), -rejected.abs()), beta=1.0)
    if name != "importance_correction":  # its weight is a ratio of probabilities, here e^10000
        assert found.isfinite().all()
        gradients = torch.autograd.grad(found.sum(), (chosen, rejected), allow_unused=True)  # sft reads chosen alone
        assert all(gradient is None or gradient.isfinite().all() for gradient in gradients)


# ---- gradients, in float64

DRAW = torch.Generator().manual_seed(3)


def drawn(count):
    return torch.randn(count, generator=DRAW, dtype=torch.float64)


@pytest.mark.parametrize("name", BY_UNIT["pair"])
def test_gradients_of_pairs(name):
    reference = [drawn(5) - 3, drawn(5) - 3]
    logprobs = [(drawn(5) - 4).requires_grad_() for _ in range(2)]
    loss = LOSSES[name]

    def inputs_of(*logprobs_M):
        return pairs_of(*(own - other for own, other in zip(logprobs_M, reference, strict=True)), *logprobs_M)

    fixed = seen_by(loss, inputs_of(*logprobs))
    weight = (logprobs[1] - reference[1]).detach().exp()  # of importance_correction

    def total(*logprobs_M):
        inputs = inputs_of(*logprobs_M)
        # places in order follow the policy; means of a batch and weights have no gradient
        seen = seen_by(loss, inputs) if name.startswith("aot") else fixed
        found = value(name, inputs, seen=seen)
        if name == "importance_correction":
            found = found / inputs.rejected.detach().exp() * weight
        return found.sum()

    assert torch.autograd.gradcheck(total, logprobs)


@pytest.mark.parametrize("name", BY_UNIT["vote"])
def test_gradients_of_votes(name):
    good, seen = torch.tensor([True, False, True, False]), drawn(6)[:, None]
    ratios = drawn(4).requires_grad_()
    assert torch.autograd.gradcheck(lambda r: value(name, VoteInputs(r, good, r), seen=seen).sum(), (ratios,))


@pytest.mark.parametrize("name", BY_UNIT["prompt"])
def test_gradients_of_lists(name):
    ranks, prompts, tokens = [2, 1, 2, 1, 2], [0, 0, 0, 1, 1], [3, 2, 4, 1, 2]

    def total(ratios):
        return value(name, lists_of(ratios, [3.0, 5.0, 3.0, 0.5, 0.25], ranks, prompts, tokens), beta=0.7).sum()

    assert torch.autograd.gradcheck(total, (drawn(5).requires_grad_(),))


def test_a_tie_counts_half():
    assert accuracy(torch.tensor([0.3, -1e-9, 0.0, -0.0, 2.0])).tolist() == [1.0, 0.0, 0.5, 0.5, 1.0]
