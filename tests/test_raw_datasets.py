"""Raw data -> records: every class, the files and folders, the columns, the errors."""

import gzip
import json
import os
import re
import subprocess
import sys

import foreign_rows
import pytest
from toy_rows import DATA, HELLO, mixture, pairs, prompts, real_data, user, write
from toys import ROOT

from utils.errors import UserError
from utils.raw_datasets import RAW_DATASETS
from utils.raw_datasets.base import NamedOnly
from utils.raw_datasets.whole import records_of
from utils.records import Answer, Message, Record

FRUIT = (Message("user", "Hello"), Message("assistant", "Hi."), Message("user", "Name a fruit."))


CODED = '{"Evaluation of Student Response": "a", "Subproblem State": "x", "Tutorbot": "Not quite"}'


KINDS = [  # class, a row, its prompt, its answers, its pairs
    ("records", {"prompt": [{"role": "user", "content": "q"}], "answers": ["a", "b"]}, user("q"), ["a", "b"], []),
    ("records", {"prompt": [{"role": "user", "content": "q"}]}, user("q"), [], []),
    ("pairs", {"prompt": "q", "chosen": " y", "rejected": "n"}, user("q"), [" y", "n"], [(0, 1)]),
    ("rewarded", {"prompt": HELLO, "text": ["y", "n"], "rewards": [0.5, -1]}, FRUIT, ["y", "n"], []),
    (
        "rewarded",
        {"user_prompt": "q", "system_prompt": "s", "text": ["y"], "rewards": [2]},
        (Message("system", "s"), *user("q")),
        ["y"],
        [],
    ),
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
    *foreign_rows.KINDS,
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
    found = {cls.name for cls in RAW_DATASETS.values() if not issubclass(cls, NamedOnly) and cls.read is None}
    assert {kind[0] for kind in KINDS} == found  # the others: tests/test_formats_reading.py


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


def test_a_name_that_the_hub_cannot_give_is_one_line():
    code = "from utils.raw_datasets.whole import records_of\nlist(records_of('nobody/nothing'))"
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


@pytest.mark.parametrize(
    ("columns", "named"),
    [
        (("question", "answer"), ["prompt_answer", "records"]),
        (("query", "chosen", "reject"), ["pairs"]),
        (("Prompt", "Chosen", "Rejects"), ["pairs"]),
        (("query", "output1", "output2", "preferred"), ["annotations"]),
        (("step", 7), ["prompt_answer", "pairs", "messages"]),
    ],
)
def test_columns_of_no_class_name_the_closest_classes(tmp_path, columns, named):
    path = write(tmp_path / "a.jsonl", [dict.fromkeys(columns, "a")])
    with pytest.raises(UserError) as error:
        list(mixture(path))
    said = str(error.value)
    found = ", ".join(map(str, columns))
    assert f"{path}:1: found the columns {found}, which fit no class" in said and "\n" not in said
    assert said.endswith("; docs/data.md lists all classes") and len(said) < 600
    classes = dict.fromkeys(cls for cls in RAW_DATASETS.values() if not issubclass(cls, NamedOnly))
    listed = {said.find(f" {cls.name} ({cls.needs})"): cls.name for cls in classes}
    listed = [listed[place] for place in sorted(listed) if place >= 0]
    assert len(listed) == 3 and listed[: len(named)] == named


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
        (
            "rewarded",
            {"prompt": "q", "text": ["y"], "rewards": [True]},
            "column 'rewards' is '\\[True\\]'; expected a list",
        ),
        ("rewarded", {"prompt": "q", "text": ["y"], "rewards": [1, 2]}, "1 answers in text and 2 rewards"),
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
