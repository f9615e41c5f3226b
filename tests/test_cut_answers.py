"""An answer that was cut at the limit of tokens is never a text to learn from, whichever API cut it."""

import json

import in_process
import pytest
from aiohttp import web
from model_server import model_server, ok
from requesting import PROGRAM
from toys import ROOT

from utils.llm.ledger import Ledger
from utils.records import Answer, Message, Record
from utils.records.files import read_records, write_jsonl

PAIRS = ROOT / "data_collect/pairs.py"
ROWS = [
    Record((Message("user", f"What is {n} + 3?"),), (Answer(f"It is {n + 3}.", "m", critique="Guide, do not tell."),))
    for n in range(4)
]
SAID = "A better answer is: Start at 3 and count on"


def said(asked):
    """Rows 0 and 1 are cut, the others come to their end."""
    return "length" if any(f"{n} + 3" in asked.content for n in (0, 1)) else "stop"


def openai(asked, number):
    return ok(SAID, finish=said(asked))


def anthropic(asked, number):
    reason = {"length": "max_tokens", "stop": "end_turn"}[said(asked)]
    return web.json_response({"content": [{"type": "text", "text": SAID}], "stop_reason": reason, "usage": {}})


@pytest.fixture
def ask(tmp_path, capsys):
    """ask(api, kind, rows) -> the output's file"""

    def run(api, kind, source):
        output = tmp_path / f"{kind}.jsonl"
        with model_server({"openai": openai, "anthropic": anthropic}[api]) as server:
            place = ("--base_url", server.url, "--provider", api, "--api_type", "m")
            words = ("--kind", kind, "--input_files", source, "--output_file", output)
            assert in_process.run(PROGRAM, *words, *place) == 0
            said = capsys.readouterr().out
            assert " 2 parsed" in said and " 2 unparsed" in said
            assert in_process.run(PROGRAM, *words, *place) == 0 and len(server.asked) == 4  # paid for once
            assert "2 unparsed: cut at the limit of tokens" in capsys.readouterr().out
        return output

    return run


@pytest.mark.parametrize("api", ["openai", "anthropic"])
@pytest.mark.parametrize("kind", ["critique", "refinement", "improve"])
def test_records(ask, tmp_path, api, kind):
    rows = [Record(row.prompt, (Answer(row.answers[0].text, "m"),)) for row in ROWS] if kind != "improve" else ROWS
    write_jsonl(tmp_path / "rows.jsonl", rows)
    found = list(read_records(ask(api, kind, tmp_path / "rows.jsonl")))
    field = "critique" if kind == "critique" else "refinement"
    got = [getattr(record.answers[0], field) for record in found]
    assert got[:2] == [None, None] and all(got[2:])
    if kind == "improve":
        why = {"answer": 0, "why": "cut at the limit of tokens"}
        assert [record.meta.get("not_improved") for record in found] == [[why], [why], None, None]


@pytest.mark.parametrize("feedback_type", ["critic", "refine"])
def test_lines(ask, tmp_path, feedback_type):
    """A line's feedback is the reply as it came: there is none."""
    kind = {"critic": "critique", "refine": "refinement"}[feedback_type]
    source = tmp_path / "rows.jsonl"
    lines = [
        {"prompt": f"Human: What is {n} + 3?\n\nAssistant:", "task": "qa", "feedback_type": feedback_type,
         "outputs": {"m": f"It is {n + 3}."}}
        for n in range(4)
    ]  # fmt: skip
    source.write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = [json.loads(line) for line in ask("openai", kind, source).read_text().splitlines()]
    assert [line["prompt"] for line in found] == [line["prompt"] for line in lines[2:]]


def test_pairs_of_refinements(ask, tmp_path):
    write_jsonl(tmp_path / "rows.jsonl", ROWS)
    improved = ask("openai", "improve", tmp_path / "rows.jsonl")
    assert in_process.run(PAIRS, "--data_path", improved, "--output_dir", tmp_path / "sets") == 0
    chosen = []
    for path in sorted((tmp_path / "sets").rglob("*.jsonl")):
        chosen += [record.answers[0] for record in read_records(path)]
    assert len(chosen) == 2 and all(answer.finished for answer in chosen)


def test_answers_of_an_old_ledger(ask, tmp_path):
    """What an earlier version took for a refinement is not taken for one again: the ledger keeps why it ended."""
    write_jsonl(tmp_path / "rows.jsonl", ROWS)
    output = ask("openai", "improve", tmp_path / "rows.jsonl")
    with Ledger(f"{output}.ledger", create=False) as ledger:
        rows = [row for state in ("parsed", "unparsed") for row in ledger.rows(state)]
    assert sorted(row["finish_reason"] for row in rows) == ["length", "length", "stop", "stop"]
