"""One reader: what docs/data.md lists for --data_path is read by every program, and all read the same."""

import csv
import json

import datasets
import pytest
from toy_folders import lm_folder, read_rows, rm_folder

from data_collect import train_tokenizer
from inference import chatbot
from training.step2_reward import rw_eval
from utils.answering.files import input_files, output_file
from utils.answering.rows import read_rows as answer_rows
from utils.errors import UserError
from utils.raw_datasets.whole import records_of
from utils.records.files import read_records
from utils.records.lines import read_jsonl

ROWS = [
    {"prompt": f"What is {n} + {n}?", "chosen": f"Count on from {n},\nplease.", "rejected": f"It is {2 * n}"}
    for n in range(4)
]


def as_csv(path, rows=ROWS):
    path.parent.mkdir(exist_ok=True)
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)
    return str(path)


def as_folder(path):
    as_csv(path / "train.csv", ROWS[:3])
    as_csv(path / "test.csv", ROWS[3:])
    return str(path)


def as_columns(path):
    path.write_text(json.dumps({name: [row[name] for row in ROWS] for name in ROWS[0]}))
    return str(path)


def as_saved(path):
    datasets.Dataset.from_list(ROWS).save_to_disk(path)
    return str(path)


def as_parquet(path):
    datasets.Dataset.from_list(ROWS).to_parquet(path)
    return str(path)


FORMS = {
    "x.csv": as_csv, "folder": as_folder, "x.json": as_columns, "saved": as_saved, "x.parquet": as_parquet,
}  # fmt: skip


@pytest.mark.parametrize("name", FORMS)
def test_every_form_in_every_program(tmp_path, name):
    path = FORMS[name](tmp_path / name)
    prompts = sorted(row["prompt"] for row in ROWS)
    told = lambda rows: sorted(row.record.prompt[-1].content for row in rows)  # noqa: E731
    assert sorted(record.prompt[-1].content for record in records_of(path)) == prompts  # the stages'
    assert told(rw_eval.read(path)) == prompts
    for text in (path, f"pairs:{path}"):
        assert told(answer_rows(input_files([text], tmp_path / "out.jsonl"))) == prompts
        texts = train_tokenizer.read_texts(text)
        assert ROWS[0]["chosen"] in texts and set(texts) <= {value for row in ROWS for value in row.values()}
        assert len(texts) == (9 if name == "folder" else 12)  # a tokenizer never sees the test split


def test_what_chatbot_writes_of_a_csv_file(tmp_path):
    """A plain row keeps its columns; with CLASS it becomes a record, whose answers a reward model scores."""
    path = as_csv(tmp_path / "pairs.csv")
    lm, rm = lm_folder(tmp_path / "lm"), rm_folder(tmp_path / "rm")
    words = ["--template", "human_assistant", "--data_path"]
    chatbot.main(["--mode", "generate", "--model_name_or_path", lm, *words, path, "--max_new_tokens", "3"])
    written = read_rows(tmp_path / "pairs-generate.jsonl")
    assert [{name: row[name] for name in ROWS[0]} for row in written] == ROWS and all(
        "greedy" in row for row in written
    )
    chatbot.main(["--mode", "rm", "--model_name_or_path", rm, *words, f"pairs:{path}"])
    scored = list(read_records(tmp_path / "pairs-rm.jsonl"))
    assert [[answer.text for answer in record.answers] for record in scored] == [
        [row["chosen"], row["rejected"]] for row in ROWS
    ]
    assert all(answer.scores for record in scored for answer in record.answers)


def test_names_that_no_output_can_stand_beside(tmp_path):
    with pytest.raises(UserError, match="--output_path is missing: owner/name is no file here"):
        output_file("", ["pairs:owner/name"], "generate")
    assert output_file("", [f"pairs:{tmp_path}/x.csv"], "rm") == tmp_path / "x-rm.jsonl"
    for read in (lambda text: input_files([text], tmp_path / "out"), train_tokenizer.read_texts):
        with pytest.raises(UserError, match="x.csv=0.5: =WEIGHT and =Nrows are for training data"):
            read(f"{tmp_path}/x.csv=0.5")
    odd = as_csv(tmp_path / "pairs:x.csv=2")  # a file may be called so
    assert [spec.path for spec in input_files([odd], tmp_path / "out")] == [odd]


@pytest.mark.parametrize(
    "name, content, where",
    [
        ("cut.jsonl", '{"a": 1}\n{"a": "b", "c":\n', ":2: not JSON (Expecting value at column 16)"),
        ("wrong.jsonl", '{"a": 1, "c": x}\n', ":1: not JSON (Expecting value at column 15)"),
        ("cut.json", '[{"a": 1},\n {"b":\n', ":2: not JSON: Expecting value at column 7"),
    ],
)
def test_the_column_of_what_is_not_json(tmp_path, name, content, where):
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError) as found:
        list(read_jsonl(tmp_path / name))
    assert f"{name}{where}" in str(found.value)
