"""Which rows request.py asks about, and how often: draws, samples, what could not be read, files given in every way."""

import csv
import json
import os
import re
import subprocess
import sys

import in_process
import pytest
from model_server import model_server, ok
from requesting import PROGRAM, lines
from toys import ROOT

from utils.feedback.chosen import Cases
from utils.feedback.rows import Choice


def rows(count):
    for number in range(count):
        answers = [{"text": f"answer {number}", "model": "m"}]
        yield {"id": f"r{number}", "prompt": [{"role": "user", "content": f"question {number}"}], "answers": answers}


@pytest.fixture
def some(tmp_path):
    """Ten records."""
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows(10)))
    return path


@pytest.fixture
def ask(tmp_path, monkeypatch):
    """ask(server, *words) -> (the exit code, the rows written)"""
    monkeypatch.setenv("OPENAI_API_KEY", "k")

    def run(server, *words, kind="rating"):
        output = tmp_path / "out.jsonl"
        given = ("--kind", kind, "--base_url", server.url, "--api_type", "m", *words)
        if "--output_file" not in words:
            given += ("--output_file", output)
        code = in_process.run(PROGRAM, *given)
        return code, lines(output) if output.exists() else []

    return run


def asked_about(server):
    return sorted(int(re.search(r"answer (\d+)", asked.content)[1]) for asked in server.asked)


def chosen(path, **choice):
    return [case.record.id for case in Cases([str(path)], Choice("rating", **choice))]


# ---- a random draw


def test_a_larger_draw_holds_a_smaller_one(some):
    small, large, other = chosen(some, draw=3), chosen(some, draw=6), chosen(some, draw=3, seed=1)
    assert len(small) == 3 and len(large) == 6 and set(small) < set(large)
    assert large == sorted(large, key=lambda name: int(name[1:])) and other != small
    assert chosen(some, draw=99) == chosen(some)


def test_draws_are_even(some):
    drawn = [name for seed in range(400) for name in chosen(some, draw=2, seed=seed)]
    assert all(50 < drawn.count(f"r{number}") < 115 for number in range(10))  # 80 expected, standard deviation 8


def test_a_draw_is_among_the_rows_of_nums(some):
    found = chosen(some, draw=2, first=4, last=8)
    assert len(found) == 2 and set(found) <= {"r4", "r5", "r6", "r7"}


def test_only_what_is_drawn_is_asked(some, ask):
    with model_server() as server:
        code, written = ask(server, "--input_files", some, "--draw", 4, "--seed", 3)
        assert code == 0 and len(server.asked) == 4
        assert [row["id"] for row in written] == [f"r{number}" for number in asked_about(server)]
        ask(server, "--input_files", some, "--draw", 6, "--seed", 3)
        assert len(server.asked) == 6


# ---- files, and their classes


def test_a_class_and_a_number_of_rows(some, ask, tmp_path):
    with (tmp_path / "rated.csv").open("w", newline="") as out:
        csv.writer(out).writerows([("say", "", f"answer {number}", number + 1) for number in range(3)])
    with model_server() as server:
        code, written = ask(server, "--input_files", f"{some}=4rows", f"ratings-feedback-csv:{tmp_path / 'rated.csv'}")
        assert code == 0 and len(server.asked) == 7
        assert len(written) == 5 and [answer["rating"] for answer in written[-1]["answers"]] == [6, 6, 6]


@pytest.mark.parametrize(
    "files, words",
    [
        (("{0}", "{0}"), "rows.jsonl is given twice"),
        (("{0}", "records:{0}"), "rows.jsonl is given twice"),
        (("{0}=0.5",), "every row is asked about once; expected =Nrows"),
        (("nothing:{0}",), "unknown data-set class 'nothing'"),
        (("{0}=0rows",), "expected a whole number of rows"),
        (("{0}", "--output_file", "."), "--output_file . is a folder; expected the name of a file"),
    ],
)
def test_files_that_cannot_be_asked_about(some, ask, capsys, files, words):
    with model_server() as server:
        code, _ = ask(server, "--input_files", *(file.format(some) for file in files))
    assert code == 2 and words in capsys.readouterr().err and not server.asked


def test_the_same_id_in_two_files(some, ask, tmp_path, capsys):
    (tmp_path / "again.jsonl").write_text(some.read_text())
    with model_server() as server:
        code, _ = ask(server, "--input_files", some, tmp_path / "again.jsonl")
    assert code == 2 and "again.jsonl:1: the id 'r0' is that of" in capsys.readouterr().err


def test_a_file_that_changes_meanwhile(some, ask, capsys):
    async def answer(asked, number):
        with some.open("a") as out:
            out.write("\n")
        return ok()

    with model_server(answer) as server:
        code, written = ask(server, "--input_files", some)
    assert code == 2 and not written and "rows.jsonl: changed while it was read" in capsys.readouterr().err


# ---- samples


def test_samples_are_rows_of_their_own(some, ask):
    with model_server(lambda asked, number: ok(f"Rating: {1 + number % 7}")) as server:
        code, written = ask(server, "--input_files", some, "--samples", 3, "--temperature", 1)
        assert code == 0 and asked_about(server) == sorted([*range(10)] * 3)
        assert [row["id"] for row in written[:4]] == ["r0", "r0 sample 2", "r0 sample 3", "r1"]
        assert [row["meta"]["sample"] for row in written[:4]] == [1, 2, 3, 1]
        assert len({row["id"] for row in written}) == 30 and all("rating" in row["answers"][0] for row in written)
        # Another sample later is asked alone.
        ask(server, "--input_files", some, "--samples", 4, "--temperature", 1)
        assert len(server.asked) == 40


# ---- what could not be read, and what is known


def test_what_could_not_be_read_is_asked_again_on_request(some, ask, capsys):
    def answer(asked, number):
        return ok("Hm." if number == 1 and "answer 3" in asked.content else "Rating: 5")

    with model_server(answer) as server:
        _, written = ask(server, "--input_files", some)
        assert "rating" not in written[3]["answers"][0]
        ask(server, "--input_files", some)
        assert len(server.asked) == 10
        _, written = ask(server, "--input_files", some, "--retry_unparsed", "--dry_run")
        assert "dry run: 1 requests" in capsys.readouterr().out and len(server.asked) == 10
        _, written = ask(server, "--input_files", some, "--retry_unparsed")
        assert len(server.asked) == 11 and written[3]["answers"][0]["rating"] == 5
        ask(server, "--input_files", some, "--retry_unparsed")
        assert len(server.asked) == 11


def test_what_cannot_be_read_again_is_asked_once_by_a_command(some, ask):
    with model_server(lambda asked, number: ok("Hm.")) as server:
        ask(server, "--input_files", some)
        code, _ = ask(server, "--input_files", some, "--retry_unparsed")
        assert code == 0 and len(server.asked) == 20


def test_what_is_known_is_counted(some, ask, capsys):
    with model_server() as server:
        ask(server, "--input_files", some, "--nums", "4")
        assert "are known" not in capsys.readouterr().out
        ask(server, "--input_files", some)
        assert "4 of 10 requests are known" in capsys.readouterr().out


# ---- size


def test_a_dry_run_leaves_nothing(some, ask, tmp_path, capsys):
    with model_server() as server:
        assert ask(server, "--input_files", some, "--dry_run") == (0, []) and not server.asked
        assert {path.name for path in tmp_path.iterdir()} == {"rows.jsonl"}
        ask(server, "--input_files", some, "--nums", "4")
        before = (tmp_path / "out.jsonl.ledger").read_bytes()
        capsys.readouterr()
        ask(server, "--input_files", some, "--dry_run")
        assert "dry run: 6 requests" in capsys.readouterr().out
        assert (tmp_path / "out.jsonl.ledger").read_bytes() == before


def peak(tmp_path, count):
    """Peak memory in MB of a dry run about `count` rows of 20 kB."""
    path = tmp_path / f"{count}.jsonl"
    with path.open("w") as out:
        for row in rows(count):
            row["answers"][0]["text"] += " word" * 4000
            out.write(json.dumps(row) + "\n")
    words = ("--kind", "rating", "--input_files", path, "--output_file", tmp_path / "o.jsonl", "--dry_run")
    command = [sys.executable, PROGRAM, *words, "--base_url", "http://127.0.0.1:9/v1", "--api_type", "m"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OPENAI_API_KEY": "k"}
    process = subprocess.Popen([*map(str, command)], env=environment, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    return used.ru_maxrss / 1024


def test_memory_does_not_grow_with_the_rows(tmp_path):
    """3,000 more rows of 20 kB are 60 MB, of which nothing stays but their ids."""
    assert peak(tmp_path, 4000) - peak(tmp_path, 1000) < 15
