"""inference/eval_alpaca.py on annotations of both versions, on outputs, and with the package where it is installed."""

import csv
import json
import math
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from in_process import run
from toy_rows import DATA, real_data
from toys import ROOT

PROGRAM = ROOT / "inference" / "eval_alpaca.py"
FOLDER = DATA / "alpaca_eval" / "alpaca-7b"


def annotation(number, preference, output="yes", **more):
    return {"instruction": f"i{number}", "output_1": "reference", "generator_1": "ref", "output_2": output,
            "generator_2": "mine", "annotator": "judge", "preference": preference, **more}  # fmt: skip


@pytest.fixture
def evaluate(tmp_path, capsys):
    def evaluate(rows, *words):
        path = tmp_path / "annotations.json"
        path.write_text(rows if isinstance(rows, str) else json.dumps(rows))
        code = run(PROGRAM, "--annotations", path, "--json", tmp_path / "out.json", *words)
        said = capsys.readouterr()
        if code:
            assert code == 2 and said.err.count("\n") == 1 and not (tmp_path / "out.json").exists()
            return said.err
        return json.loads((tmp_path / "out.json").read_text())

    return evaluate


def test_the_first_version(evaluate):
    """0, 1, 1/2, 1/2 of 1, 2, 0, 1.5; null is left out: mean 1/2, sd sqrt(0.5/3), over sqrt(4)."""
    found = evaluate([annotation(n, value) for n, value in enumerate([1, 2, 0, 1.5, None])])
    assert found["win_rate"] == 50 and found["standard_error"] == pytest.approx(50 * math.sqrt(0.5 / 3))
    assert (found["n"], found["ties"], found["nulls"], found["wins"], found["losses"]) == (4, 2, 1, 1, 1)
    assert found["generator"] == "mine" and found["avg_length"] == 3


def test_the_second_version_keeps_probabilities(evaluate):
    """0.3, 0.9 and 0.0000048: mean 0.4000016; the discrete rate is 1/3."""
    found = evaluate([annotation(n, value) for n, value in enumerate([1.3, 1.9, 1.0000048])])
    assert found["win_rate"] == pytest.approx(100 * 1.2000048 / 3, rel=1e-12)
    assert found["standard_error"] == pytest.approx(100 * math.sqrt(0.21 / 3), rel=1e-4)
    assert found["discrete_win_rate"] == pytest.approx(100 / 3) and (found["wins"], found["ties"]) == (1, 0)


@real_data
def test_the_leaderboards_numbers(tmp_path, capsys):
    words = ("--annotations", FOLDER / "annotations.json", "--model_outputs", FOLDER / "model_outputs.json")
    assert run(PROGRAM, *words, "--generator", "alpaca-7b", "--json", tmp_path / "out.json") == 0
    found = json.loads((tmp_path / "out.json").read_text())
    with (FOLDER.parent / "alpaca_eval_gpt4_leaderboard.csv").open() as lines:
        (row,) = (row for row in csv.DictReader(lines) if row[""] == "alpaca-7b")
    assert found["win_rate"] == pytest.approx(float(row["win_rate"]), abs=1e-9)
    assert found["win_rate"] == pytest.approx(26.459627, abs=1e-6)
    assert found["standard_error"] == pytest.approx(float(row["standard_error"]), abs=1e-9)
    assert (found["n"], found["ties"], found["nulls"]) == (805, 16, 0) and found["avg_length"] == int(row["avg_length"])
    # Fitted to this model alone, it is near the leaderboard's, which is fitted to all.
    controlled = found["length_controlled"]
    assert controlled["low"] < float(row["length_controlled_winrate"]) / 100 < controlled["high"]
    assert "win rate 26.459627, standard error 1.535711 (n 805, 16 ties, 0 without" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("rows", "words", "line"),
    [
        ([annotation(1, 2), annotation(1, 1)], (), "the instruction 'i1' is judged at"),
        ([annotation(1, 3)], (), "preference is '3'; expected 1, 2, 0 or 1.5"),
        ([annotation(1, None)], (), "none of 1 annotations has a preference"),
        ('[{"instruction": "i", "outp', (), "not JSON"),
        ([{"instruction": "i"}], (), "expected instruction, output_1, output_2, preference"),
        ([annotation(1, 2), annotation(2, 2, generator_2="b")], (), "several names (b, mine)"),
        ([annotation(1, 2)], ("--generator", "ref"), "the two are swapped"),
        ([annotation(1, 2)], ("--generator", "other"), "generator_2 is mine; expected --generator other"),
        ([annotation(1, 2)], ("--judge", "gpt"), "--judge and --reference_outputs belong together"),
        ([annotation(1, 2)], ("--output_dir", "x"), "--output_dir has no effect with --annotations"),
    ],
)
def test_wrong_annotations_are_one_line(evaluate, rows, words, line):
    assert line in evaluate(rows, *words)


@pytest.mark.parametrize(
    ("outputs", "line"),
    [
        (["yes"], "no output to the instruction 'i1' (1 outputs in"),
        (["yes", "No!"], "output_2 (3 characters) is not the output to 'i1' (3 characters)"),
        (["yes", "yes", "yes"], "3 outputs in"),
        (["yes", "yes"], None),
    ],
)
def test_annotations_of_other_outputs_are_found(evaluate, tmp_path, outputs, line):
    path = tmp_path / "outputs.json"
    rows = [{"instruction": f"i{n}", "output": output, "generator": "mine"} for n, output in enumerate(outputs)]
    path.write_text(json.dumps(rows))
    found = evaluate([annotation(0, 2), annotation(1, 1)], "--model_outputs", path)
    if line:
        assert line in found and "annotat" in found
    else:
        assert found["win_rate"] == 50


def outputs_of(tmp_path, rows, *words):
    path = tmp_path / "answers.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    code = run(PROGRAM, "--model_outputs", path, "--output_dir", tmp_path / "out", *words)
    written = tmp_path / "out" / "model_outputs.json"
    return code, json.loads(written.read_text()) if written.exists() else None


def test_outputs_of_records_and_of_answered_rows(tmp_path):
    record = {"id": "1", "prompt": [{"role": "user", "content": "Sing."}], "answers": [{"text": "La", "model": "a/b"}]}
    plain = {
        "instruction": "Dance.",
        "output": "the reference's",
        "generator": "ref",
        "dataset": "koala",
        "sample": ["No"],
    }
    assert outputs_of(tmp_path, [record, plain], "--generator", "dpo") == (0, [
        {"instruction": "Sing.", "output": "La", "generator": "dpo"},
        {"instruction": "Dance.", "output": "No", "generator": "dpo", "dataset": "koala"},
    ])  # fmt: skip
    assert outputs_of(tmp_path, [record], "--overwrite")[1][0]["generator"] == "a/b"


@pytest.mark.parametrize(
    ("rows", "line"),
    [
        ([{"instruction": "i", "output": "a", "generator": ""}], "no model's name; give --generator"),
        ([{"instruction": "i", "output": "a", "generator": "g"}] * 2, "the instruction 'i' is at"),
        ([{"instruction": "i", "outputs": ["a", "b"], "generator": "g"}], "found 2 answers; expected one"),
    ],
)
def test_wrong_outputs_are_one_line(tmp_path, capsys, rows, line):
    code, written = outputs_of(tmp_path, rows)
    assert (code, written) == (2, None) and line in capsys.readouterr().err


class LongerIsBetter(BaseHTTPRequestHandler):
    """A judge behind OpenAI's API, asked by the package's prompt, that ranks the longer answer first."""

    def do_POST(self):  # noqa: N802 (the name that http.server calls)
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        answers = re.findall(r'"answer": """(.*?)"""', body["messages"][-1]["content"], re.DOTALL)
        first = 1 if len(answers[0]) >= len(answers[1]) else 2
        ranks = [{"model": "model_1", "rank": first}, {"model": "model_2", "rank": 3 - first}]
        message = {"role": "assistant", "content": str(ranks)}
        reply = {"id": "1", "object": "chat.completion", "created": 0, "model": body["model"],
                 "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
                 "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}}  # fmt: skip
        text = json.dumps(reply).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)
        self.server.asked += 1

    def log_message(self, *_):
        pass


def test_the_package_judges(tmp_path, monkeypatch):
    pytest.importorskip("alpaca_eval", reason="the extra alpaca_eval is not installed")
    monkeypatch.setenv("OPENAI_API_KEY", "any")
    server = ThreadingHTTPServer(("127.0.0.1", 0), LongerIsBetter)
    server.asked = 0
    threading.Thread(target=server.serve_forever, daemon=True).start()
    reference = tmp_path / "reference.json"
    lengths = [(1, 4), (4, 1), (2, 5), (3, 9)]
    reference.write_text(json.dumps([
        {"instruction": f"i{n}", "output": "x" * length, "generator": "ref"} for n, (length, _) in enumerate(lengths)
    ]))  # fmt: skip
    rows = [{"instruction": f"i{n}", "output": "y" * length, "generator": "m"} for n, (_, length) in enumerate(lengths)]
    words = ("--reference_outputs", reference, "--judge", "long-gpt", "--base_url",
             f"http://127.0.0.1:{server.server_address[1]}/v1", "--json", tmp_path / "out.json")  # fmt: skip
    try:
        assert outputs_of(tmp_path, rows, *words)[0] == 0
        assert outputs_of(tmp_path, rows, *words)[0] == 0
    finally:
        server.shutdown()
        server.server_close()
    found = json.loads((tmp_path / "out.json").read_text())
    with (tmp_path / "out" / "leaderboard.csv").open() as lines:
        (row,) = csv.DictReader(lines)
    assert server.asked == 4 and found["win_rate"] == 75 == float(row["win_rate"]) and row[""] == "m"
    assert found["standard_error"] == pytest.approx(float(row["standard_error"]), abs=1e-9)


def test_without_the_package_the_remedy_is_named(tmp_path, capsys):
    if __import__("importlib.util").util.find_spec("alpaca_eval"):
        pytest.skip("alpaca_eval is installed")
    rows = [{"instruction": "i", "output": "a", "generator": "g"}]
    (tmp_path / "ref.json").write_text(json.dumps(rows))
    words = ("--reference_outputs", tmp_path / "ref.json", "--judge", "gpt")
    assert outputs_of(tmp_path, rows, *words) == (2, None)
    assert "pip install -e '.[alpaca_eval]'" in capsys.readouterr().err
