"""The dated list of models, a person's own beside it, and what is told of a cost before anything is sent."""

import json
import re
from datetime import date

import in_process
import pytest
from oracle import oracle
from requesting import PROGRAM, exchanges, record

from utils.errors import UserError
from utils.llm.providers import Price, with_own
from utils.llm.providers.prices import price_list, read_prices
from utils.records.files import read_records, write_jsonl

TODAY = date(2026, 11, 22)


@pytest.fixture
def rows(tmp_path, monkeypatch):
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "OPENAI_BASE_URL", "ANTHROPIC_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    path = tmp_path / "rows.jsonl"
    write_jsonl(path, [record(item, number) for number, item in enumerate(exchanges(3, seed=2))])
    return path


@pytest.fixture
def run(rows, tmp_path, capsys):
    """run(*words) -> (exit code, all that was printed)"""

    def program(*words, kind="rating"):
        words = ("--kind", kind, "--input_files", rows, "--output_file", tmp_path / "out.jsonl", *words)
        code = in_process.run(PROGRAM, *words)
        said = capsys.readouterr()
        return code, said.out + said.err

    return program


def test_the_list_is_sound():
    found = price_list()
    for name in found.short_names.values():
        model = found.models[name]
        assert model.price and model.longest and not model.until  # it exists, and no end of it is announced
    for model in found.models.values():
        assert model.listed >= TODAY and (model.price is None or 0 < model.price.input <= model.price.output)
    assert {found.name_of(name) for name in ("gpt4", "chatgpt", "claude", "my-model")} == {
        *found.short_names.values(), "my-model",
    }  # fmt: skip


def test_snapshots_take_what_their_model_takes():
    found = price_list()
    assert found.model("gpt-5-2025-08-07").temperature == found.model("gpt-5").temperature == "refused"
    assert found.model("gpt-5-2025-08-07").price is None and found.price("gpt-5") == Price(1.25, 10)
    assert found.model("my-model").takes_temperature(None) and found.model("my-model").longest is None


def test_what_is_told_of_a_model(tmp_path):
    own = tmp_path / "prices.json"
    gone = '"gone": {"until": "2026-06-01", "usd": [1, 2]}, "gpt-6-luna": [3, 4]'
    own.write_text('{"date": "2026-01-01", "models": {"m": [1, 2], ' + gone + "}}")
    found = with_own(own)
    assert found.price("gpt-6-luna") == Price(3, 4) and not found.model("gpt-6-luna").takes_temperature(None)
    assert found.price("m") == Price(1, 2) and found.price("gpt-4o") == Price(2.5, 10)
    assert found.warnings("gpt-4o", TODAY) == []
    (old,) = found.warnings("m", TODAY)
    assert f"the price of m in {own} is of 2026-01-01, 325 days old" in old
    assert found.warnings("gone", TODAY)[0].startswith("gone is served until 2026-06-01")
    assert found.warnings("m", date(2026, 3, 1)) == []


@pytest.mark.parametrize(
    "content, told",
    [
        ("{", "cannot be read as JSON"),
        ("[]", "expected {.date"),
        ('{"models": {}}', "no date; expected"),
        ('{"date": "today"}', "date is 'today'; expected a day"),
        ('{"date": "2026-11-22", "models": {"m": 3}}', "m is '3'; expected an object of usd"),
        ('{"date": "2026-11-22", "models": {"m": {"price": 3}}}', "expected an object of usd"),
        ('{"date": "2026-11-22", "models": {"m": [1]}}', "usd is .*; expected .IN, OUT."),
        ('{"date": "2026-11-22", "models": {"m": [1, -2]}}', "usd is .*; expected .IN, OUT."),
        ('{"date": "2026-11-22", "models": {"m": {"longest": 0}}}', "longest is 0; expected a number of tokens"),
        ('{"date": "2026-11-22", "models": {"m": {"temperature": 0}}}', "temperature is 0; expected 'refused'"),
        ('{"date": "2026-11-22", "models": {"m": {"until": "soon"}}}', "m: until is 'soon'; expected a day"),
        ('{"date": "2026-11-22", "short_names": {"gpt4": 3}}', "short_names is"),
    ],
)
def test_a_file_that_is_none(tmp_path, content, told):
    (tmp_path / "prices.json").write_text(content)
    with pytest.raises(UserError, match=told):
        read_prices(tmp_path / "prices.json")


# ------------------------------------------------------------------------------------------------- as it is typed


@pytest.mark.parametrize("model", ["gpt-4o-mini", "gpt4", "chatgpt", "claude", "claude-haiku-4-5"])
def test_a_dry_run_needs_no_key_and_knows_the_price(run, tmp_path, model):
    code, said = run("--api_type", model, "--dry_run")
    cost = re.search(
        r"dry run: 9 requests, .* tokens in and at most [\d,]+ out; at most \$([\d.]+), likely \$(\S+)", said
    )
    assert code == 0 and 0 < float(cost[2]) < float(cost[1]) and not (tmp_path / "out.jsonl").exists()
    name = price_list().name_of(model)
    assert (f"{model} is short for {name} since 2026-11-22" in said) == (name != model)


def test_a_limit_lowers_what_it_costs_at_most(run):
    costs = []
    for words in ((), ("--max_usd", "5"), ("--max_tokens", "50")):
        said = run("--api_type", "gpt-4o-mini", "--dry_run", *words)[1]
        costs.append(float(re.search(r"at most \$([\d.]+)", said)[1]))
    assert costs[0] > costs[1] > costs[2] > 0


def test_money_is_limited_without_a_limit_of_tokens(run, tmp_path):
    """Replies get one for their kind; what is asked with it is found without it, and the other way round."""
    with oracle(strict=True) as url:
        words = ("--base_url", url, "--api_type", "gpt-4o-mini")
        code, said = run(*words, "--max_usd", "5")
        assert code == 0 and "9 answered" in said and len(list(read_records(tmp_path / "out.jsonl"))) == 3
        code, said = run(*words)
        assert code == 0 and "answered" not in said


def test_own_prices(run, tmp_path):
    """Beside the ledger, or by name; a short name of one's own, too."""
    content = {"date": "2026-01-01", "short_names": {"chatgpt": "tuned"}, "models": {"tuned": [1000, 2000]}}
    (tmp_path / "prices.json").write_text(json.dumps(content))
    code, said = run("--api_type", "chatgpt", "--dry_run", "--max_tokens", "9")
    assert code == 0 and "chatgpt is short for tuned since 2026-01-01" in said and "at most $" in said
    assert "the price of tuned" in said and "days old; check it" in said
    (tmp_path / "prices.json").rename(tmp_path / "mine.json")
    said = run("--api_type", "tuned", "--dry_run")[1]
    assert "the price of tuned at https://api.openai.com/v1 is not known" in said and "cost unknown" in said
    said = run("--api_type", "tuned", "--dry_run", "--prices", tmp_path / "mine.json", "--max_tokens", "9")[1]
    assert "at most $" in said
    code, said = run("--api_type", "tuned", "--dry_run", "--prices", tmp_path / "none.json")
    assert code == 2 and "none.json: cannot be read as JSON: No such file" in said


@pytest.mark.parametrize(
    "words, told",
    [
        ("--extra_body {", "--extra_body {: not JSON"),
        ("--extra_body []", "--extra_body is '[]'; expected a JSON object"),
        ('--extra_body {"temperature":0}', "--extra_body: 'temperature' comes from --temperature; leave it out"),
        ('--extra_body {"messages":[]}', "'messages' comes from the rows"),
        ('--extra_body {"n":3}', "'n' asks for a reply of another form"),
        ("--reasoning_effort most", "invalid choice: 'most'"),
        ("--api_type gpt-5 --temperature 0", "--temperature: gpt-5 refuses a request that sets it"),
        ("--api_type my-model --base_url https://example.com/v1", "give --api_key_env NAME"),
        ("--api_type my-model --base_url https://example.com/v1 --api_key_env NOT_SET", "NOT_SET is not set"),
    ],
)
def test_options_that_cannot_be(run, words, told):
    code, said = run(*words.split())
    assert code == 2 and told in said
