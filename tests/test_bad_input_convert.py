"""What a person gives wrongly to convert.py and consistency.py: one line, exit code 2, nothing half-written."""

import json
import os
import re
import resource
import subprocess
import sys

import pytest
from in_process import run
from toys import ROOT

CONVERT, CONSISTENCY = (ROOT / "data_collect" / name for name in ("convert.py", "consistency.py"))
GOOD = [{"instruction": "i", "input": "", "responses": ["a", "b"]}]


@pytest.fixture
def refuse(tmp_path, capsys):
    """refuse(program, *words) -> its one line. Words may be (name, content) of a file to make."""

    def run_it(program, *words):
        made = [file(tmp_path / word[0], word[1]) if isinstance(word, tuple) else word for word in words]
        before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
        code, stderr = run(program, *made), capsys.readouterr().err
        assert code == 2, stderr
        (line,) = [line for line in stderr.splitlines() if line.startswith("error: ")]
        assert "Traceback" not in stderr
        assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
        return line

    return run_it


def file(path, content):
    if isinstance(content, dict | list):
        content = json.dumps(content)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.fixture
def convert(refuse, tmp_path):
    """The line of a conversion from (name, content) that is refused; the output was there before."""

    def run_it(source, target, *inputs, flags=(), output="out"):
        (tmp_path / "out").write_text("as it was")
        words = ("--from", source, "--to", target, "--input", *inputs, "--output", tmp_path / output, "--overwrite")
        return refuse(CONVERT, *words, *flags)

    return run_it


def test_what_these_tests_change_is_right_before(tmp_path):
    words = ("--from", "responses", "--to", "ratings-csv", "--input", file(tmp_path / "a.json", GOOD))
    assert run(CONVERT, *words, "--output", tmp_path / "out.csv") == 0


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), "--from is missing; --list names every format and direction"),
        (("--from", "responses"), "--to is missing"),
        (("--from", "responses", "--to", "rm-json"), "--input is missing"),
        (("--from", "responses", "--to", "rm-json", "--input", "a"), "--output is missing"),
        (("--list", "--input", "a"), "--input is not used with --list"),
        (("--list", "--to", "rmjson"), "--to rmjson: no such format; did you mean rm-json?; known: responses, "),
        (("--list", "--from", "response"), "unknown data-set class 'response'; did you mean responses?"),
        (("--from", "a", "--from", "b"), "--from is given twice"),
        (("--form", "a"), "unknown option --form; did you mean --from"),
        (("--on_bad_row", "keep"), "invalid choice: 'keep'"),
    ],
)
def test_wrong_options(refuse, words, says):
    assert says in refuse(CONVERT, *words)


@pytest.mark.parametrize(
    ("source", "target", "content", "says"),
    [
        ("responses", "ratings-csv", "", "a: the file is empty"),
        ("responses", "ratings-csv", "[]", "out: no rows left to write as ratings-csv"),
        ("responses", "ratings-csv", "[{]", "a:1: not JSON"),
        ("responses", "ratings-csv", b"\xff\xfe", "a: cannot be read as text"),
        ("responses", "ratings-csv", [{"input": "x"}], r"a\[1\]: column 'responses' is 'None'; expected a list"),
        ("responses", "ratings-csv", [GOOD[0] | {"responses": ["a", "nan"]}], r"a\[1\]: response is 'nan', which"),
        ("responses", "ratings-csv", [GOOD[0] | {"input": "NA"}], r"a\[1\]: input is 'NA'"),
        ("responses", "rankings-csv", [GOOD[0] | {"responses": ["a"]}], "no rows left .* 1 records without several"),
        ("responses", "pairs", GOOD, "no rows left to write as pairs; 1 records without preferences"),
        ("responses", "generations", GOOD, r"a\[1\]: the record has several answers, which generations cannot say"),
        ("messages", "responses", {"messages": [{"role": role, "content": "c"} for role in ("system", "user")]},
         "a:1: the record has system messages, which responses cannot say"),
        ("ratings-csv", "responses", "instruction,input\ni,\n", "a:2: no column 'response'"),
        ("rankings-feedback-csv", "rm-json", "i,,a,b,(a)\ni,,NULL,b,(a)\n", "a:2: column 'output1' is 'NULL'"),
        ("rankings-feedback-csv", "rm-json", "i,,a,b\n", "a:1: the line has not the 5 fields of instruction,input"),
        ("rankings-feedback-csv", "rm-json", 'i,,"a,b,(a)\n', "a: cannot be read as CSV: unexpected end of data"),
        ("annotations", "rm-json", [{"instruction": "i", "output_1": "a", "output_2": "b", "preference": 7}],
         r"a\[1\]: preference is '7'; expected 1, 2, 0 or 1.5"),
        ("completions", "records", ["a"], r"a\[1\]: found str; expected one object"),
    ],
)  # fmt: skip
def test_rows(convert, source, target, content, says):
    assert re.search(says, convert(source, target, ("a", content)))


def test_files(convert, tmp_path):
    assert "nowhere.json: no such file or folder" in convert("responses", "ratings-csv", "nowhere.json")
    two = (("a", GOOD), ("b", GOOD))
    assert "--input: found 2; --from responses --to ratings-csv takes one file" in convert(
        "responses", "ratings-csv", *two
    )
    outputs = [{"instruction": "i", "generator": "m", "output": "o"}]
    assert (
        "found 1; --from generations --to rankings-eval-csv takes two files, of a reference and of a model"
        in convert("generations", "rankings-eval-csv", ("a", outputs))
    )
    other = [{"instruction": "j", "generator": "m", "output": "o"}]
    line = convert("generations", "rankings-eval-csv", ("a", outputs), ("b", other))
    assert re.search(r"b\[1\]: .*a has no answer to 'j' \(--on_bad_row skip leaves such rows out\)", line)
    (tmp_path / "there").mkdir()
    assert "there is a folder; expected the name of a file" in convert(
        "responses", "ratings-csv", ("a", GOOD), output="there"
    )
    assert "a/x: cannot be written: " in convert("responses", "ratings-csv", ("a", GOOD), output="a/x")


def test_a_full_disk(tmp_path):
    """In a process that can write no file of more than 1,000 bytes: the write fails as on a full disk."""
    source, out = (
        file(tmp_path / "a.json", [GOOD[0] | {"responses": ["a" * 99] * 50}]),
        file(tmp_path / "out", "as it was"),
    )
    words = ("--from", "responses", "--to", "rankings-csv", "--input", source, "--output", out, "--overwrite")
    done = subprocess.run(
        [sys.executable, CONVERT, *words], env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000)),
    )  # fmt: skip
    assert done.returncode == 2 and re.fullmatch("error: .*out: cannot be written: File too large; .*\n", done.stderr)
    assert out.read_text() == "as it was" and {path.name for path in tmp_path.iterdir()} == {"a.json", "out"}


def test_a_folder_of_which_one_file_is_bad_leaves_no_folder_half_written(convert, tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    file(source / "train.jsonl", {"prompt": "q", "chosen": "y", "rejected": "n"})
    file(source / "test.jsonl", {"prompt": "q", "chosen": "y"})
    assert "test.jsonl:1: no column 'rejected'" in convert("pairs", "hh", source, output="new")
    assert (tmp_path / "out").read_text() == "as it was" and not list(tmp_path.glob("new/*"))
    assert "error" in convert("pairs", "hh", source)  # the output is a file


def test_nothing_is_left_to_write(convert):
    line = convert("rankings-feedback-csv", "rm-json", ("a", "i,,NA,b,(a)\n"), flags=("--on_bad_row", "skip"))
    assert "out: no rows left to write as rm-json" in line


RATED, RANKED = ("r.csv", "i,,a,5\ni,,b,3\n"), ("k.csv", "i,,a,b,(a)\n")


@pytest.mark.parametrize(
    ("ratings", "rankings", "says"),
    [
        ("nowhere.csv", RANKED, "nowhere.csv: no such file or folder"),
        (("r.csv", ""), RANKED, "r.csv: no rated answers; expected a feedback CSV, or records with ratings"),
        (RANKED, RANKED, "k.csv:1: the line has not the 4 fields of instruction,input,output,score"),
        (("r.csv", "i,,a,five\n"), RANKED, "r.csv:1: column 'score' is 'five'; expected a number"),
        (("r.csv", "i,,null,5\n"), RANKED, "r.csv:1: column 'output' is 'null', .*--on_bad_row skip"),
        (RATED, ("k.csv", "i,,a,b,(c)\n"), "k.csv: no ranked pairs; expected a feedback CSV, or records with verdicts"),
        (RATED, ("k.csv", "i,,a,c,(a)\n"), "no pair of .*k.csv has both of its answers rated in .*r.csv"),
        (RATED, ("k.jsonl", '{"prompt": "i", "answers": ["a", "b"]}\n'), "k.jsonl: no ranked pairs"),
        (("r.jsonl", '{"prompt": "i", "answers": ["a", "b"]}\n'), RANKED, "r.jsonl: no rated answers"),
        (("r.jsonl", '{"prompt": "i", "answers": 3}\n'), RANKED, "r.jsonl:1: field 'answers' is '3'"),
    ],
)
def test_consistency(refuse, tmp_path, ratings, rankings, says):
    assert re.search(says, refuse(CONSISTENCY, "--ratings_csv", ratings, "--rankings_csv", rankings))


def test_options_of_consistency(refuse, tmp_path):
    assert "--rankings_csv" in refuse(CONSISTENCY, "--ratings_csv", "a")
    words = ("--ratings_csv", RATED, "--rankings_csv", RANKED, "--json", tmp_path / "r.csv" / "out.json")
    assert "out.json: cannot be written: " in refuse(CONSISTENCY, *words)
