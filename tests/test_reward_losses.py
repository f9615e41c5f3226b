"""Losses of reward models: numbers worked by hand, gradients, TRL's own code, packed rows against padded ones, and a
step that does not depend on how it is cut."""

import math
import types
from collections import defaultdict

import numpy as np
import pytest
import torch
from processes import run_function, together
from toys import ROOT, tiny_rm

from utils.errors import UserError
from utils.losses.reward_inputs import SCORED, ScoredAnswers, ScoredLists, ScoredPairs, ScoredVotes
from utils.losses.reward_options import REWARD_LOSSES, RewardLossArguments
from utils.model.batch import collate
from utils.model.reward_model import RewardModel
from utils.tokens.group import Feedback, group

OPTIONS = vars(RewardLossArguments()) | {"margin_scale": 0.5}


def value(name, inputs, **options):
    return REWARD_LOSSES[name](inputs, **(OPTIONS | options))


def pairs_of(chosen, rejected, **known):
    """Pairs rated 5 and 3; of three verdicts two prefer the chosen answer; no ties."""
    one = torch.ones_like(chosen)
    defaults = {"confidence": 2 / 3 * one, "tie": one < 0, "chosen_rating": 5 * one, "rejected_rating": 3 * one}
    return ScoredPairs(chosen, rejected, **(defaults | known))


HAND = pairs_of(torch.tensor([1.2]), torch.tensor([0.7]))  # d = 0.5
TIED = pairs_of(torch.tensor([1.2]), torch.tensor([0.7]), tie=torch.tensor([True]))


@pytest.mark.parametrize(
    "name, inputs, expected",
    [
        ("bradley_terry", HAND, 0.4740770),  # log(1 + e^−0.5)
        ("margin", HAND, 0.9740770),  # d − 0.5 (5 − 3) = −0.5
        ("soft_labels", HAND, 0.6407436),  # 2/3 · 0.4740770 + 1/3 · 0.9740770
        ("rao_kupper", HAND, 0.7943768),  # log(1 + 2 e^−0.5)
        ("rao_kupper", TIED, 1.1537846),  # that, + log(1 + 2 e^0.5) − log 3
        ("davidson", HAND, 0.8693381),  # log(e^0.25 + e^−0.25 + 1) − 0.25
        ("davidson", TIED, 1.1193381),  # without the last
        ("center", HAND, 3.61),  # 1.9²
    ],
)
def test_pairs_by_hand(name, inputs, expected):
    assert value(name, inputs).tolist() == pytest.approx([expected], abs=1e-6)


@pytest.mark.parametrize("name, options", [("rao_kupper", {"tie_theta": 1.7}), ("davidson", {"tie_nu": 0.4})])
def test_probabilities_with_ties_add_up_to_one(name, options):
    gap, tie = torch.linspace(-4, 4, 9), torch.ones(9) > 0
    outcomes = (pairs_of(gap, 0 * gap), pairs_of(0 * gap, gap), pairs_of(gap, 0 * gap, tie=tie))
    total = sum((-value(name, inputs, **options)).exp() for inputs in outcomes)
    assert total.tolist() == pytest.approx([1.0] * 9, abs=1e-6)


def answers_of(scores, ratings):
    return ScoredAnswers(torch.as_tensor(scores), torch.tensor(ratings), torch.zeros(len(ratings), dtype=torch.int64))


def test_ratings_by_hand():
    """Of 1 to 7: ratings 5, 7 and 1 with the scores 0.2, 1.5 and −2."""
    rated = answers_of([0.2, 1.5, -2.0], [5.0, 7.0, 1.0])
    expected = [0.0136499, 0.0332791, 0.0142093]
    assert value("sigmoid_regression", rated).tolist() == pytest.approx(expected, abs=1e-6)
    # of 1 to 3 with the thresholds −log 2 and log 2: P(1) = σ(−log 2 − r), P(2) = σ(log 2 − r) − P(1), P(3) the rest
    at_zero = value("ordinal_regression", answers_of([0.0] * 3, [1.0, 2.0, 3.0]), rating_scale=3)
    assert at_zero.tolist() == pytest.approx([math.log(3)] * 3, abs=1e-6)
    found = value("ordinal_regression", answers_of([1.0] * 3, [1.0, 2.0, 3.0]), rating_scale=3)
    assert found.tolist() == pytest.approx([1.8619948, 1.3148272, 0.5514447], abs=1e-6)
    every = value("ordinal_regression", answers_of([0.7] * 7, [float(r) for r in range(1, 8)]))
    assert float((-every).exp().sum()) == pytest.approx(1, abs=1e-6)


def test_thumbs_by_hand():
    votes = ScoredVotes(torch.tensor([0.5, 0.5]), torch.tensor([True, False]))
    assert value("thumbs", votes).tolist() == pytest.approx([0.4740770, 0.9740770], abs=1e-6)
    assert {n: v.tolist() for n, v in votes.metrics().items()} == {
        "accuracy": [1.0, 0.0], "margin": [0.5, -0.5], "good_score": [0.5], "bad_score": [0.5],
    }  # fmt: skip


def lists_of(scores, ranks, prompts):
    return ScoredLists(torch.as_tensor(scores), torch.tensor(ranks), torch.tensor(prompts))


def test_rankings_by_hand():
    """log(e + 1/e + 1) − 1 + log(1 + 1/e); of two answers Bradley & Terry; a tie competes with itself."""
    lists = lists_of([1.0, -1.0, 0.0, 1.2, 0.7, 2.0, 2.0], [1, 3, 2, 1, 2, 1, 1], [0, 0, 0, 1, 1, 2, 2])
    expected = [0.7208677, 0.4740770, 2 * math.log(2)]
    assert value("plackett_luce", lists).tolist() == pytest.approx(expected, abs=1e-6)
    found = lists_of([1.0, 2.0, 0.0], [1, 2, 2], [0, 0, 0]).metrics()
    assert found["margin"].tolist() == [-1.0, 1.0] and found["accuracy"].tolist() == [0.0, 1.0]


def test_tokens_from_the_first_that_differs():
    """Answers 5 6 7 and 5 8: places 1 and 2 count, at the last of which the shorter one keeps its last score."""
    batch = collate([group([9], [[5, 6, 7], [5, 8], [5, 6, 7]], [(0, 1), (1, 0), (0, 2)])])
    scores = torch.arange(64.0) / 10  # 0 of the prompt, 1 to 3 of the first answer, 4 and 5 of the second, 6 to 8
    pairs = ScoredPairs.of(batch, scores, tokens=True)
    assert pairs.chosen.tolist() == pytest.approx([0.3, 0.5, 0.3])
    loss = lambda gap: math.log(1 + math.exp(-gap))  # noqa: E731
    expected = [(loss(-0.3) + loss(-0.2)) / 2, (loss(0.3) + loss(0.2)) / 2, loss(-0.5)]
    assert value("token_wise", pairs).tolist() == pytest.approx(expected, abs=1e-6)


def test_ties_in_the_data_are_no_decided_pairs():
    """A draw of two verdicts is a tie as well; neither counts in the accuracy."""
    known = Feedback(confidence=np.float32([1, 0.5, 0.5]), tie=np.array([False, True, False]))
    batch = collate([group([9], [[5], [6], [7]], [(0, 1), (1, 2), (0, 2)], feedback=known)])
    pairs = ScoredPairs.of(batch, torch.tensor([1.0, 2.0, 3.0]))
    assert pairs.tie.tolist() == [False, True, True] and pairs.metrics()["margin"].tolist() == [-1.0]


# ---- gradients, in float64

DRAW = torch.Generator().manual_seed(3)


def drawn(count):
    return torch.randn(count, generator=DRAW, dtype=torch.float64).requires_grad_()


@pytest.mark.parametrize("name", sorted(n for n, loss in REWARD_LOSSES.items() if loss.unit == "pair"))
def test_gradients_of_pairs(name):
    tie = torch.tensor([False, True, False, True])
    counts = torch.ones(4, 1) > 0

    def total(chosen, rejected):
        gap = (chosen - rejected)[:, None]
        return value(name, pairs_of(chosen, rejected, tie=tie, token_gap=gap, token_counts=counts)).sum()

    assert torch.autograd.gradcheck(total, (drawn(4), drawn(4)))


def test_gradients_of_the_others():
    rated = [1.0, 7.0, 4.0, 2.0, 6.0]
    for name in ("sigmoid_regression", "ordinal_regression"):
        assert torch.autograd.gradcheck(lambda s, n=name: value(n, answers_of(s, rated)).sum(), (drawn(5),))
    good = torch.tensor([True, False, True])
    assert torch.autograd.gradcheck(lambda s: value("thumbs", ScoredVotes(s, good)).sum(), (drawn(3),))
    ranks, prompts = [2, 1, 2, 1, 2], [0, 0, 0, 1, 1]
    lists = lambda s: value("plackett_luce", lists_of(s, ranks, prompts)).sum()  # noqa: E731
    assert torch.autograd.gradcheck(lists, (drawn(5),))


@pytest.mark.parametrize("name", ["rao_kupper", "davidson", "ordinal_regression", "margin"])
def test_extreme_scores_stay_finite(name):
    scores = torch.tensor([-1e4, 1e4, 0.0], requires_grad=True)
    inputs = pairs_of(scores, -scores, tie=torch.tensor([True, False, True]))
    if name == "ordinal_regression":
        inputs = answers_of(scores, [1.0, 7.0, 7.0])
    found = value(name, inputs)
    assert found.isfinite().all() and torch.autograd.grad(found.sum(), scores)[0].isfinite().all()


# ---- TRL's RewardTrainer


@pytest.mark.parametrize("name, coefficient", [("bradley_terry", None), ("bradley_terry", 0.3), ("margin", 0.3)])
def test_the_loss_is_that_of_trl(name, coefficient):
    pytest.importorskip("trl", reason="TRL is not installed: pip install -e '.[test]'")
    from trl import RewardTrainer

    scores = drawn(8).detach()
    trainer = types.SimpleNamespace(
        args=types.SimpleNamespace(center_rewards_coefficient=coefficient, disable_dropout=True),
        accelerator=types.SimpleNamespace(gather_for_metrics=lambda found: found, gather=lambda found: found),
        _metrics={"train": defaultdict(list)}, _total_train_tokens=0, _tp_size=1,
        model=types.SimpleNamespace(training=True),
    )  # fmt: skip
    model = lambda **_: types.SimpleNamespace(logits=scores[:, None])  # noqa: E731
    model.training = True
    inputs = {"input_ids": torch.ones(8, 2), "attention_mask": torch.ones(8, 2)}
    if name == "margin":
        inputs["margin"] = torch.full((4,), 1.0, dtype=torch.float64)
    theirs = RewardTrainer.compute_loss(trainer, model, inputs)
    objective = RewardLossArguments(loss=name, center_coef=coefficient or 0.0).objective()
    objective.options["margin_scale"] = 0.5  # of ratings that differ by 2
    assert float(objective(pairs_of(*scores.chunk(2))).mean()) == pytest.approx(float(theirs), abs=1e-6)


# ---- batches


def groups_of(answers=16):
    """Prompts with two to 16 answers and everything that may be known of them."""
    draw, rows = np.random.default_rng(1), []
    for k in (answers, 2, 5):
        prompt, start = draw.integers(5, 200, 20), draw.integers(5, 200, 3)
        texts = [np.concatenate((start, draw.integers(5, 200, draw.integers(1, 12)))) for _ in range(k)]
        pairs = [(0, 1), (k - 1, 0), (1, k - 1)][: 1 if k == 2 else 3]
        known = Feedback(
            rating=np.float32(draw.integers(1, 8, k)), rank=np.int32(draw.integers(1, 4, k)),
            good=np.int32(draw.integers(0, 2, k)), bad=np.int32(draw.integers(0, 3, k)),
            confidence=np.float32([0.75, 0.5, 1.0][: len(pairs)]), tie=np.array([False, True, False][: len(pairs)]),
        )  # fmt: skip
        rows.append(group(prompt, texts, pairs, feedback=known))
    return rows


def loss_and_gradient(name, model, batch):
    loss = REWARD_LOSSES[name]
    losses = value(name, SCORED[loss.unit].of(batch, model(batch, tokens=loss.tokens), loss.tokens))
    model.zero_grad()
    losses.sum().backward()
    return losses.detach(), torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


@pytest.mark.parametrize("name", sorted(REWARD_LOSSES))
def test_packed_equals_padded(name):
    model, groups = RewardModel(tiny_rm().train()), groups_of()
    packed, gradient = loss_and_gradient(name, model, collate(groups))
    padded, other = loss_and_gradient(name, model, collate(groups, packed=False))
    assert len(packed) == {"pair": 7, "answer": 23, "prompt": 3, "vote": 35}[REWARD_LOSSES[name].unit]
    assert (packed - padded).abs().max() <= 1e-5 and gradient.norm() > 1e-3
    assert (gradient - other).norm() / other.norm() <= 2e-6


CUTS = ((("per_device", 8),), (("per_device", 4), ("accumulation", 2)), (("per_device", 8), ("budget", 60)))
SAMPLE = ("token_wise", "davidson", "ordinal_regression", "thumbs", "plackett_luce")  # of each unit


@pytest.fixture(scope="module")
def steps(tmp_path_factory):
    folder, found = tmp_path_factory.mktemp("steps"), {}
    for ranks, cuts in ((1, CUTS), (2, ((("per_device", 4),),))):
        out, log = folder / f"{ranks}.pt", folder / f"{ranks}.log"
        code = together(run_function, log, "reward_losses_worker", "main", str(out), cuts, SAMPLE, ranks=ranks)
        assert code == 0, log.read_text(errors="replace")[-5000:]
        found |= torch.load(out, weights_only=False)
    return found


@pytest.mark.parametrize("name", SAMPLE)
@pytest.mark.parametrize("cut", [*CUTS[1:], (("per_device", 4),)], ids=["4x2", "split groups", "two ranks"])
def test_a_step_does_not_depend_on_the_cut(steps, name, cut):
    (expected, loss, held_out), (moved, other, other_held_out) = steps[name, CUTS[0]], steps[name, cut]
    assert expected.norm() > 1e-3 and (moved - expected).norm() / expected.norm() <= 2e-6
    assert other == pytest.approx(loss, abs=1e-6) and other_held_out == pytest.approx(held_out, abs=1e-6)


# ---- options, and the page


@pytest.mark.parametrize(
    "options, said",
    [
        ({"loss": "bradly"}, "known: bradley_terry, center"),
        ({"loss": "margin,rao_kupper"}, "reads rated_comparisons and verdicts data"),
        ({"loss": "thumbs", "center_coef": 0.1}, "--center_coef is for losses of pairs; thumbs is of each vote"),
        ({"tie_nu": 2.0}, "bradley_terry does not use --tie_nu; davidson would"),
        ({"loss": "rao_kupper", "tie_theta": 1.0}, "--tie_theta is 1.0; expected a number above 1"),
        ({"loss": "sigmoid_regression", "rating_scale": 1}, "--rating_scale is 1; expected 2 or more"),
        ({"loss": "plackett_luce", "pairs_from_ratings": True}, "plackett_luce is of each prompt"),
    ],
)
def test_options_that_do_not_go_together(options, said):
    with pytest.raises(UserError, match=said):
        RewardLossArguments(**options)


def test_ratings_outside_the_scale():
    def rated(*ratings):
        return [group([1], [[2]] * len(ratings), feedback=Feedback(rating=np.float32(ratings)))]

    RewardLossArguments(loss="sigmoid_regression").check_ratings(rated(1, 6.5, 7))
    RewardLossArguments().check_ratings([group([1], [[2]])])
    with pytest.raises(UserError, match="a rating of 8; --loss sigmoid_regression reads ratings from 1 to 7"):
        RewardLossArguments(loss="sigmoid_regression").check_ratings(rated(1, 8))
    with pytest.raises(UserError, match="a rating of 6.5; --loss ordinal_regression reads whole ratings from 1 to 7"):
        RewardLossArguments(loss="ordinal_regression").check_ratings(rated(1, 6.5))


def test_the_table_has_each_loss_with_its_needs():
    found = {}
    for line in (ROOT / "docs" / "reward_losses.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 6 and cells[0] not in ("name", "---"):
            found[cells[0]] = cells[3:5]
    declared = {}
    for name, loss in REWARD_LOSSES.items():
        options = ", ".join(f"`--{option}`" for option in loss.options) or "none"
        declared[name] = [f"{loss.unit}, {loss.data}", options]
    assert found == declared
