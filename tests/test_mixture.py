"""Which rows a stage and a split get: --data_path, weights, limits, what is left out, fingerprints."""

import pytest
from toy_rows import DATA, HELLO, mixture, pairs, prompts, real_data, user, write

from utils.errors import UserError
from utils.raw_datasets import RAW_DATASETS
from utils.raw_datasets.mixture import DUPLICATES, OTHER_STAGES, TIES, _unit
from utils.raw_datasets.spec import Spec, slice_of
from utils.raw_datasets.whole import records_of
from utils.records import prompt_hash

# ---- --data_path


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("data/a.jsonl", Spec("data/a.jsonl")),
        ("data/a.jsonl=0.5", Spec("data/a.jsonl", weight=0.5)),
        ("data/a.jsonl=2", Spec("data/a.jsonl", weight=2)),
        ("data/a.jsonl=500rows", Spec("data/a.jsonl", rows=500)),
        ("run/lr=1e-5/a.jsonl", Spec("run/lr=1e-5/a.jsonl")),
        ("run/k=3/a.jsonl=.5", Spec("run/k=3/a.jsonl", weight=0.5)),
        ("pairs:data/a:b.jsonl=2", Spec("data/a:b.jsonl", RAW_DATASETS["pairs"], weight=2)),
        ("HelpfulRLHFDataset:d", Spec("d", RAW_DATASETS["hh_rlhf"])),
        ("openai/gsm8k:main", Spec("openai/gsm8k:main")),
        ("prompt_answer:openai/gsm8k:main", Spec("openai/gsm8k:main", RAW_DATASETS["prompt_answer"])),
    ],
)
def test_the_grammar_of_data_path(text, expected):
    assert Spec.of(text) == expected


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "HelpfullRLHF:d",
            r"unknown data-set class 'HelpfullRLHF'; did you mean HelpfulRLHFDataset\?; known: .*records",
        ),
        ("a.jsonl=0", "the weight 0; expected above 0"),
        ("a.jsonl=-1", "the weight -1"),
        ("a.jsonl=0rows", "expected a whole number of rows"),
        ("a.jsonl=2.5rows", "expected a whole number of rows"),
        ("pairs:", "names no data"),
        ("", "names no data"),
        ("missing.jsonl", "missing.jsonl: no such file or folder"),
        ("./missing", "no such file or folder"),
        ("a/b/c", "no such file or folder"),
    ],
)
def test_wrong_data_paths(tmp_path, monkeypatch, text, says):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=says):
        mixture(text)


def test_weights_and_rows(tmp_path):
    path = write(tmp_path / "a.jsonl", pairs(200))
    everything = [f"q{i}" for i in range(200)]
    options = {"eval_holdout": 0.0}
    assert prompts(path, **options) == everything
    assert prompts(f"{path}=2", **options) == everything * 2
    half = prompts(f"{path}=0.5", **options)
    assert len(half) == 100 and half != everything[:100] and sorted(half, key=everything.index) == half
    assert half == prompts(f"{path}=0.5", **options) != prompts(f"{path}=0.5", seed=1, **options)
    assert sorted(prompts(f"{path}=1.5", **options)) == sorted(everything + half)
    some = prompts(f"{path}=30rows", **options)
    assert len(some) == 30 and some != everything[:30] and set(some) < set(everything)
    assert prompts(f"{path}=900rows", **options) == everything
    assert len(list(records_of(f"{path}=7rows"))) == 7


def test_limits_on_samples(tmp_path):
    first, second = write(tmp_path / "a.jsonl", pairs(100)), write(tmp_path / "b.jsonl", pairs(100, start=100))
    assert prompts(first, second, eval_holdout=0.0, data_fraction=0.1) == [
        f"q{i}" for i in (*range(10), *range(100, 110))
    ]
    stream = mixture(first, second, eval_holdout=0.0, max_train_samples=50)
    drawn = [int(record.prompt[0].content[1:]) for record in stream]
    assert len(drawn) == 50 == stream.counts["used"] and drawn == sorted(drawn)
    assert 10 < sum(i < 100 for i in drawn) < 40, "not taken from the first data set alone"
    drawn = [int(p[1:]) for p in prompts(f"{first}=0.5", f"{second}=2", eval_holdout=0.0, max_train_samples=50)]
    assert 1 <= sum(i < 100 for i in drawn) < 24, "50 rows against 200: weights and limits draw apart"
    assert len(prompts(first, second, split="eval", eval_holdout=0.5, max_eval_samples=5)) == 5


# ---- ties, duplicates, nothing left


def test_ties_and_duplicates_and_pairs_that_differ_early(tmp_path):
    row, other = {"chosen": HELLO + " Fig", "rejected": HELLO + " No"}, HELLO.replace("Hi.", "Ho.")
    rows = [row, {"chosen": HELLO + " Fig", "rejected": HELLO + " Fig "}, row, {**row, "rejected": other + " No"}]
    stream = mixture(write(tmp_path / "a.jsonl", rows), eval_holdout=0.0)
    assert len(list(stream)) == 2 == len(list(stream)), "the same at every iteration"
    assert stream.counts[TIES] == 1 and stream.counts[DUPLICATES] == 1
    assert stream.counts["pairs that differ before the last turn"] == 1
    assert any(
        note.endswith("1 pairs that differ before the last turn (first: " + f"{tmp_path}/a.jsonl:4)")
        for note in stream.notes
    )
    assert len(list(records_of(str(tmp_path / "a.jsonl")))) == 3, "records_of keeps ties"


def test_a_verdict_that_says_tie_is_an_answer_and_stays(tmp_path):
    row = {"prompt": "q", "answers": ["a", "b"], "verdicts": [{"a": 0, "b": 1, "preferred": "tie"}]}
    assert len(list(mixture(write(tmp_path / "a.jsonl", [row]), eval_holdout=0.0))) == 1


@pytest.mark.parametrize(
    ("rows", "options", "says"),
    [
        ([], {}, "the file is empty"),
        (["[]"], {}, "no rows left for train: .*0 rows read"),
        (["{\n", "{\n"], {"on_bad_row": "skip"}, "not JSON"),
        (
            ["oops\n", "3\n"],
            {"on_bad_row": "skip"},
            "no rows left for train: .*2 rows read, 0 used.*2 bad rows .first: ",
        ),
        ([{"prompt": "q", "chosen": "y", "rejected": "y"}], {"eval_holdout": 0.0}, "1 left out as ties"),
        (pairs(3), {"data_split": "0.00001,1,1"}, "3 in the slices of other stages"),
    ],
)
def test_nothing_left_says_why(tmp_path, rows, options, says):
    with pytest.raises(UserError, match=says):
        list(mixture(write(tmp_path / "a.jsonl", rows), **options))


def test_nothing_to_evaluate_on_names_the_remedy(tmp_path):
    path = write(tmp_path / "a.jsonl", pairs(3))
    with pytest.raises(UserError, match="no rows left for eval: .*3 left to training; give --eval_data_path, or raise"):
        list(mixture(path, split="eval", eval_holdout=0.0))


# ---- slices and splits


def test_no_prompt_is_in_two_slices(tmp_path):
    first = write(tmp_path / "a.jsonl", pairs(600))
    again = [{"prompt": f" q{i}\n", "answer": f"another {k}"} for i in range(300, 900) for k in range(2)]
    second = write(tmp_path / "b.jsonl", again)
    parts = {}
    for stage in (1, 2, 3):
        for split in ("train", "eval"):
            found = prompts(first, second, stage=stage, split=split, data_split="2,4,4", eval_holdout=0.2)
            parts[stage, split] = {prompt.strip() for prompt in found}
    assert len(set.union(*parts.values())) == sum(map(len, parts.values())) == 900
    # Binomial bounds at four standard deviations: the shares are 2, 4, 4 of 10, of which a fifth is held out.
    for stage, share in ((1, 0.2), (2, 0.4), (3, 0.4)):
        for split, part in (("train", 0.8), ("eval", 0.2)):
            mean = 900 * share * part
            assert abs(len(parts[stage, split]) - mean) < 4 * (mean * (1 - share * part)) ** 0.5


def test_slices_are_cut_where_the_shares_say():
    assert slice_of(None, 2) == (0.0, 1.0)
    assert [slice_of("2,4,4", stage) for stage in (1, 2, 3)] == [(0.0, 0.2), (0.2, 0.6), (0.6, 1.0)]
    assert [slice_of("5,0,5", stage) for stage in (1, 3)] == [(0.0, 0.5), (0.5, 1.0)]
    assert slice_of(" 1, 2.5 ,0", 2)[1] == 1.0
    assert _unit(0) == 0.0 and _unit(2**64 - 1) < 1.0
    half = prompt_hash(user("q0")) / 2**64
    assert abs(_unit(prompt_hash(user("q0"))) - half) < 1e-9


@pytest.mark.parametrize(
    ("data_split", "says"),
    [
        ("5,0,5", "--data_split 5,0,5 gives the reward model no data"),
        ("2,4", "expected three shares, as 2,4,4"),
        ("2,4,-4", "expected three shares"),
        ("a,b,c", "expected three shares"),
        ("0,0,0", "gives the reward model no data"),
        ("1,nan,1", "expected three shares"),
    ],
)
def test_wrong_splits(tmp_path, data_split, says):
    with pytest.raises(UserError, match=says):
        mixture(write(tmp_path / "a.jsonl", pairs(3)), stage=2, data_split=data_split)


def test_a_share_of_zero_is_no_matter_to_the_other_stages(tmp_path):
    path = write(tmp_path / "a.jsonl", pairs(100))
    sft, dpo = (prompts(path, stage=stage, data_split="5,0,5", eval_holdout=0.0) for stage in (1, 3))
    assert sorted(sft + dpo) == sorted(f"q{i}" for i in range(100)) and len(sft) > 30 < len(dpo)


def test_evaluation_takes_the_test_file_else_held_out_prompts_else_what_it_is_given(tmp_path):
    folder = tmp_path / "d"
    train, test = write(folder / "train.jsonl", pairs(100)), write(folder / "test.jsonl", pairs(5, start=500))
    assert prompts(folder) == [f"q{i}" for i in range(100)]
    assert prompts(folder, split="eval") == [f"q{i}" for i in range(500, 505)]
    kept, held = prompts(train, eval_holdout=0.2), prompts(train, split="eval", eval_holdout=0.2)
    assert sorted(kept + held) == sorted(prompts(folder)) and 5 < len(held) < 40
    given = {"eval_data_path": [str(test)]}
    assert len(prompts(train, **given)) == 100
    assert prompts(train, split="eval", **given) == prompts(folder, split="eval")
    assert len(prompts(f"{folder}=2rows", split="eval")) == 5, (
        "a weight of the training rows leaves the test split whole"
    )
    assert len(prompts(train, split="eval", eval_data_path=[f"{test}=2rows"])) == 2
    assert len(list(records_of(str(folder)))) == 105


def test_folders_that_do_not_say_what_to_read(tmp_path):
    write(tmp_path / "two" / "train.jsonl", pairs(1))
    write(tmp_path / "two" / "train.csv", ["prompt,answer\n"])
    write(tmp_path / "test_only" / "test.jsonl", pairs(1))
    write(tmp_path / "other" / "notes.md", ["x"])
    for name, says in (
        ("two", "holds train.jsonl and train.csv; name the file"),
        ("test_only", "found a test split alone"),
        ("other", "the folder holds notes.md; expected train and test files"),
    ):
        with pytest.raises(UserError, match=says):
            mixture(tmp_path / name)
    assert prompts(tmp_path / "two" / "train.jsonl", split="eval", eval_data_path=[str(tmp_path / "test_only")]) == [
        "q0"
    ]


# ---- fingerprint


def test_the_fingerprint_changes_with_content_and_settings_only(tmp_path):
    path = write(tmp_path / "a.jsonl", pairs(20))
    copy = write(tmp_path / "elsewhere" / "b.jsonl", pairs(20))
    base = mixture(path).fingerprint
    assert base == mixture(copy).fingerprint == mixture(path, seed=1).fingerprint, "neither path nor an unused seed"
    others = [
        mixture(f"{path}=0.5"),
        mixture(f"{path}=0.5", seed=1),
        mixture(f"{path}=10rows"),
        mixture(f"pairs:{path}"),
        mixture(path, split="eval"),
        mixture(path, data_split="2,4,4"),
        mixture(path, data_split="2,4,4", stage=2),
        mixture(path, columns=["prompt=question"]),
        mixture(path, eval_holdout=0.1),
        mixture(path, eval_data_path=[copy]),
        mixture(path, on_bad_row="skip"),
        mixture(path, data_fraction=0.5),
        mixture(path, max_train_samples=5),
        mixture(path, copy),
    ]
    prints = [base, *(other.fingerprint for other in others)]
    assert len(set(prints)) == len(prints)
    write(tmp_path / "a.jsonl", pairs(21))
    assert mixture(path).fingerprint not in prints


@real_data
def test_polite_pairs_and_grade_school_maths():
    stream = mixture(DATA / "rasbt" / "instruction-data-with-preference.json", stage=3, data_split="2,4,4")
    list(stream)
    counts = stream.counts
    assert counts[TIES] == 6
    assert counts["used"] + counts["held out for evaluation"] + counts[OTHER_STAGES] == 1094
    records = list(records_of(str(DATA / "gsm8k" / "test.jsonl"), columns=["prompt=question", "answer=answer"]))
    assert len(records) == 1319 and records[0].answers[0].text.endswith("#### 18")
