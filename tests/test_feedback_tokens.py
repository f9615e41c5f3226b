"""Ratings, ranks, thumbs, verdicts: what each kind of data takes of a record, how it is stored, split and batched."""

import numpy as np
import pytest
import torch
from test_token_store import WIDE, ask, made, ready, renderer  # noqa: F401 (a fixture)

from utils.errors import UserError
from utils.model.batch import collate
from utils.records import Answer, Record, Verdict, comparison
from utils.records.files import write_jsonl
from utils.tokens.group import Feedback, group, sizes_of
from utils.tokens.templates import Tally, choose, feedback_of
from utils.training.plan import Division, Plan

RATED = Record(ask("x"), (Answer("a", rating=3), Answer("b"), Answer("c", rating=5), Answer("d", rating=3)))
JUDGED = Record(
    ask("x"),
    (Answer("a", thumb=True), Answer("b", rating=2), Answer("c", rating=1), Answer(" ", thumb=False)),
    (Verdict(0, 1, "a"), Verdict(1, 0, "b"), Verdict(0, 1, "b"), Verdict(1, 2, "tie"), Verdict(1, 2, "failed")),
)


def taken(record, kind, **more):
    """(answers, pairs, what is known of them by name, counts of what was left out)."""
    tally = Tally()
    row = choose(record, kind, tally, **more)
    if row is None:
        return None, None, {}, dict(tally.counts)
    known = vars(feedback_of(record, kind, row.answers, row.pairs))
    known = {name: values.tolist() for name, values in known.items() if values is not None}
    return row.answers, row.pairs, known, dict(tally.counts)


@pytest.mark.parametrize(
    "record, kind, answers, pairs, known",
    [
        (JUDGED, "comparisons", (0, 1), ((0, 1), (0, 1), (1, 0)), {}),
        # two of three verdicts prefer a; one tie of one
        (JUDGED, "verdicts", (0, 1, 2), ((0, 1), (1, 2)), {"confidence": [2 / 3, 0.5], "tie": [False, True]}),
        # its thumb and two verdicts for a, one against it
        (JUDGED, "unpaired", (0, 1), (), {"good": [3, 1], "bad": [1, 2]}),
        (JUDGED, "rated", (1, 2), (), {"rating": [2.0, 1.0]}),
        (RATED, "rated", (0, 2, 3), (), {"rating": [3.0, 5.0, 3.0]}),
        (RATED, "rated_answers", (0, 2, 3), (), {"rating": [3.0, 5.0, 3.0]}),
        (RATED, "ranked", (0, 2, 3), (), {"rank": [2, 1, 2]}),
        (Record(ask("x"), (Answer("a", rank=2), Answer("b", rank=1))), "ranked", (0, 1), (), {"rank": [2, 1]}),
    ],
)
def test_what_a_kind_takes(record, kind, answers, pairs, known):
    found = taken(record, kind)
    assert found[:2] == (answers, pairs) and found[2].keys() == known.keys()
    for name, values in known.items():
        assert found[2][name] == pytest.approx(values)


def test_rewards_are_ratings_and_likelihoods_are_not():
    scores = [{"reward": 0.5, "nll_per_token": 2.0}, {"reward": -1.0}, {"perplexity": 3.0}, {"one": 1.0, "two": 2.0}]
    record = Record(ask("x"), tuple(Answer(text, scores=one) for text, one in zip("abcd", scores, strict=True)))
    answers, _, known, counts = taken(record, "rated")
    assert answers == (0, 1) and known["rating"] == [0.5, -1.0]
    assert counts == {"answers left out: no rating": 2}


@pytest.mark.parametrize(
    "record, kind, reason",
    [
        (RATED, "comparisons", "--pairs_from_ratings makes pairs of them"),
        (Record(ask("x"), (Answer("a"), Answer("b"))), "comparisons", "no decided pair of answers with text"),
        (comparison(ask("x"), "a", "b"), "rated_comparisons", "an answer without a rating"),
        (comparison(ask("x"), "a", "b"), "rated", "fewer than two answers with a rating"),
        (Record(ask("x"), (Answer("a", rating=1),)), "rated", "fewer than two answers with a rating"),
        (Record(ask("x"), (Answer("a", rating=1), Answer("b", rating=1))), "ranked", "all answers have the same rank"),
        (RATED, "unpaired", "no answer with a thumb or decided verdict"),
        (Record(ask("x"), (Answer("a"),)), "rated_answers", "no answer with a rating"),
    ],
)
def test_what_a_kind_leaves_out_is_counted(record, kind, reason):
    answers, _, _, counts = taken(record, kind)
    assert answers is None and any(reason in one for one in counts), counts


def test_pairs_from_ratings_only_when_asked():
    answers, pairs, _, counts = taken(RATED, "comparisons", pairs_from_ratings=True)
    assert answers == (0, 2, 3) and pairs == ((2, 0), (2, 3)) and counts == {}
    _, pairs, known, _ = taken(JUDGED, "rated_comparisons", pairs_from_ratings=True)
    assert pairs == ((1, 2),) and known["rating"] == [2.0, 1.0]  # of a no rating is known


def test_feedback_comes_out_of_a_store_as_it_went_in(tmp_path, renderer):  # noqa: F811
    store = made([RATED, JUDGED, RATED], "rated", renderer, WIDE, tmp_path / "rated")
    assert [g.feedback.rating.tolist() for g in store] == [[3, 5, 3], [2, 1], [3, 5, 3]]
    assert store[1].feedback.good is None and store.units("answer").tolist() == [3, 2, 3]
    assert store.units("prompt").tolist() == [1, 1, 1]
    store = made([comparison(ask("y"), "p", "q"), JUDGED], "unpaired", renderer, WIDE, tmp_path / "unpaired")
    assert store[1].feedback.good.tolist() == [3, 1] and store[1].feedback.bad.tolist() == [1, 2]
    assert store.units("vote").tolist() == [2, 7] == list(sizes_of(list(store), "vote")[1])
    # the pair of a and b is cut to the same tokens and dropped: of the two pairs' feedback that of the other stays
    same = Record(ask("x"), (Answer("ab"), Answer("ac"), Answer("d")), (Verdict(0, 1, "tie"), Verdict(2, 0, "a")))
    short = type(WIDE)(500, 2, 1000, "keep_end")
    (only,) = made([same], "verdicts", renderer, short, tmp_path / "verdicts")
    assert only.pairs == ((2, 0),) and only.feedback.confidence.tolist() == [1.0] and not only.feedback.tie.any()


def test_a_damaged_store_is_not_opened(tmp_path, renderer):  # noqa: F811
    store = made([RATED], "rated", renderer, WIDE, tmp_path / "rated")
    np.save(tmp_path / "rated" / "rating.npy", np.zeros(2, np.float32))
    with pytest.raises(ValueError, match="holds 2 entries of rating"):
        type(store)(tmp_path / "rated")


def test_the_fingerprint_follows_what_is_stored(tmp_path, renderer):  # noqa: F811
    data = tmp_path / "rows.jsonl"
    write_jsonl(data, [JUDGED, *(comparison(ask(f"{n}"), "p", "q") for n in range(4))])
    kinds = ("comparisons", "verdicts", "unpaired")
    found = {ready(data, tmp_path / "cache", renderer, "--eval_holdout", "0", kind=k).fingerprint for k in kinds}
    assert len(found) == 3


def toy(lengths=(10, 20, 30, 40)):
    known = Feedback(
        rating=np.float32([1, 2, 3, 4]), good=np.int32([1, 0, 2, 0]), bad=np.int32([0, 1, 1, 1]),
        confidence=np.float32([0.9, 0.8, 0.7]), tie=np.array([False, True, False]),
    )  # fmt: skip
    answers = [np.arange(n) + 100 * k for k, n in enumerate(lengths)]
    return group(np.arange(5), answers, [(0, 1), (2, 3), (3, 0)], feedback=known)


@pytest.mark.parametrize("unit, parts", [("vote", 3), ("answer", 3), ("pair", 3), ("prompt", 1)])
def test_a_split_keeps_together_what_belongs_together(unit, parts):
    whole = toy()
    found = whole.split(60, unit)
    assert len(found) == parts
    ratings = [g.feedback.rating.tolist() for g in found]
    assert ratings == [[whole.feedback.rating[k] for k in g.part or range(4)] for g in found]
    confidences = [c for g in found for c in g.feedback.confidence.tolist()]
    assert len(confidences) == sum(len(g.pairs) for g in found)
    if unit in ("pair", "prompt"):
        assert sorted(confidences) == sorted(whole.feedback.confidence.tolist())
    if unit != "pair":
        assert sum(int(g.feedback.good.sum()) for g in found) == 3


def test_a_whole_prompt_makes_a_pass_by_itself():
    groups = [toy(), *[group([1, 2], [[3], [4]]) for _ in range(5)]]
    division = Division(per_step=6, per_device=6, token_budget=60, world=2, seed=0, unit="prompt")
    plan = Plan(groups, *sizes_of(groups, "prompt"), division, max_steps=1)
    steps = [plan.step(1, rank) for rank in range(2)]
    assert steps[0].units == 6
    batches = [plan.batch(m, packed=True) for step in steps for m in step.micro_batches if m.weight]
    assert sorted(len(batch.answer_tokens) for batch in batches if batch.tokens > 60) == [4]
    assert sum(len(batch.answer_tokens) for batch in batches) == 14


def test_a_batch_has_the_feedback_as_tensors():
    batch = collate([group([1, 2], [[3], [4]], [(1, 0)]), toy()])
    assert batch.prompt_of.tolist() == [0, 0, 1, 1, 1, 1]
    assert torch.equal(batch.rating.isnan(), torch.tensor([True, True, False, False, False, False]))
    assert batch.rank.tolist() == [0] * 6
    assert batch.confidence.tolist() == pytest.approx([1.0, 0.9, 0.8, 0.7])
    assert batch.tie.tolist() == [False, False, True, False]
    assert batch.voted.tolist() == [2, 3, 4, 4, 4, 5]
    assert batch.good.tolist() == [True, False, True, True, False, False]


def test_a_kind_without_data_names_the_remedy(tmp_path, renderer):  # noqa: F811
    with pytest.raises(UserError, match="none of 1 records can be used as comparisons: .*--pairs_from_ratings"):
        made([RATED], "comparisons", renderer, WIDE, tmp_path / "store")
