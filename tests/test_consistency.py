"""Ratings against rankings, on tables worked by hand."""

import csv
import itertools
import json
import random
import tracemalloc

import numpy as np
import pytest
from in_process import run
from toy_rows import user
from toys import ROOT

from utils.feedback.agreement import Ranking, cycles, first_ratings, flips
from utils.raw_datasets.whole import records_of
from utils.records import Answer, Message, Record, Verdict
from utils.records.files import write_jsonl
from utils.statistics import cohens_kappa

PROGRAM = ROOT / "data_collect" / "consistency.py"


@pytest.fixture
def measure(tmp_path, capsys):
    """measure(ratings, rankings) of rows for CSV files, or of records -> (the numbers, what was said)."""

    def run_it(ratings, rankings, *flags):
        paths = [written(tmp_path / name, rows) for name, rows in (("ratings", ratings), ("rankings", rankings))]
        out = tmp_path / "out.json"
        words = ("--ratings_csv", paths[0], "--rankings_csv", paths[1], "--json", out, *flags)
        assert run(PROGRAM, *words) == 0, capsys.readouterr().err
        return json.loads(out.read_text()), capsys.readouterr().out

    return run_it


def written(path, rows):
    if isinstance(rows[0], Record):
        write_jsonl(path.with_suffix(".jsonl"), rows)
        return path.with_suffix(".jsonl")
    with path.with_suffix(".csv").open("w", newline="") as out:
        csv.writer(out, lineterminator="\n").writerows(rows)
    return path.with_suffix(".csv")


# The second x counts for nothing.
RATINGS = [("q", "", "x", 5), ("q", "", "y", 3), ("q", "", "z", 3), ("q", "", "x", 1),
           ("r", "in", "u", 2), ("r", "in", "v", 4), ("r", "", "u", 7)]  # fmt: skip
RANKINGS = [
    ("q", "nan", "x", "y", "(a)"),  # ratings A, ranking A
    ("q", "", "x", "z", "(b)"),  # A, B
    ("q", "", "y", "z", "equal"),  # equal, equal
    ("q", "", "y", "x", "(b)"),  # B, B: the first pair in the other order, decided alike
    ("r", "in", "u", "v", "equal"),  # B, equal
    ("r", "in", "u", "w", "(a)"),  # w is not rated
    ("q", "", "x", "y", "(b)"),  # asked before
    ("r", "in", "v", "u", "neither"),  # no decision, and the row that counts
    ("r", "in", "v", "u", "(a)"),
]


def test_a_table_worked_by_hand(measure):
    found, said = measure(RATINGS, RANKINGS)
    assert found["table"] == [[1, 0, 0], [0, 1, 1], [1, 0, 1]]  # rows: ratings; columns: rankings; equal, A, B
    assert (found["n"], found["consistency"], found["unrated"], found["prompts"]) == (5, 60.0, 1, 2)
    assert "Consistency: 60.0\n" in said
    assert found["without_ties"]["n"] == 3 and found["without_ties"]["value"] == pytest.approx(200 / 3)
    # agreed 3/5; by chance (1*2 + 2*1 + 2*2) / 25 = 8/25; kappa (15 - 8) / (25 - 8)
    assert found["kappa"]["value"] == pytest.approx(7 / 17)
    assert found["flips"] == {"pairs_in_both_orders": 1, "flips": 0, "percent": 0.0}
    assert found["cycles"] == {"prompts": 2, "prompts_with_a_cycle": 0, "triples": 0, "circular_triples": 0}


def test_the_same_in_records(measure):
    answers = tuple(Answer(text, rating=rating) for text, rating in (("x", 5), ("y", 3), ("z", 3)))
    verdicts = (Verdict(0, 1, "a"), Verdict(0, 2, "b"), Verdict(1, 2, "tie"), Verdict(1, 0, "b"), Verdict(0, 1, "b"))
    implied = (Verdict(0, 1, "b", judge="ratings"),)  # what ratings say is no ranking
    other = tuple(Answer(text, rating=rating) for text, rating in (("u", 2), ("v", 4), ("w", None)))
    records = [
        Record(user("q"), answers, verdicts + implied),
        Record(user("r\n\n### Input:\nin"), other, (Verdict(0, 1, "tie"), Verdict(0, 2, "a"), Verdict(1, 0, "failed"))),
    ]
    of_records, _ = measure(records, records)
    of_files, _ = measure(RATINGS, RANKINGS)
    assert of_records == of_files


def test_orders_flips_and_a_judge_that_changes_its_mind(measure):
    answers = tuple(Answer(text, rating=rating) for text, rating in (("x", 5), ("y", 5), ("z", 2)))
    twice = [(0, 1, "a", "b"), (1, 2, "a", "a"), (0, 2, "a", "failed")]
    verdicts = [
        Verdict(a, b, said, "m", order) for a, b, *both in twice for order, said in zip(("ab", "ba"), both, strict=True)
    ]
    found, _ = measure(*[[Record(user("q"), answers, tuple(verdicts))]] * 2)
    assert found["table"] == [[1, 0, 0], [0, 1, 0], [0, 0, 0]]  # x, y: equal, as rated; x, z: dropped
    assert found["flips"] == {"pairs_in_both_orders": 2, "flips": 1, "percent": 50.0}
    orders = [{"a": 0, "b": 1, "ab": "a", "ba": "b"}, {"a": 1, "b": 2, "ab": "a", "ba": "a"},
              {"a": 0, "b": 2, "ab": "a", "ba": "failed"}]  # fmt: skip
    both = tuple(
        Verdict(each["a"], each["b"], said, "m") for each, said in zip(orders, ("tie", "a", "failed"), strict=True)
    )
    combined, _ = measure(*[[Record(user("q"), answers, both, meta={"by_order": orders})]] * 2)
    assert combined == found


def test_flips_of_files(measure):
    rankings = [
        ("q", "", "x", "y", "(a)"),
        ("q", "", "y", "x", "(a)"),
        ("q", "", "x", "z", "(b)"),
        ("q", "", "z", "x", "equal"),
    ]
    found, said = measure(RATINGS, rankings)
    assert found["flips"] == {"pairs_in_both_orders": 2, "flips": 2, "percent": 100.0}
    assert "order flips: 2 of 2 pairs that were judged in both orders" in said


def test_circles(measure):
    circle = [("q", "", "x", "y", "(a)"), ("q", "", "y", "z", "(a)"), ("q", "", "z", "x", "(a)")]
    line = [
        ("r", "", "x", "y", "(a)"),
        ("r", "", "y", "z", "(a)"),
        ("r", "", "z", "x", "(b)"),
        ("r", "", "z", "v", "(b)"),
    ]
    square = [("s", "", a, b, "(a)") for a, b in ("xy", "yz", "zv", "vx")]
    found, said = measure(RATINGS, circle + line + square)
    assert found["cycles"] == {"prompts": 3, "prompts_with_a_cycle": 2, "triples": 2, "circular_triples": 1}
    assert "cycles: 2 of 3 prompts; 1 of 2 triples" in said


def test_the_table_counts_as_one_counts_by_hand(measure):
    rng = random.Random(1)
    answers = [f"a{n}" for n in range(6)]
    ratings = [(q, "", a, rng.randint(1, 3)) for q in "pqr" for a in rng.sample(answers, 5)]
    rankings = [(q, "", *rng.sample(answers, 2), rng.choice(["(a)", "(b)", "equal"])) for q in "pqr" * 40]
    found, _ = measure(ratings, rankings)
    score = {(q, a): rating for q, _, a, rating in reversed(ratings)}
    expected, seen = np.zeros((3, 3), int), set()
    for q, _, a, b, says in rankings:
        if (q, a, b) not in seen and (q, a) in score and (q, b) in score:
            row = 0 if score[q, a] == score[q, b] else 1 if score[q, a] > score[q, b] else 2
            expected[row, ["equal", "(a)", "(b)"].index(says)] += 1
        seen.add((q, a, b))
    assert found["table"] == expected.tolist() and found["n"] == expected.sum()
    assert found["consistency"] == 100 * (expected.trace() / expected.sum())
    assert found["interval"]["value"] == pytest.approx(found["consistency"])
    assert found["interval"]["low"] < found["consistency"] < found["interval"]["high"]
    again, _ = measure(ratings, rankings)
    assert again == found


def test_prompts_that_differ_only_in_their_turns_are_apart(measure):
    def record(prompt, rating):
        return Record(prompt, (Answer("x", rating=rating), Answer("y", rating=3)), (Verdict(0, 1, "a"),))

    records = [record(user("q"), 5), record((*user("p"), Message("assistant", "o"), *user("q")), 1)]
    found, _ = measure(records, records)
    assert found["table"] == [[0, 0, 0], [0, 1, 0], [0, 1, 0]] and found["prompts"] == 2


def test_cohens_kappa():
    table = np.array([[20, 5], [10, 15]])  # agreed 35/50 = 0.7; chance 0.5 * 0.6 + 0.5 * 0.4 = 0.5
    assert cohens_kappa([table])[0] == pytest.approx(0.4) and np.isnan(cohens_kappa([table]).low)
    parts = [table // 5, table - table // 5] + [np.zeros((2, 2))]
    found = cohens_kappa(parts)
    assert found.value == pytest.approx(0.4) and found.n == 2 and found.low <= found.value <= found.high
    assert cohens_kappa([np.eye(3), np.eye(3)])[:3] == (1.0, 1.0, 1.0)
    assert np.isnan(cohens_kappa([np.diag([4, 0])]).value) and np.isnan(cohens_kappa([]).value)
    rng = np.random.default_rng(0)
    wide = cohens_kappa([rng.multinomial(4, [0.4, 0.1, 0.1, 0.4]).reshape(2, 2) for _ in range(200)])
    assert wide.low < 0.6 < wide.high and wide.high - wide.low < 0.2  # true kappa: (0.8 - 0.5) / 0.5


def circles_by_hand(decisions):
    """(triples whose pairs are all decided, those of them that go round), by trying every three."""
    triples = circular = 0
    beats = {(a, b) if says == "a" else (b, a) for a, b, says in decisions}
    for three in itertools.combinations(sorted(set(itertools.chain(*beats))), 3):
        inside = [pair for pair in itertools.permutations(three, 2) if pair in beats]
        triples += len(inside) == 3
        circular += len(inside) == 3 and len({winner for winner, _ in inside}) == 3
    return triples, circular


@pytest.mark.parametrize("seed", range(20))
def test_circles_are_those_of_every_three_answers(seed):
    rng = random.Random(seed)
    pairs = [pair for pair in itertools.combinations("stuvwxyz", 2) if rng.random() < 0.7]
    decisions = [(a, b, rng.choice("ab")) for a, b in pairs]
    found = cycles(Ranking(user("q"), a, b, says=says) for a, b, says in decisions)
    assert (found["triples"], found["circular_triples"]) == circles_by_hand(decisions) and found["triples"]


def test_many_ratings_of_one_instruction_take_little_memory(tmp_path):
    """500 ratings imply 124,750 verdicts, some 15 MB: they are made when they are read."""
    path = written(tmp_path / "ratings", [("q", "", f"answer {number}", number % 7) for number in range(500)])
    tracemalloc.start()
    (record,) = records_of(f"ratings-feedback-csv:{path}")
    assert len(first_ratings([record])) == 500 and flips([record])["pairs_in_both_orders"] == 0
    assert tracemalloc.get_traced_memory()[1] < 4e6
    tracemalloc.stop()
    assert len(record.verdicts) == 500 * 499 / 2
    assert record.verdicts[:2] == (Verdict(0, 1, "b", judge="ratings"), Verdict(0, 2, "b", judge="ratings"))
