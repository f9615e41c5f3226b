"""Answers that were paid for under a former form of the request are found again, and none is asked twice.

fixtures/former_ledger.sql is the dump of a ledger that request.py made when it always sent a temperature, spelled
every limit max_tokens, and sent a schema's bounds to Anthropic: three rows, each rated by four models."""

import sqlite3

import in_process
import pytest
from model_server import model_server
from requesting import PROGRAM
from toys import ROOT

from utils.feedback.requests import SettledQuestions
from utils.llm.ledger import Ledger
from utils.records.files import read_records

FIXTURES = ROOT / "tests/fixtures"
SONNET, OPUS = "claude-sonnet-4-20250514", "claude-opus-4-20250514"


@pytest.fixture
def former(tmp_path):
    path = tmp_path / "former.ledger"
    with sqlite3.connect(path) as db:
        db.executescript((FIXTURES / "former_ledger.sql").read_text(encoding="utf-8"))
    db.close()
    return path


@pytest.fixture
def ask(tmp_path, former):
    """ask(model, *words) -> (ratings, requests that the server got)"""

    def run(model, *words, code=0):
        output = tmp_path / "out.jsonl"
        rows = ("--kind", "rating", "--input_files", FIXTURES / "former_rows.jsonl", "--output_file", output)
        with model_server() as server:
            place = ("--ledger", former, "--prompt_file", FIXTURES / "former_rating.txt", "--base_url", server.url)
            assert in_process.run(PROGRAM, *rows, *place, "--api_type", model, *words) == code
            return [record.answers[0].rating for record in read_records(output)], server.asked

    return run


@pytest.mark.parametrize(
    "model, words",
    [
        ("gpt-4o", ()),
        ("gpt-4o", ("--temperature", "0")),
        ("gpt-4o", ("--max_usd", "9")),  # which limits the replies: the answers are as good without that
        ("gpt-4o-mini", ("--structured", "--max_tokens", "64")),
        (SONNET, ("--structured",)),
        (OPUS, ("--max_usd", "9")),
        (OPUS, ()),
    ],
)
def test_they_are_found(ask, model, words):
    ratings, asked = ask(model, *words)
    assert ratings == [7, 4, 2] and not asked
    assert ask(model, *words) == ([7, 4, 2], [])


@pytest.mark.parametrize(
    "model, words",
    [
        ("gpt-4o", ("--temperature", "0.5")),
        ("gpt-4o", ("--max_tokens", "64")),
        ("gpt-4o", ("--structured",)),
        ("gpt-4o-mini", ("--structured",)),
        ("gpt-4o-mini", ("--structured", "--max_tokens", "65")),
        ("gpt-4o", ("--extra_body", '{"top_p": 0.5}')),
        ("gpt-4.1", ()),
    ],
)
def test_other_questions_are_asked(ask, model, words):
    ratings, asked = ask(model, *words)
    assert ratings == [6, 6, 6] and len(asked) == 3
    assert ask(model, *words) == ([6, 6, 6], [])


def test_a_short_name_that_stood_for_another_model(former, tmp_path, capsys):
    """Its answers are neither asked for again nor mixed with those of the newer model."""
    place = ("--ledger", former, "--prompt_file", FIXTURES / "former_rating.txt", "--output_file", tmp_path / "o.jsonl")
    words = ("--kind", "rating", "--input_files", FIXTURES / "former_rows.jsonl", "--api_type", "gpt4")
    with model_server() as server:
        assert in_process.run(PROGRAM, *words, *place, "--base_url", server.url) == 2 and not server.asked
    told = capsys.readouterr().err
    assert "holds answers of gpt-4o, which --api_type gpt4 was short for; give --api_type gpt-4o to go on" in told
    assert not (tmp_path / "o.jsonl").exists()


def test_a_limit_that_nobody_gave_changes_no_question(ask):
    """--max_usd may be added to a command, and taken from it again."""
    assert len(ask("gpt-4.1", "--max_usd", "9")[1]) == 3
    assert ask("gpt-4.1")[1] == ask("gpt-4.1", "--max_usd", "5")[1] == []


def test_many_questions_without_an_answer(ask, monkeypatch):
    """Then the ledger is read once, and no question is looked up in forms that it does not hold."""
    looked, has = [], SettledQuestions.has
    monkeypatch.setattr("utils.feedback.requests.ENOUGH", 1)
    monkeypatch.setattr(SettledQuestions, "has", lambda self, question: looked.append(self) or has(self, question))
    assert ask("gpt-4o-mini", "--structured", "--max_tokens", "64") == ([7, 4, 2], [])
    assert looked[0]._shapes is not None
    assert len(ask("gpt-4.1")[1]) == 3


def test_a_new_ledger_is_not_searched(tmp_path):
    with Ledger(tmp_path / "new.ledger") as ledger:
        assert not SettledQuestions(ledger, lambda question: pytest.fail("looked up")).any
