"""Records: the schema's checks, identity, and the files they live in."""

import gzip
import json

import pytest

from utils.errors import UserError
from utils.records import Answer, Message, Record, RecordError, Verdict, comparison, prompt_hash
from utils.records.files import read_records, record_from_json, write_jsonl
from utils.records.lines import read_jsonl

ASK = (Message("user", "2 + 2?"),)


def test_what_is_written_is_read_back(tmp_path):
    record = Record(
        prompt=(Message("system", "Guide."), *ASK),
        answers=(
            Answer("4", model="m", sampling={"temperature": 0.7}, rating=2.5, scores={"oracle": 1.0}),
            Answer("Count on your fingers…\u2028", finished=False, rank=1, thumb=True, critique="c", refinement="r"),
            Answer(""),
        ),
        verdicts=(Verdict(0, 1, "b", judge="oracle", order="ba"), Verdict(1, 2, "refused")),
        meta={"task": "qa"},
    )
    assert write_jsonl(tmp_path / "new" / "a.jsonl", [record]) == 1
    (read,) = read_records(tmp_path / "new" / "a.jsonl")
    assert read == record
    assert read.where == f"{tmp_path}/new/a.jsonl:1"


def test_fields_at_their_default_are_not_written():
    assert comparison(ASK, "yes", "no", id="7").to_json() == {
        "id": "7",
        "prompt": [{"role": "user", "content": "2 + 2?"}],
        "answers": [{"text": "yes"}, {"text": "no"}],
        "verdicts": [{"a": 0, "b": 1, "preferred": "a"}],
    }


def test_short_forms_of_prompt_and_answer():
    record = record_from_json({"prompt": "2 + 2?", "answers": ["4", {"text": "5"}]}, "f:1")
    assert record == Record(ASK, (Answer("4"), Answer("5")))


def test_identity_is_of_the_content_and_the_prompt_hash_of_the_prompt_alone():
    one, same, other = (
        Record(ASK, (Answer("4"),)),
        Record(ASK, (Answer("4"),), where="f:9"),
        Record(ASK, (Answer("5"),)),
    )
    assert one.id == same.id != other.id
    assert prompt_hash(one.prompt) == prompt_hash(other.prompt) == prompt_hash((Message("user", " 2 + 2?\n"),))
    assert prompt_hash(ASK) != prompt_hash((Message("system", "2 + 2?"),))


def test_pairs_are_the_decided_verdicts_between_different_texts():
    answers = tuple(map(Answer, ("good", "bad", "bad", "worse")))
    verdicts = (
        Verdict(0, 1, "a"),
        Verdict(3, 0, "b"),
        Verdict(1, 2, "a"),
        Verdict(1, 3, "tie"),
        Verdict(2, 3, "failed"),
    )
    assert Record(ASK, answers, verdicts).pairs() == [(0, 1), (0, 3)]


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ([1], "found list; expected a JSON object"),
        ({}, "field 'prompt' is 'None'"),
        ({"prompt": 3}, "field 'prompt' is '3'; expected text or a list of messages"),
        ({"prompt": []}, "prompt has no messages"),
        ({"prompt": "  "}, "prompt is empty"),
        ({"prompt": ["hi"]}, "found 'hi'; expected an object with the fields of message"),
        ({"prompt": [{"role": "human", "content": "x"}]}, "message 1 has role 'human'; expected one of system"),
        ({"prompt": [{"role": "user", "content": None}]}, "message 1 has content None; expected text"),
        ({"prompt": [{"role": "user"}]}, "message has no field 'content'"),
        (
            {"prompt": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]},
            "last message is the assistant's; expected the user's",
        ),
        ({"prompt": "x", "answer": "y"}, "unknown field 'answer'; known: id, prompt, answers"),
        ({"prompt": "x", "answers": "yes"}, "field 'answers' is 'yes'; expected a list"),
        ({"prompt": "x", "answers": None}, "field 'answers' is 'None'; expected a list"),
        ({"prompt": "x", "meta": []}, "field 'meta' is '[]'; expected a dict"),
        ({"prompt": "x", "answers": [{}]}, "answer has no field 'text'"),
        ({"prompt": "x", "answers": [{"text": 4}]}, "answer field 'text' is '4'; expected str"),
        ({"prompt": "x", "answers": [{"text": "y", "rating": "7"}]}, "answer field 'rating' is '7'; expected float"),
        ({"prompt": "x", "answers": [{"text": "y", "rating": float("nan")}]}, "'rating' is 'nan'"),
        ({"prompt": "x", "answers": [{"text": "y", "rank": True}]}, "answer field 'rank' is 'True'; expected int"),
        ({"prompt": "x", "answers": [{"text": "y", "finished": 1}]}, "answer field 'finished' is '1'; expected bool"),
        ({"prompt": "x", "answers": [{"text": "y", "score": 1}]}, "unknown field 'score' of answer; known: text"),
        ({"prompt": "x", "answers": ["y", "z"], "verdicts": [{"a": 0, "b": 2, "preferred": "a"}]}, "answers 0 and 2"),
        ({"prompt": "x", "answers": ["y", "z"], "verdicts": [{"a": 1, "b": 1, "preferred": "a"}]}, "answers 1 and 1"),
        ({"prompt": "x", "answers": ["y", "z"], "verdicts": [{"a": "0", "b": 1, "preferred": "a"}]}, "'a' is '0'"),
        ({"prompt": "x", "answers": ["y", "z"], "verdicts": [{"a": 0, "b": 1, "preferred": "A"}]}, "verdict is 'A'"),
    ],
)
def test_a_wrong_row_names_its_line_what_was_found_and_what_was_expected(row, says):
    with pytest.raises(RecordError) as error:
        record_from_json(row, "data.jsonl:12")
    assert str(error.value).startswith("data.jsonl:12: ")
    assert says in str(error.value)


def test_json_lines_lists_objects_gzip_and_byte_order_marks(tmp_path):
    lines = '{"a": 1}\n\n{"a": 2}'
    (tmp_path / "x.jsonl").write_text("\ufeff" + lines, encoding="utf-8")
    with gzip.open(tmp_path / "x.jsonl.gz", "wt") as out:
        out.write(lines)
    (tmp_path / "list.json").write_text(json.dumps([{"a": 1}, {"a": 2}], indent=2))
    (tmp_path / "object.json").write_text(json.dumps({"a": 1}, indent=2))
    for name in ("x.jsonl", "x.jsonl.gz"):
        path = tmp_path / name
        assert list(read_jsonl(path)) == [({"a": 1}, f"{path}:1"), ({"a": 2}, f"{path}:3")]
    assert list(read_jsonl(tmp_path / "list.json"))[1] == ({"a": 2}, f"{tmp_path}/list.json[2]")
    assert list(read_jsonl(tmp_path / "object.json")) == [({"a": 1}, f"{tmp_path}/object.json[1]")]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "no such file"),
        (b"", "the file is empty"),
        (b'{"a": 1}\n{"a": \n', ":2: not JSON"),
        (b'[{"a": 1},\n {"a" 2}]', ":2: not JSON"),
        (b'{"a": "\xff"}', "cannot be read as text"),
    ],
)
def test_unreadable_files(tmp_path, content, says):
    path = tmp_path / "x.jsonl"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=says):
        list(read_jsonl(path))


def test_a_damaged_gzip_file_is_a_user_error(tmp_path):
    data = bytearray(gzip.compress(b'{"a": 1}\n' * 5000, mtime=0))
    for cut in (bytes(data[:40]), bytes(data[:30] + b"\xff\xff\xff\xff" + data[34:])):
        (tmp_path / "x.jsonl.gz").write_bytes(cut)
        with pytest.raises(UserError, match="cannot be read as text"):
            list(read_jsonl(tmp_path / "x.jsonl.gz"))


def test_broken_lines_can_be_passed_over(tmp_path):
    (tmp_path / "x.jsonl").write_text('{"a": 1}\n{"a":\n{"a": 3}\n')
    bad = []
    rows = [row for row, _ in read_jsonl(tmp_path / "x.jsonl", bad.append)]
    assert rows == [{"a": 1}, {"a": 3}]
    assert [":2: not JSON" in str(error) for error in bad] == [True]


def test_writing_replaces_a_file_whole_or_not_at_all(tmp_path):
    path = tmp_path / "x.jsonl"
    write_jsonl(path, [{"a": 1}])

    def rows():
        yield {"a": 2}
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        write_jsonl(path, rows())
    assert path.read_text() == '{"a": 1}\n'
    assert list(tmp_path.iterdir()) == [path]


def test_half_a_character_and_a_file_in_the_way(tmp_path):
    (tmp_path / "half.jsonl").write_text('{"prompt": "a \\ud800 b"}\n')
    with pytest.raises(UserError, match=r"half\.jsonl:1: a text holds half of a character"):
        list(read_records(tmp_path / "half.jsonl"))
    with pytest.raises(UserError, match="cannot be written"):
        write_jsonl(tmp_path / "half.jsonl" / "out.jsonl", [])
