"""Losses against TRL's own code on the same random log-probs: its trainers' functions, on a model that answers with
given numbers. What differs on purpose is in docs/losses.md."""

import types

import numpy as np
import pytest
import torch
from peer import hh_like_pairs, small_llama, trl_trainer
from torch import nn

from utils.losses.inputs import PairInputs, VoteInputs
from utils.losses.objective import Running
from utils.losses.options import LOSSES

pytest.importorskip("trl", reason="TRL is not installed: pip install -e '.[test]'")
VOCABULARY, LENGTH, PAIRS = 50, 14, 6
OPTIONS = {"beta": 0.3, "label_smoothing": 0.1, "discopop_tau": 0.05, "ld_alpha": 0.4, "f_alpha": 0.5}


class Given(nn.Module):
    """A model whose log-prob of a token is a number of its table, whatever comes before."""

    def __init__(self, seed):
        super().__init__()
        self.table = torch.randn(VOCABULARY, generator=torch.Generator().manual_seed(seed)).double() - 1.0

    def forward(self, input_ids, labels=None, **_):
        values = self.table[input_ids[:, 1:]] * (labels[:, 1:] != -100)
        zeros = torch.zeros_like(values)
        return types.SimpleNamespace(
            log_probs=values, entropy=zeros, mean_logits=zeros, is_top1=zeros.bool(), log_sum_sq_probs=zeros
        )


POLICY, REFERENCE = Given(1), Given(2)


def padded(count, seed):
    """(ids, mask of the answers): prompts of three tokens, answers of two to eleven."""
    draw = np.random.default_rng(seed)
    ids, answers = torch.from_numpy(draw.integers(0, VOCABULARY, (count, LENGTH))), torch.zeros(count, LENGTH)
    for row in range(count):
        answers[row, 3 : 5 + int(draw.integers(0, LENGTH - 4))] = 1
    return ids, answers.long()


def logprobs_of(model, ids, answers):
    return model(ids, labels=ids.masked_fill(answers == 0, -100)).log_probs


def pairs_of(ids, answers):
    """What our losses read of the same rows: the chosen answers, and behind them the rejected ones."""
    mine, theirs, lengths = logprobs_of(POLICY, ids, answers), logprobs_of(REFERENCE, ids, answers), answers.sum(1)
    shared = torch.minimum(*lengths.chunk(2)).repeat(2)
    early = answers[:, 1:].cumsum(1) <= shared[:, None]
    ratios, sums = (mine - theirs).sum(1).chunk(2), mine.sum(1).chunk(2)
    begun = ((mine - theirs) * early).sum(1).chunk(2)
    return PairInputs(*ratios, *lengths.chunk(2), *sums, chosen_shared=begun[0], rejected_shared=begun[1])


@pytest.fixture(scope="module")
def dpo(tmp_path_factory):
    groups = hh_like_pairs(2, 60, longest=20)
    model = small_llama(60, hidden=64, layers=1)
    trainer = trl_trainer(model, groups, 60, tmp_path_factory.mktemp("dpo"), bf16=False)
    trainer.ref_model, trainer.precompute_ref_logps = REFERENCE, False
    return trainer


def theirs_of(trainer, name, **options):
    given = {"f_divergence_type": "reverse_kl", "ld_alpha": None, **options}
    trainer.loss_types, trainer.loss_weights, trainer.beta = [name], [1.0], OPTIONS["beta"]
    trainer.label_smoothing, trainer.f_alpha_divergence_coef = OPTIONS["label_smoothing"], 1 - OPTIONS["f_alpha"]
    trainer.args.discopop_tau = OPTIONS["discopop_tau"]
    for option, value in given.items():
        setattr(trainer, option, value)
    ids, answers = padded(2 * PAIRS, seed=5)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "completion_mask": answers}
    return float(trainer._compute_loss(POLICY, inputs, return_outputs=False))


def ours_of(name, **options):
    loss, pairs = LOSSES[name], pairs_of(*padded(2 * PAIRS, seed=5))
    seen = loss.look(pairs) if loss.look else None
    losses = loss(pairs, **OPTIONS | {"f_divergence": "reverse_kl"} | options, seen=seen, state=Running())
    assert len(losses) == PAIRS
    return float(losses.mean())


@pytest.mark.parametrize(
    "ours, theirs, options",
    [
        ("sigmoid", "sigmoid", {}),
        ("robust", "robust", {}),
        ("hinge", "hinge", {}),
        ("ipo_mean", "ipo", {}),
        ("exo_pair", "exo_pair", {}),
        ("nca_pair", "nca_pair", {}),
        ("bco_pair", "bco_pair", {}),  # before anything was seen, δ = 0
        ("sppo_hard", "sppo_hard", {}),
        ("aot", "aot", {}),
        ("aot_unpaired", "aot_unpaired", {}),
        ("apo_zero", "apo_zero", {}),
        ("apo_down", "apo_down", {}),
        ("discopop", "discopop", {}),
        ("sigmoid_norm", "sigmoid_norm", {}),
        ("ld_dpo", "sigmoid", {"ld_alpha": 0.4}),
        ("f_dpo", "sigmoid", {"f_divergence_type": "forward_kl"}),
        ("f_dpo", "sigmoid", {"f_divergence_type": "js_divergence"}),
        ("f_dpo", "sigmoid", {"f_divergence_type": "alpha_divergence"}),
    ],
)
def test_a_loss_of_pairs_is_that_of_trl(dpo, ours, theirs, options, monkeypatch):
    mine = {}
    if "alpha_divergence" in options.values():  # TRL has it for float32 and below
        for model in (POLICY, REFERENCE):
            monkeypatch.setattr(model, "table", model.table.float())
    if "f_divergence_type" in options:
        mine["f_divergence"] = options["f_divergence_type"].removesuffix("_divergence")
    assert ours_of(ours, **mine) == pytest.approx(theirs_of(dpo, theirs, **options), rel=1e-6)


def test_the_sft_term_differs_in_what_it_is_a_mean_of(dpo):
    ids, answers = padded(2 * PAIRS, seed=5)
    pairs = pairs_of(ids, answers)
    per_token = float(pairs.chosen_logprob.sum() / pairs.chosen_tokens.sum())
    assert theirs_of(dpo, "sft") == pytest.approx(-per_token, rel=1e-6)
    assert ours_of("sft") == pytest.approx(-float(pairs.chosen_logprob.mean()), rel=1e-6)


def here(**attributes):
    return types.SimpleNamespace(accelerator=types.SimpleNamespace(device=torch.device("cpu")), **attributes)


@pytest.mark.parametrize("ours, theirs", [("simpo", "simpo"), ("cpo", "sigmoid")])
def test_simpo_and_cpo_are_those_of_trl(ours, theirs):
    from trl.experimental.cpo import CPOTrainer

    pairs = pairs_of(*padded(2 * PAIRS, seed=5))
    logprobs = [pairs.chosen_logprob, pairs.rejected_logprob]
    if ours == "simpo":
        logprobs = [logprobs[0] / pairs.chosen_tokens, logprobs[1] / pairs.rejected_tokens]
    trainer = here(alpha=0.0, loss_type=theirs, simpo_gamma=0.5, beta=0.3, label_smoothing=0.0)
    expected, *_ = CPOTrainer.cpo_loss(trainer, *logprobs)
    found = LOSSES[ours](pairs, beta=0.3, simpo_gamma=0.5, cpo_alpha=0.0)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)


def test_the_odds_ratio_of_orpo_is_that_of_trl():
    from trl.experimental.orpo import ORPOTrainer

    pairs = pairs_of(*padded(2 * PAIRS, seed=5))
    pairs = pairs_with_negative(pairs)
    chosen = pairs.chosen_logprob / pairs.chosen_tokens
    expected, *_ = ORPOTrainer.odds_ratio_loss(here(beta=0.3), chosen, pairs.rejected_logprob / pairs.rejected_tokens)
    found = LOSSES["orpo"](pairs, orpo_lambda=0.3)
    torch.testing.assert_close((found + chosen).float(), -expected, rtol=1e-5, atol=1e-6)  # TRL's is in float32


def pairs_with_negative(pairs):
    """Log-probs as they are of real models: below 0."""
    values = vars(pairs) | {n: -getattr(pairs, n).abs() for n in ("chosen_logprob", "rejected_logprob")}
    return PairInputs(**values)


@pytest.mark.parametrize("name", ["kto", "apo_zero_unpaired"])
def test_a_loss_of_votes_is_that_of_trl(tmp_path, name):
    from datasets import Dataset
    from peer import word_tokenizer
    from trl import KTOConfig, KTOTrainer

    rows = [{"prompt": "t3 t4", "completion": " t5 t6", "label": bool(n % 2)} for n in range(4)]
    policy, reference = (small_llama(60, hidden=64, layers=1) for _ in range(2))
    trainer = KTOTrainer(
        model=policy, ref_model=reference, train_dataset=Dataset.from_list(rows),
        processing_class=word_tokenizer(60),
        args=KTOConfig(
            output_dir=str(tmp_path), use_cpu=True, report_to="none", bf16=False, beta=0.3, desirable_weight=1.5,
            undesirable_weight=0.7, per_device_train_batch_size=4, loss_type=name,
        ),
    )  # fmt: skip
    trainer.ref_model, trainer.precompute_ref_logps = REFERENCE, False
    (ids, answers), (other, of_other) = padded(8, seed=5), padded(8, seed=6)
    good = torch.tensor([True, False, True, True, False, False, True, False])
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "completion_mask": answers, "label": good}
    if name == "kto":
        batch |= {"KL_input_ids": other, "KL_attention_mask": torch.ones_like(other), "KL_completion_mask": of_other}
    expected = float(trainer._compute_loss(POLICY, batch, return_outputs=False))
    ratios = (logprobs_of(POLICY, ids, answers) - logprobs_of(REFERENCE, ids, answers)).sum(1)
    seen = (logprobs_of(POLICY, other, of_other) - logprobs_of(REFERENCE, other, of_other)).sum(1)[:, None]
    options = {"beta": 0.3, "desirable_weight": 1.5, "undesirable_weight": 0.7, "seen": seen}
    if name == "apo_zero_unpaired":  # TRL weighs its answers as well; ours has no such option
        trainer.desirable_weight = trainer.undesirable_weight = 1.0
        expected = float(trainer._compute_loss(POLICY, batch, return_outputs=False))
    found = LOSSES[name](VoteInputs(ratios, good, ratios), **options)
    assert float(found.mean()) == pytest.approx(expected, rel=1e-6)
