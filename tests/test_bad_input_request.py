"""What a person gives request.py wrongly: one line that begins with "error: ", exit code 2, nothing half-written."""

import json
import os
import sqlite3

import in_process
import pytest
from oracle import oracle
from requesting import PROGRAM, exchanges, record, request, write_lines

from data_collect import request as request_program
from utils.records.files import write_jsonl

LINE = {"prompt": "Human: a?\n\nAssistant:", "task": "qa", "feedback_type": "critic", "outputs": {"m7": "b"}}
CSV = "instruction,input,response\nsay,,yes\n"


@pytest.fixture(scope="module")
def url():
    with oracle() as address:
        yield address


@pytest.fixture
def refuse(url, tmp_path, capsys):
    """refuse(*words) -> the one line; the output is not there."""

    def run(*words, server=None):
        output = () if "--output_file" in words or "--kind label" in " ".join(map(str, words)) else (
            "--output_file", tmp_path / "out.jsonl")  # fmt: skip
        code = request(server or url, *words, *output)
        stderr = capsys.readouterr().err
        errors = [line for line in stderr.splitlines() if line.startswith("error: ")]
        assert code == 2 and len(errors) == 1 and "Traceback" not in stderr, (code, stderr)
        left = {path.name for path in tmp_path.iterdir() if path.name.startswith((".", "out.")) and path.is_file()}
        assert not {name for name in left if "ledger" not in name}, left
        return errors[0]

    return run


@pytest.fixture
def good(tmp_path):
    write_jsonl(tmp_path / "rows.jsonl", [record(item, number) for number, item in enumerate(exchanges(3))])
    return tmp_path / "rows.jsonl"


def rows(tmp_path, content, name="rows.jsonl"):
    path = tmp_path / name
    path.write_text(content if isinstance(content, str) else "".join(json.dumps(row) + "\n" for row in content))
    return path


# ---- rows


@pytest.mark.parametrize(
    "kind, content, words",
    [
        ("rating", "", "rows.jsonl: the file is empty"),
        ("rating", "\n", "rows.jsonl: the file is empty"),
        ("rating", "[]", "rows.jsonl: no rows; expected prompts, with answers where they are to be judged"),
        ("rating", "{", "rows.jsonl:1: not JSON"),
        ("rating", "[1]", "found '1'; expected an object of columns"),
        ("rating", [{"question": "a?", "reply": "b"}], "rows.jsonl:1: found the columns question, reply, which fit no"),
        ("rating", [{"prompt": "a?"}], "rows.jsonl:1: no answers; --kind rating needs 1 or more to a prompt"),
        ("ranking", [{"prompt": "a?", "answers": ["b"]}], "rows.jsonl:1: 1 answer; --kind ranking needs 2 or more"),
        ("preference", [{"prompt": "a?", "answers": ["b", "c", "d"]}], "rows.jsonl:1: 3 answers to compare; name two"),
        ("rating", [{"id": "x", "prompt": "a?", "answers": ["b"]}] * 2, "rows.jsonl:2: the id 'x' is that of"),
        ("improve", [{"prompt": "a?", "answers": ["b"]}], "no row has an answer with a critique"),
        ("explain", [{"prompt": "a?", "answers": ["b", "c"]}], "no row has a decided pair, a critique or a refinement"),
        (None, [{"prompt": "a?", "answers": ["b"]}], "rows.jsonl:1: no feedback_type (critic, refine, prefer)"),
        (None, [LINE, {**LINE, "feedback_type": "praise"}], "rows.jsonl:2: feedback_type is 'praise'; expected one of"),
        (None, [LINE, {k: v for k, v in LINE.items() if k != "feedback_type"}], "rows.jsonl:2: no feedback_type"),
        (None, [{**LINE, "task": "poem"}], "rows.jsonl:1: task is 'poem'; expected one of dialogue, dialog, question"),
        (None, [{**LINE, "outputs": "b"}], "rows.jsonl:1: outputs are 'b'; expected an object of texts by model"),
        (None, [{**LINE, "outputs": {}}], "rows.jsonl:1: column 'output' is '{}'; expected an object of model"),
    ],
)  # fmt: skip
def test_rows(refuse, tmp_path, kind, content, words):
    flags = ["--kind", kind] if kind else []
    assert words in refuse(*flags, "--input_files", rows(tmp_path, content))


@pytest.mark.parametrize(
    "content, words",
    [
        ("instruction,input,response\n", "rows.csv: no rows"),
        ("instruction,input\nsay,\n", "rows.csv:2: no answers; --kind rating needs 1 or more"),
        ("input,response\n,yes\n", "rows.csv:2: found the columns input, response, which fit no class"),
        (CSV + "say\n", "rows.csv:3: the line has not the 3 fields of the header"),
        (CSV.replace("yes", "NA"), "rows.csv:2: column 'response' is 'NA', which pandas reads as a missing value"),
    ],
)
def test_csv_rows(refuse, tmp_path, content, words):
    flags = ("--kind", "rating", "--save_feedback_csv", tmp_path / "out.csv", "--output_file", tmp_path / "out.csv")
    assert words in refuse(*flags[:2], *flags[4:], "--input_csv", rows(tmp_path, content, "rows.csv"))


def test_models(refuse, good, tmp_path):
    words = "rows.jsonl:1: no answer of 'big'; found answers of good, poor, third"
    assert words in refuse("--kind", "rating", "--input_files", good, "--base_models", "good,big")
    plain = rows(tmp_path, [{"prompt": "a?", "answers": ["b"]}], "plain.jsonl")
    assert "found answers of no named model" in refuse("--kind", "rating", "--input_files", plain, "--base_model", "m")


def test_places(refuse, good, tmp_path):
    assert "none.jsonl: no such file or folder" in refuse("--kind", "rating", "--input_files", tmp_path / "none.jsonl")
    assert "--input_files is missing" in refuse("--kind", "rating")
    words = refuse("--kind", "critique", "--input_files", good, "--output_file", tmp_path / "out.csv")
    assert ".csv holds rating, preference, ranking; give a name that ends in .jsonl for --kind critique" in words
    words = refuse("--kind", "rating", "--input_files", good, "--output_file", tmp_path / "out.json")
    assert ".json holds completion, conversation" in words
    assert "rows.jsonl:1: the prompt has the turns" in refuse(
        "--kind", "rating", "--output_file", tmp_path / "out.csv", "--input_files",
        write_lines(tmp_path / "rows.jsonl", [{"prompt": [{"role": "system", "content": "a"},
                                                         {"role": "user", "content": "b"}], "answers": ["c"]}]),
    )  # fmt: skip
    assert "rows.jsonl is an input of this command; give another --output_file" in refuse(
        "--kind", "rating", "--input_files", good, "--output_file", good
    )
    (tmp_path / "file").write_text("")
    assert "file" in refuse("--kind", "rating", "--input_files", good, "--output_file", tmp_path / "file" / "out.jsonl")


def test_an_output_is_needed(good, url, capsys):
    assert request(url, "--kind", "rating", "--input_files", good) == 2
    assert "error: --output_file is missing; name the file to write" in capsys.readouterr().err


# ---- options


@pytest.mark.parametrize(
    "flags, words",
    [
        ("--kind ratings", "--kind ratings is unknown; known: critique, refinement, rating, improve, completion"),
        ("--kind rating --scale 7,1", "--scale is '7,1'; expected the lowest and the highest rating, as 1,7"),
        ("--kind critique --scale 1,7", "--scale is for --kind rating; leave it out"),
        ("--kind rating --orders both", "--orders is for --kind label, preference, ranking; leave it out"),
        ("--kind preference --orders twice", "invalid choice: 'twice'"),
        ("--kind preference --listwise", "--listwise is for --kind ranking"),
        ("--kind critique --structured", "--structured is for --kind explain, label, preference, ranking, rating"),
        ("--kind rating --objectives x", "--objectives is for --kind conversation"),
        ("--kind rating --data_fraction 0.5", "--data_fraction is for --kind completion"),
        ("--kind completion --data_fraction 1.5", "--data_fraction is 1.5; expected above 0 and at most 1"),
        ("--kind completion --ff 3", "no prompts left to answer"),
        ("--kind completion --base_models good", "--base_models is for --kind critique, improve, preference, ranking"),
        ("--kind rating --model1_name a", "--model1_name is for --kind label; leave it out"),
        ("--kind rating --nums 1,2,3", "--nums is '1,2,3'; expected one of n (the first n rows) or a,b"),
        ("--kind rating --nums x", "--nums is 'x'"),
        ("--kind rating --nums 2 --start_index 1", "--nums is '2' beside --start_index"),
        ("--kind rating --nums 7,9", "3 rows, none of them from 7 to 9"),
        ("--kind rating --start_index -1", "--start_index is -1; expected 0 or more"),
        ("--kind rating --temperature -1", "--temperature is -1.0; expected 0 or more"),
        ("--kind rating --max_tokens 0", "--max_tokens is 0; expected 1 or more"),
        ("--kind rating --n_workers 0", "--concurrency is 0; expected 1 or more"),
        ("--kind rating --n_workers 2 --concurrency 2", "given twice"),
        ("--kind rating --kinds x", "unknown option --kinds; did you mean --kind?"),
        ("--kind rating --columns prompts=x", "--columns prompts=x: no class reads 'prompts'"),
        ("--kind rating --prompt_file none.txt", "none.txt: cannot be read as text"),
    ],
)
def test_options(refuse, good, flags, words):
    assert words in refuse(*flags.split(), "--input_files", good)


def test_labels(refuse, tmp_path):
    assert "--base_dir is missing" in refuse("--kind", "label")
    words = ("--kind", "label", "--base_dir", tmp_path)
    assert f"{tmp_path}: no answers of 'temp1.0'; looked for temp1.0.json, " in refuse(*words)
    assert "no such folder" in refuse(*words[:3], tmp_path / "none")
    (tmp_path / "temp1.0.json").write_text('{"a?": ["b"]}')
    (tmp_path / "chatgpt.json").write_text('{"c?": ["d"]}')
    assert "no prompt in common, of 1 and 1" in refuse(*words)
    (tmp_path / "chatgpt.json").write_text('{"a?": ["d", 3]}')
    assert "chatgpt.json[1]: column 'answers' is" in refuse(*words)
    assert "expected the files of --model1_name and --model2_name, two" in refuse(*words, "--input_files", "x")
    assert "--max_num_comparisons is 0; expected 1 or more" in refuse(*words, "--max_num_comparisons", "0")


def test_objectives(refuse, tmp_path):
    (tmp_path / "none.txt").write_text("\n \n")
    words = ("--kind", "conversation", "--objectives")
    assert "none.txt: no rows; expected a learning objective a line" in refuse(*words, tmp_path / "none.txt")
    assert "nowhere.txt: cannot be read as text: No such file" in refuse(*words, tmp_path / "nowhere.txt")


# ---- the server, the ledger, the disk


def test_no_key_is_set(good, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    words = ("--kind", "rating", "--input_files", good, "--output_file", tmp_path / "out.jsonl")
    for model, variable in (("gpt4", "OPENAI_API_KEY"), ("claude", "ANTHROPIC_API_KEY")):
        assert in_process.run(PROGRAM, *words, "--api_type", model) == 2
        assert f"{variable} is not set" in capsys.readouterr().err


def test_a_key_is_rejected(refuse, good, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    with oracle(api_key="sk-right") as server:
        line = refuse("--kind", "rating", "--input_files", good, server=server)
    assert "401" in line and "sk-" not in line


def test_an_unknown_model(good, url, tmp_path, capsys):
    words = ("--kind", "rating", "--input_files", good, "--output_file", tmp_path / "out.jsonl")
    assert in_process.run(PROGRAM, *words, "--base_url", url, "--api_type", "oracel") == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and "oracel" in errors[0]


def test_a_ledger_that_is_none(refuse, good, tmp_path):
    broken = tmp_path / "broken.ledger"
    broken.write_text("not a database, but long enough to be taken for one " * 40)
    assert "broken.ledger" in refuse("--kind", "rating", "--input_files", good, "--ledger", broken)
    other = tmp_path / "other.ledger"
    with sqlite3.connect(other) as database:
        database.execute("CREATE TABLE x(y)")
    assert "other.ledger: a database, but no ledger" in refuse(
        "--kind", "rating", "--input_files", good, "--ledger", other
    )


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk(good, url, tmp_path, capsys):
    """The answers are in the ledger: the same command, with room, asks for none of them."""
    words = ("--kind", "rating", "--input_files", good, "--output_file")
    (tmp_path / f".out.jsonl.{os.getpid()}.partial").symlink_to("/dev/full")
    assert request(url, *words, tmp_path / "out.jsonl") == 2
    assert "out.jsonl: cannot be written: No space left on device" in capsys.readouterr().err
    assert not (tmp_path / "out.jsonl").exists()
    assert request(url, *words, tmp_path / "out.jsonl", "--max_requests", "1") == 0
    assert "9 questions: 9 parsed" in capsys.readouterr().out


def test_exit_codes_say_what_is_left(good, url, tmp_path, capsys):
    """3: some requests failed; 4: a limit was reached, also where that leaves nothing to write; 0: all is asked."""
    words = ("--kind", "rating", "--input_files", good, "--max_tokens", "9", "--price", "1,1", "--output_file")
    alone = rows(tmp_path, [{"prompt": "a?", "answers": ["b"]}], "alone.jsonl")
    with oracle(faults="malformed=1") as broken:
        assert request(broken, *words, tmp_path / "out.jsonl", "--max_retries", "0") == 3
    assert "9 questions: 9 failed" in capsys.readouterr().out and (tmp_path / "out.jsonl").exists()
    assert request(url, *words, tmp_path / "out.jsonl", "--max_requests", "5") == 4
    assert request(url, *words, tmp_path / "out.jsonl") == 0
    assert request(url, *words[:3], alone, *words[4:], tmp_path / "out.csv", "--max_usd", "0") == 4
    assert "no rows left to write" in capsys.readouterr().out and not (tmp_path / "out.csv").exists()
    with pytest.raises(SystemExit):
        request_program.main(["--help"])
    assert "3 some requests failed" in capsys.readouterr().out
