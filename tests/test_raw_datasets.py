"""Raw data -> records: every class, the grammar of --data_path, the division between stages and splits, the errors."""

import gzip
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from utils.arguments.options import DataArguments
from utils.errors import UserError
from utils.raw_datasets import RAW_DATASETS, open_mixture, records_of
from utils.raw_datasets.mixture import DUPLICATES, OTHER_STAGES, TIES, Mixture, _unit
from utils.raw_datasets.spec import Spec, slice_of
from utils.records import Answer, Message, Record, prompt_hash

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("PLUMBLINE_DATA", ROOT.parent / "shared" / "data"))
real_data = pytest.mark.skipif(not DATA.is_dir(), reason="no real data: set PLUMBLINE_DATA to its folder")

HELLO = "\n\nHuman: Hello\n\nAssistant: Hi.\n\nHuman: Name a fruit.\n\nAssistant:"
FRUIT = (Message("user", "Hello"), Message("assistant", "Hi."), Message("user", "Name a fruit."))
CODED = '{"Evaluation of Student Response": "a", "Subproblem State": "x", "Tutorbot": "Not quite"}'


def user(text):
    return (Message("user", text),)


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows)
    path.write_text(text, encoding="utf-8")
    return str(path)


def pairs(count, start=0):
    return [{"prompt": f"q{i}", "chosen": "yes", "rejected": "no"} for i in range(start, start + count)]


def mixture(*paths, split="train", stage=1, seed=0, **options) -> Mixture:
    return open_mixture(DataArguments(data_path=list(map(str, paths)), **options), split, stage, seed)


def prompts(*paths, **options):
    return [record.prompt[-1].content for record in mixture(*paths, **options)]


KINDS = [  # class, a row, its prompt, its answers, its pairs
    ("records", {"prompt": [{"role": "user", "content": "q"}], "answers": ["a", "b"]}, user("q"), ["a", "b"], []),
    ("records", {"prompt": [{"role": "user", "content": "q"}]}, user("q"), [], []),
    ("pairs", {"prompt": "q", "chosen": " y", "rejected": "n"}, user("q"), [" y", "n"], [(0, 1)]),
    ("pairs", {"prompt": HELLO, "chosen": " Fig", "reject": "No "}, FRUIT, ["Fig", "No"], [(0, 1)]),
    (
        "pairs",
        {"prompt": "Human: POST x\n\nAssistant: TL;DR:", "chosen": " s", "reject": " t"},
        user("POST x\n\nTL;DR:"),
        ["s", "t"],
        [(0, 1)],
    ),
    (
        "pairs",  # answers as messages, the prompt repeated before them
        {
            "prompt": "q",
            "chosen": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "y"}],
            "rejected": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "n"}],
        },
        user("q"),
        ["y", "n"],
        [(0, 1)],
    ),
    (
        "pairs",
        {
            "prompt": [{"role": "user", "content": "q"}],
            "chosen": [{"role": "assistant", "content": "y"}],
            "rejected": [{"role": "assistant", "content": "n"}],
        },
        user("q"),
        ["y", "n"],
        [(0, 1)],
    ),
    ("prompt_answer", {"prompt": HELLO, "chosen": " Fig"}, FRUIT, ["Fig"], []),
    ("prompt_answer", {"prompt": "q", "completion": "a"}, user("q"), ["a"], []),
    ("prompt_answer", {"prompt": "q", "task": "qa"}, user("q"), [], []),
    ("hh_rlhf", {"chosen": HELLO + " Fig", "rejected": HELLO + " No"}, FRUIT, ["Fig", "No"], [(0, 1)]),
    (
        "hh_rlhf",
        {
            "chosen": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "y"}],
            "rejected": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "n"}],
        },
        user("q"),
        ["y", "n"],
        [(0, 1)],
    ),
    ("alpaca", {"instruction": "i", "input": "", "output": "o"}, user("i"), ["o"], []),
    ("alpaca", {"instruction": "i", "input": "x", "output": "o"}, user("i\n\n### Input:\nx"), ["o"], []),
    ("alpaca", {"instruction": "i", "output": "y", "chosen": "y", "rejected": "n"}, user("i"), ["y", "n"], [(0, 1)]),
    ("alpaca", {"instruction": "i", "input": None}, user("i"), [], []),
    (
        "messages",
        {"messages": [{"role": r, "content": c} for r, c in (("system", "s"), ("user", "q"), ("assistant", "a"))]},
        (Message("system", "s"), Message("user", "q")),
        ["a"],
        [],
    ),
    (
        "sharegpt",
        {"conversations": [{"from": f, "value": v} for f, v in (("human", "q"), ("gpt", "a"), ("human", "r"))]},
        (Message("user", "q"), Message("assistant", "a"), Message("user", "r")),
        [],
        [],
    ),
    (
        "tutoring",  # the thoughts go, N/A becomes its code, the turn that cannot be parsed ends it with its question
        {
            "conversations": [
                {"from": "human", "value": "Help the student.\nStudent: Q. Explain diffusion."},
                {"from": "gpt", "value": "{'Thoughts of Tutorbot': 't', 'Subproblem State': 'N/A', 'Tutorbot': 'Ask'}"},
                {"from": "human", "value": "it needs ATP"},
                {"from": "gpt", "value": CODED},
                {"from": "human", "value": "why?"},
                {"from": "gpt", "value": "Sorry, no object here"},
            ]
        },
        (
            Message("system", "Help the student."),
            Message("user", "Q. Explain diffusion."),
            Message("assistant", '{"Subproblem State": "w", "Tutorbot": "Ask"}'),
            Message("user", "it needs ATP"),
        ),
        [CODED],
        [],
    ),
    (
        "tutoring",
        {
            "prompt": f"System: Help. Student: Q. Explain.\nTutorbot: {CODED}\nStudent: it needs ATP\n\nTutorbot:",
            "chosen": CODED,
            "rejected": "hm",
        },
        (
            Message("system", "Help."),
            Message("user", "Q. Explain."),
            Message("assistant", CODED),
            Message("user", "it needs ATP"),
        ),
        [CODED, "hm"],
        [(0, 1)],
    ),
]


@pytest.mark.parametrize(("name", "row", "prompt", "answers", "decided"), KINDS)
def test_a_row_of_each_class_is_recognised_and_read(tmp_path, name, row, prompt, answers, decided):
    path = write(tmp_path / "a.jsonl", [row])
    stream = mixture(path, eval_holdout=0.0)
    (record,) = stream
    assert f"class {name}, found by its columns" in stream.notes[0]
    assert record.prompt == prompt
    assert [answer.text for answer in record.answers] == answers
    assert record.pairs() == decided
    assert record.where == f"{path}:1"
    assert list(records_of(f"{name}:{path}")) == [record]


def test_every_class_has_a_row_above():
    assert {kind[0] for kind in KINDS} == {cls.name for cls in RAW_DATASETS.values()}


def test_what_else_a_row_says_is_kept_in_meta(tmp_path):
    path = write(tmp_path / "a.jsonl", [{"prompt": "q", "task": "qa", "loss": 1.5}])
    assert [record.meta for record in records_of(path)] == [{"task": "qa", "loss": 1.5}]


def test_the_names_of_deepspeed_chat_users_read_both_shapes(tmp_path):
    whole = write(tmp_path / "whole.jsonl", [{"chosen": HELLO + " Fig", "rejected": HELLO + " No"}])
    cut = write(tmp_path / "cut.jsonl", [{"prompt": HELLO, "chosen": " Fig", "rejected": " No"}])
    for name in ("HelpfulRLHFDataset", "HarmlessRLHFDataset"):
        assert list(records_of(f"{name}:{whole}")) == list(records_of(f"{name}:{cut}"))


def test_neighbouring_turns_of_one_speaker_become_one_message(tmp_path):
    before = "\n\nHuman: a\n\nAssistant: b\n\nAssistant: c\n\nHuman: d\n\nAssistant: "
    (record,) = records_of(write(tmp_path / "a.jsonl", [{"chosen": before + "y", "rejected": before + "n"}]))
    assert record.prompt == (Message("user", "a"), Message("assistant", "b\n\nc"), Message("user", "d"))


# ---- the documents


def test_the_examples_of_docs_data_are_read(tmp_path):
    document = (ROOT / "docs" / "data.md").read_text()
    rows = [line for block in re.findall(r"```json\n(.*?)```", document, re.DOTALL) for line in block.splitlines()]
    for row in rows:
        stream = mixture(write(tmp_path / "a.jsonl", [row + "\n"]), eval_holdout=0.0)
        assert len(list(stream)) == 1, row
    for name in RAW_DATASETS:
        assert f"`{name}`" in document


def test_the_class_of_docs_adding_works(tmp_path):
    code, *_ = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "adding.md").read_text(), re.DOTALL)
    try:
        exec(code, {})
        (record,) = records_of(write(tmp_path / "a.jsonl", [{"question": "q", "right": "y", "wrong": "n"}]))
        assert (
            record.prompt == user("q") and record.answers == (Answer("y"), Answer("n")) and record.pairs() == [(0, 1)]
        )
    finally:
        RAW_DATASETS.pop("quiz", None)


# ---- files, folders, columns


def test_all_kinds_of_files_hold_the_same_rows(tmp_path):
    rows = [{"question": "1 + 1?", "good": "2"}, {"question": 'Say, "hi"\nthen', "good": "NaN"}]
    write(tmp_path / "a.jsonl", rows)
    with gzip.open(tmp_path / "a.jsonl.gz", "wt") as out:
        out.write((tmp_path / "a.jsonl").read_text())
    (tmp_path / "list.json").write_text(json.dumps(rows, indent=1))
    (tmp_path / "data.json").write_text(json.dumps({"data": rows}))
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    (tmp_path / "columns.json").write_text(json.dumps(columns))
    (tmp_path / "pretty.json").write_text(json.dumps(columns, indent=1))
    (tmp_path / "a.csv").write_text('\ufeffquestion,good\n1 + 1?,2\n"Say, ""hi""\nthen",NaN\n')
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    expected = [Record(user("1 + 1?"), (Answer("2"),)), Record(user('Say, "hi"\nthen'), (Answer("NaN"),))]
    files = sorted(tmp_path.iterdir())
    assert len(files) == 8
    for path in files:
        assert list(records_of(str(path), columns=["prompt=question", "answer=good"])) == expected, path


def test_a_folder_saved_by_datasets_and_one_of_parquet_shards(tmp_path):
    import datasets

    table = datasets.Dataset.from_list(pairs(4))
    datasets.DatasetDict(train=table, validation=table.select([0])).save_to_disk(tmp_path / "saved")
    (tmp_path / "hub" / "data").mkdir(parents=True)
    table.to_parquet(tmp_path / "hub" / "data" / "train-00000-of-00001.parquet")
    assert prompts(tmp_path / "saved") == prompts(tmp_path / "hub", eval_holdout=0.0) == ["q0", "q1", "q2", "q3"]
    assert prompts(tmp_path / "saved", split="eval") == ["q0"]
    assert mixture(tmp_path / "saved").fingerprint != mixture(tmp_path / "saved", split="eval").fingerprint


def test_columns_rename_and_a_name_that_no_data_set_has_is_refused(tmp_path):
    path = write(tmp_path / "a.jsonl", [{"q": "x", "prompt": "old", "good": "y", "bad": "n"}])
    (record,) = mixture(path, columns=["prompt=q", "chosen=good", "rejected=bad"], eval_holdout=0.0)
    assert record.prompt == user("x") and record.pairs() == [(0, 1)]
    other = write(tmp_path / "b.jsonl", pairs(1))
    assert prompts(path, other, columns=["prompt=q", "chosen=good", "rejected=bad"], eval_holdout=0.0) == ["x", "q0"]
    with pytest.raises(UserError, match="--columns prompt=question: no data set has a column 'question'"):
        list(mixture(other, columns=["prompt=question"]))


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        (["promt=q"], "no class reads 'promt'; did you mean prompt"),
        (["prompt"], "expected OURS=THEIRS"),
        (["prompt=q", "chosen=q"], "named twice"),
        (["prompt=q", "prompt=r"], "named twice"),
    ],
)
def test_wrong_columns_options(tmp_path, columns, says):
    with pytest.raises(UserError, match=says):
        mixture(write(tmp_path / "a.jsonl", pairs(1)), columns=columns)


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


def test_a_name_that_the_hub_cannot_give_is_one_line():
    code = "from utils.raw_datasets import records_of\nlist(records_of('nobody/nothing'))"
    program = f"from utils.reporting import run_program\nrun_program(lambda: exec({code!r}))"
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    run = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert run.returncode == 2 and run.stderr.count("\n") == 1, run.stderr
    assert run.stderr.startswith(
        "error: nobody/nothing: no such file or folder, and the datasets library cannot load it"
    )


def test_reading_data_needs_no_torch():
    code = "import sys, utils.raw_datasets, utils.records; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(ROOT)}).returncode == 0


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


# ---- classes by columns


def test_ambiguous_columns_name_the_candidates(tmp_path):
    chat = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "y"}]
    path = write(tmp_path / "a.jsonl", [{"prompt": "q", "chosen": "y", "rejected": "n", "messages": chat}])
    with pytest.raises(
        UserError, match=r"a.jsonl:1: found the columns .*, which fit messages and pairs; name the class"
    ):
        list(mixture(path))
    stream = mixture(f"pairs:{path}", eval_holdout=0.0)
    assert [record.pairs() for record in stream] == [[(0, 1)]] and "class pairs, as asked" in stream.notes[0]


def test_columns_of_no_class_list_what_each_needs(tmp_path):
    path = write(tmp_path / "a.jsonl", [{"question": "q", "answer": "a"}])
    with pytest.raises(UserError) as error:
        list(mixture(path))
    said = str(error.value)
    assert f"{path}:1: found the columns question, answer, which fit no class" in said and "\n" not in said
    for cls in RAW_DATASETS.values():
        assert f"{cls.name} ({' '.join(cls.needs.split())})" in said


@pytest.mark.parametrize(
    ("name", "row", "says"),
    [
        ("pairs", {"prompt": "q", "chosen": "y"}, "no column 'rejected' or 'reject'; found the columns prompt, chosen"),
        ("pairs", {"prompt": "q", "chosen": 3, "rejected": "n"}, "column 'chosen' is '3'; expected text"),
        ("pairs", {"chosen": "y", "rejected": "n"}, "no column 'prompt'; found the columns chosen, rejected"),
        ("pairs", {"prompt": "\n\nHuman: a\n\nAssistant: b", "chosen": "y", "rejected": "n"}, "end with 'Assistant:'"),
        ("hh_rlhf", {"chosen": "plain", "rejected": "plain"}, "the chosen dialogue has no turns"),
        ("hh_rlhf", {"chosen": "\n\nHuman: a", "rejected": HELLO}, "the chosen dialogue ends with a turn of user"),
        ("hh_rlhf", {"chosen": HELLO}, "no column 'rejected'; found the columns chosen"),
        ("alpaca", {"instruction": "i", "chosen": "y"}, "no column 'rejected'"),
        ("alpaca", {"instruction": "", "output": "y"}, "prompt is empty"),
        ("prompt_answer", {"prompt": "q", "answer": "a", "output": "b"}, "found answer and output; expected one"),
        ("messages", {"messages": []}, "messages: found '\\[\\]'; expected a list of messages"),
        (
            "messages",
            {"messages": [{"role": "tool", "content": "x"}]},
            "message 1 has role 'tool'; expected one of system",
        ),
        ("messages", {"messages": [{"role": "user", "content": None}]}, "message 1 has content 'None'; expected text"),
        ("sharegpt", {"messages": []}, "no column 'conversations'; found the columns messages"),
        (
            "tutoring",
            {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "x"}]},
            "no tutor turn",
        ),
        ("tutoring", {"prompt": "q", "chosen": "x"}, "expected 'Tutorbot:'"),
        ("records", {"prompt": "q", "answers": "y"}, "field 'answers' is 'y'; expected a list"),
    ],
)
def test_a_bad_row_stops_with_its_place_or_is_counted(tmp_path, name, row, says):
    good = next(kind[1] for kind in KINDS if kind[0] == name)
    path = write(tmp_path / "a.jsonl", [good, row, '{"broken": \n', "7\n"])
    with pytest.raises(UserError, match=rf"a.jsonl:2: .*{says}.*--on_bad_row skip"):
        list(mixture(f"{name}:{path}", eval_holdout=0.0))
    stream = mixture(f"{name}:{path}", eval_holdout=0.0, on_bad_row="skip")
    assert len(list(stream)) == 1
    assert stream.counts["bad rows"] == 3 and stream.counts["rows read"] == 4
    assert any("3 bad rows (first: " in note and "a.jsonl:2" in note for note in stream.notes)


def test_a_csv_line_with_too_many_or_too_few_fields(tmp_path):
    for line in ("q,a,b\n", "q\n"):
        path = write(tmp_path / "a.csv", ["prompt,answer\n", '"q",a\n', line])
        with pytest.raises(UserError, match="a.csv:3: the line has not the 2 fields of the header"):
            list(mixture(path))
    path = write(tmp_path / "a.csv", ["prompt,answer\n", "q,a\n", "q,a,b\n", "q\n"])
    stream = mixture(path, on_bad_row="skip", eval_holdout=0.0)
    assert len(list(stream)) == 1 and stream.counts["bad rows"] == 2


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


# ---- real data


@real_data
def test_hh_rlhf():
    stream = mixture(f"HelpfulRLHFDataset:{DATA / 'hh-rlhf' / 'helpful-base'}")
    records = list(stream)
    assert stream.counts["rows read"] == 1999 and len(records) == 1990
    assert stream.counts["pairs that differ before the last turn"] == 9
    assert max(len(record.prompt) for record in records) > 5
    for record in records:
        roles = [message.role for message in record.prompt]
        assert roles == ["user", "assistant"] * (len(roles) // 2) + ["user"]
    assert len(list(mixture(DATA / "hh-rlhf" / "helpful-base", split="eval"))) == 353


@real_data
def test_polite_pairs_and_grade_school_maths():
    stream = mixture(DATA / "rasbt" / "instruction-data-with-preference.json", stage=3, data_split="2,4,4")
    list(stream)
    counts = stream.counts
    assert counts[TIES] == 6
    assert counts["used"] + counts["held out for evaluation"] + counts[OTHER_STAGES] == 1094
    records = list(records_of(str(DATA / "gsm8k" / "test.jsonl"), columns=["prompt=question", "answer=answer"]))
    assert len(records) == 1319 and records[0].answers[0].text.endswith("#### 18")
