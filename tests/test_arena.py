"""chatbot.py --mode arena: blind comparisons by a person, written after each, continued, read as verdicts."""

import io
import json

import pytest
from in_process import run
from toys import ROOT

from utils.records import Answer, Message, Record
from utils.records.files import read_records, write_jsonl

CHATBOT, WIN_RATE = ROOT / "inference" / "chatbot.py", ROOT / "inference" / "win_rate.py"
PROMPTS = ("One?", "Two?", "Three?", "Four?")


@pytest.fixture
def files(tmp_path):
    for name in ("old", "new"):
        rows = [Record((Message("user", prompt),), (Answer(f"{name} {prompt}"),)) for prompt in PROMPTS]
        write_jsonl(tmp_path / f"{name}.jsonl", rows)
    return [f"{name}={tmp_path / name}.jsonl" for name in ("old", "new")]


@pytest.fixture
def arena(files, tmp_path, monkeypatch, capsys):
    def start(typed, *words):
        monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{word}\n" for word in typed)))
        code = run(CHATBOT, "--mode", "arena", "--answers", *files, "--output_path", tmp_path / "out.jsonl", *words)
        said = capsys.readouterr()
        return code, said.out, said.err

    return start


def preferred_text(record):
    (verdict,) = record.verdicts
    return {"a": record.answers[0].text, "b": record.answers[1].text, "tie": None}[verdict.preferred]


def test_the_answer_that_was_chosen_is_preferred(arena, tmp_path):
    """Whichever is shown first: what was read as answer 1 is what the record prefers."""
    code, said, _ = arena(["1", "2", "=", "1"])
    assert code == 0
    shown = [line for line in said.splitlines() if line.startswith(("old ", "new "))]
    records = list(read_records(tmp_path / "out.jsonl"))
    assert [preferred_text(record) for record in records] == [shown[0], shown[3], None, shown[6]]
    assert {record.verdicts[0].order for record in records} == {"ab", "ba"}
    assert [[answer.model for answer in record.answers] for record in records] == [["old", "new"]] * 4
    assert all(record.verdicts[0].judge == "person" for record in records)
    counts = [sum(text is not None and text.startswith(name) for text in map(preferred_text, records))
              for name in ("old", "new")]  # fmt: skip
    assert f"4 comparisons: old {counts[0]}, new {counts[1]}, equal 1" in said


def test_names_are_not_shown_before_the_end(arena):
    _, said, _ = arena(["q"])
    before, _, after = said.partition("answer 1")
    assert "dpo" not in said and "old" not in before and "no comparison was made" in after


def test_it_continues_where_it_stopped(arena, tmp_path):
    assert arena(["1", "s", "2", "q"], "--judge", "me")[0] == 0
    written = (tmp_path / "out.jsonl").read_bytes()
    assert len(written.splitlines()) == 2  # the second prompt was skipped
    code, said, _ = arena(["=", "="])
    assert code == 0 and "3 of 4" in said and "4 of 4" in said
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert (tmp_path / "out.jsonl").read_bytes().startswith(written)
    assert [row["prompt"][0]["content"] for row in rows] == ["One?", "Three?", "Two?", "Four?"]
    assert [row["verdicts"][0]["judge"] for row in rows] == ["me", "me", "person", "person"]


def test_ratings(arena, tmp_path):
    code, said, _ = arena(["=", "7", "2", "q"], "--ratings")
    assert code == 0
    shown = [line for line in said.splitlines() if line.startswith(("old ", "new "))][:2]
    (record,) = read_records(tmp_path / "out.jsonl")
    assert {answer.text: answer.rating for answer in record.answers} == {shown[0]: 7.0, shown[1]: 2.0}


def test_win_rate_reads_it(arena, tmp_path):
    _, said, _ = arena(["1", "2", "=", "1"])
    shown = [line for line in said.splitlines() if line.startswith(("old ", "new "))]
    won = [shown[0], shown[3], shown[6]]
    words = ["judged", "--input", tmp_path / "out.jsonl", "--model", "new", "--reference", "old"]
    assert run(WIN_RATE, *words, "--json", tmp_path / "rate.json") == 0
    found = json.loads((tmp_path / "rate.json").read_text())
    assert found["ties"] == 1 and found["wins"] == sum(text.startswith("new") for text in won)


@pytest.mark.parametrize(
    "typed, words, expected",
    [
        (["3"], [], "better: found '3'; expected one of 1 2 = s q"),
        (["1", "8"], ["--ratings"], "found '8'; expected one of 1 2 3 4 5 6 7"),
        ([], ["--num_prompts", "-1"], "--num_prompts is -1; expected 0 (all) or more"),
    ],
)
def test_wrong_input(arena, tmp_path, typed, words, expected):
    code, _, error = arena(typed, *words)
    assert code == 2 and expected in error and not (tmp_path / "out.jsonl").exists()


def test_files_that_do_not_belong_together(files, tmp_path, capsys):
    def refused(*answers):
        code = run(CHATBOT, "--mode", "arena", "--answers", *answers, "--output_path", tmp_path / "out.jsonl")
        assert code == 2
        return capsys.readouterr().err

    write_jsonl(tmp_path / "other.jsonl", [Record((Message("user", "Five?"),), (Answer("5"),))])
    assert "no prompt of" in refused(files[0], f"other={tmp_path / 'other.jsonl'}")
    write_jsonl(tmp_path / "bare.jsonl", [Record((Message("user", "One?"),))])
    assert "bare.jsonl:1: no answers" in refused(files[0], f"bare={tmp_path / 'bare.jsonl'}")
    write_jsonl(tmp_path / "twice.jsonl", [Record((Message("user", "One?"),), (Answer(text),)) for text in "ab"])
    assert "twice.jsonl:2: its prompt is that of" in refused(files[0], f"twice={tmp_path / 'twice.jsonl'}")
    assert "--answers has 1 files" in refused(files[0]) and "gives a name twice" in refused(files[0], files[0])


def test_other_answers_than_before(arena, files, tmp_path):
    arena(["1", "q"])
    rows = [Record((Message("user", prompt),), (Answer("changed"),)) for prompt in PROMPTS]
    write_jsonl(tmp_path / "old.jsonl", rows)
    code, _, error = arena(["1"])
    assert code == 2 and "is of other answers than --answers" in error
    assert arena(["1", "q"], "--overwrite")[0] == 0
