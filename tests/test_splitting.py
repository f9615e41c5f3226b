"""A prompt with many answers in several forward passes, the prompt repeated: the same numbers as in one."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_packed import random_groups
from toys import tiny_lm, tiny_rm

from utils.model.batch import collate
from utils.model.measure import measure
from utils.model.passes import Passes
from utils.model.reward_model import RewardModel
from utils.model.scoring import Policy
from utils.tokens.group import group
from utils.training.plan import Division, Plan
from utils.training.reference import reference_logprobs

LENGTHS = st.lists(st.integers(1, 40), min_size=1, max_size=9)


def group_of(prompt, lengths, pairs=()):
    return group(np.arange(prompt) + 5, [np.arange(n) + 100 * k for k, n in enumerate(lengths)], pairs)


@settings(deadline=None)
@given(prompt=st.integers(1, 30), lengths=LENGTHS, budget=st.integers(1, 200))
def test_every_answer_is_in_one_part_within_the_budget(prompt, lengths, budget):
    whole = group_of(prompt, lengths)
    parts = whole.split(budget)
    assert [k for part in parts for k in (part.part or range(len(lengths)))] == list(range(len(lengths)))
    for part in parts:
        assert np.array_equal(part.prompt, whole.prompt)
        assert part.tokens <= budget or len(part.answers) == 1
        for k, answer in zip(part.part or range(len(lengths)), part.answers, strict=True):
            assert np.array_equal(answer, whole.answers[k])


@settings(deadline=None)
@given(prompt=st.integers(1, 30), lengths=LENGTHS.filter(lambda x: len(x) > 1), budget=st.integers(1, 200),
       draw=st.randoms(use_true_random=False))  # fmt: skip
def test_every_pair_is_in_one_part(prompt, lengths, budget, draw):
    every = [(i, j) for i in range(len(lengths)) for j in range(len(lengths)) if i != j]
    whole = group_of(prompt, lengths, draw.sample(every, draw.randint(1, len(every))))
    parts = whole.split(budget, unit="pair")
    found = [(p.part[w], p.part[l]) if p.part else (w, l) for p in parts for w, l in p.pairs]
    assert sorted(found) == sorted(whole.pairs)
    assert all(part.tokens <= budget or len(part.answers) == 2 for part in parts)


def test_trained_prompt_tokens_are_in_one_part():
    whole = group(range(10), [[1, 2], [3, 4], [5, 6]], prompt_trained=[True] * 10)
    assert [part.prompt_trained is not None for part in whole.split(12)] == [True, False, False]


@pytest.mark.parametrize("per_answer", [False, True], ids=["tokens", "answers"])
@pytest.mark.parametrize("count, budget", [(4, 0), (2, 70), (4, 40), (1, 1)])
def test_measured_numbers_do_not_depend_on_the_budget(per_answer, count, budget):
    model = RewardModel(tiny_rm()) if per_answer else Policy(tiny_lm())
    groups = random_groups()
    whole = measure(model, groups, packed=True, count=4, budget=0, per_answer=per_answer)
    found = measure(model, groups, packed=True, count=count, budget=budget, per_answer=per_answer)
    assert len(found) == len(groups)
    for mine, theirs in zip(found, whole, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-5)


def test_no_pass_exceeds_the_budget():
    passes = Passes(random_groups(), 4, 60, packed=True)
    sizes = [(batch.tokens, len(batch.answer_ends)) for batch in passes]
    assert len(passes) > 4 and all(tokens <= 60 or answers == 1 for tokens, answers in sizes)


def test_the_reference_of_split_groups(tmp_path):
    """Computed in parts, and read by batches that hold a whole group or a part of one."""
    model, groups = Policy(tiny_lm()), random_groups()
    whole = reference_logprobs(model, groups, tmp_path / "whole.sqlite", packed=True, count=4, budget=0)
    parts = reference_logprobs(model, groups, tmp_path / "parts.sqlite", packed=True, count=4, budget=40)
    batch = collate(groups, range(4))
    torch.testing.assert_close(parts.of(batch), whole.of(batch), atol=1e-4, rtol=1e-5)
    divided = groups[1].split(40)
    assert len(divided) > 1
    for part in divided:
        of_group = whole.of(collate([groups[1]], [1]))
        assert torch.equal(whole.of(collate([part], [1])), of_group[list(part.part)])


def test_a_plan_splits_what_exceeds_its_budget_and_ranks_take_equally_many_passes():
    groups = [group_of(20, [30] * 8, [(0, k) for k in range(1, 8)]), *[group_of(10, [15], ()) for _ in range(5)]]
    division = Division(per_step=6, per_device=6, token_budget=120, world=2, seed=0, unit="pair")
    plan = Plan(groups, [g.tokens for g in groups], [max(1, len(g.pairs)) for g in groups], division, max_steps=1)
    steps = [plan.step(1, rank) for rank in range(2)]
    assert len(steps[0].micro_batches) == len(steps[1].micro_batches)
    batches = [plan.batch(m, packed=True) for step in steps for m in step.micro_batches if m.weight]
    assert max(batch.tokens for batch in batches) <= 120
    assert sum(len(batch.chosen) for batch in batches) == 7
    assert sum(15 in batch.answer_tokens.tolist() for batch in batches) >= 1
