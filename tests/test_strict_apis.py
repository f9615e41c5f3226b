"""A server that refuses what OpenAI's and Anthropic's own servers refuse today: what is sent to it, and its errors.

The table has a line for each kind of model; each line is asked in words, by a schema, and (OpenAI) in a batch."""

import json

import in_process
import pytest
from model_server import model_server
from oracle import anthropic_client, control, openai_client, oracle
from requesting import PROGRAM, exchanges, record

from utils.records.files import read_records, write_jsonl

OPENAI = {"chat": "gpt-4o-mini", "always thinking": "gpt-5-mini", "quiet": "gpt-5.4-mini", "thinking": "gpt-6-luna"}
ANTHROPIC = {"former": "claude-haiku-4-5", "unsampled": "claude-opus-4-7", "thinking": "claude-sonnet-5-5"}
MODELS = [*OPENAI.values(), *ANTHROPIC.values()]
WAYS = {"chat": (), "structured": ("--structured",), "batch": ("--batch", "--structured")}
SET = {"none": (), "limit": ("--max_tokens", "900"), "money": ("--max_usd", "5")}
COLD = ("--temperature", "0")


@pytest.fixture(scope="module")
def url():
    with oracle(strict=True) as address:
        yield address


@pytest.fixture(scope="module")
def rated(tmp_path_factory):
    path = tmp_path_factory.mktemp("strict") / "rows.jsonl"
    write_jsonl(path, [record(item, number) for number, item in enumerate(exchanges(2, seed=5))])
    return path


@pytest.fixture
def ask(url, rated, tmp_path):
    """ask(model, *words) -> the exit code of a command as a person types it."""

    def run(model, *words, kind="rating"):
        words = ("--kind", kind, "--input_files", rated, "--output_file", tmp_path / "out.jsonl", *words)
        return in_process.run(PROGRAM, *words, "--api_type", model, "--base_url", url, "--max_retries", "0")

    return run


CELLS = [(model, "chat", given) for model in MODELS for given in SET]
CELLS += [(model, "structured", "limit") for model in MODELS] + [(model, "batch", "money") for model in OPENAI.values()]


@pytest.mark.parametrize("model, way, given", CELLS)
def test_every_model_answers_in_every_way(ask, tmp_path, model, way, given):
    assert ask(model, *WAYS[way], *SET[given]) == 0
    found = list(read_records(tmp_path / "out.jsonl"))
    assert len(found) == 2 and all(1 <= answer.rating <= 7 for row in found for answer in row.answers)


def test_anthropic_has_no_batches_here(ask, url, capsys):
    before = control(url, "counts")["requests"]
    assert ask("claude-haiku-4-5", "--batch") == 2
    assert "--batch: anthropic has no batch API that is known here" in capsys.readouterr().err
    assert control(url, "counts")["requests"] == before


@pytest.mark.parametrize("model", MODELS)
def test_a_temperature_is_refused_before_anything_is_sent(ask, url, capsys, model):
    before, taken = control(url, "counts")["requests"], model in ("gpt-4o-mini", "gpt-5.4-mini", "claude-haiku-4-5")
    assert ask(model, *COLD) == (0 if taken else 2)
    if not taken:
        remedy = "leave it out, or give --reasoning_effort none\n" if model == "gpt-6-luna" else "leave it out\n"
        told = capsys.readouterr().err
        assert f"error: --temperature: {model} refuses a request that sets it" in told and told.endswith(remedy)
        assert control(url, "counts")["requests"] == before


@pytest.mark.parametrize(
    "model, words, code",
    [("gpt-6-luna", ("none", *COLD), 0), ("gpt-6-luna", ("high",), 0), ("gpt-5-mini", ("minimal",), 0),
     ("gpt-5.4-mini", ("low", *COLD), 2), ("gpt-5-mini", ("none",), 2), ("gpt-4o-mini", ("low",), 2),
     ("claude-sonnet-5-5", ("low",), 0), ("claude-sonnet-5-5", ("low", "--structured"), 0),
     ("claude-sonnet-5-5", ("minimal",), 2), ("claude-haiku-4-5", ("low",), 2)],
)  # fmt: skip
def test_reasoning_effort(ask, capsys, model, words, code):
    """What a model does not know ends the run with its server's words, not after fifty failures."""
    assert ask(model, "--reasoning_effort", *words) == code
    if code:
        assert "effort" in capsys.readouterr().err or model == "gpt-5.4-mini"


@pytest.mark.parametrize(
    "model, extra, told",
    [
        ("gpt-4o-mini", {"top_p": 0.9, "seed": 3}, None),
        ("gpt-6-luna", {"verbosity": "low"}, None),
        ("gpt-6-luna", {"top_p": 0.9}, "Unsupported parameter: 'top_p' is not supported with this model."),
        ("gpt-4o-mini", {"top_k": 4}, "Unrecognized request argument supplied: top_k"),
        ("claude-haiku-4-5", {"top_p": 0.9}, None),
        ("claude-haiku-4-5", {"seed": 3}, "seed: Extra inputs are not permitted"),
        ("claude-sonnet-5-5", {"top_k": 4}, "`top_k` is deprecated for this model."),
        ("claude-sonnet-5-5", {"output_config": {"effort": "low"}}, None),
    ],
)
def test_further_fields(ask, capsys, model, extra, told):
    # By a schema; what OpenAI refuses, in a batch.
    way = "batch" if told and model.startswith("gpt") else "structured"
    assert ask(model, "--extra_body", json.dumps(extra), *WAYS[way]) == (2 if told else 0)
    if told:
        errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1 and told in errors[0] and "refuses an option of every request" in errors[0]


@pytest.mark.parametrize(
    "model, way",
    [("gpt-4-turbo", "chat"), ("gpt-4-turbo", "batch"), ("gpt-9", "structured"), ("claude-nova-9", "chat"),
     ("claude-sonnet-4-20250514", "structured")],
)  # fmt: skip
def test_retired_and_unknown_models(ask, capsys, model, way):
    assert ask(model, *WAYS[way]) == 2
    said = capsys.readouterr()
    assert "does not know the model or the address" in said.err and model in said.err
    listed = model in ("gpt-4-turbo", "claude-sonnet-4-20250514")
    assert (f"{model} is served until 2026-" in said.out + said.err) == listed


# ------------------------------------------------------------------------------------------ the server by itself


def refused(url, model, **body):
    """(status, message, code) of what the real client gets, or None."""
    messages = [{"role": "user", "content": "Hello"}]
    client = (anthropic_client if model.startswith("claude") else openai_client)(url)
    path = "/v1/messages" if model.startswith("claude") else "/chat/completions"
    try:
        client.post(path, body={"model": model, "messages": messages, **body}, cast_to=object)
    except Exception as error:
        assert type(error).__name__ in ("BadRequestError", "NotFoundError")
        found = error.response.json()
        assert found.get("type", "error") == "error" and found["error"]["type"]
        return error.status_code, found["error"]["message"], found["error"].get("code"), found["error"].get("param")
    return None


def form(schema):
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "r", "strict": True, "schema": schema}}}


def format_of(schema):
    return {"output_config": {"format": {"type": "json_schema", "schema": schema}}}


OPEN = {"type": "object", "properties": {"rating": {"type": "integer"}}, "required": ["rating"]}
CLOSED = {**OPEN, "additionalProperties": False}
BOUNDED = {**CLOSED, "properties": {"rating": {"type": "integer", "minimum": 1, "maximum": 7}}}


@pytest.mark.parametrize(
    "model, body, found",
    [
        ("gpt-5-mini", {"temperature": 0}, (400, "'temperature' does not support 0 with this", "unsupported_value")),
        ("gpt-5-mini", {"temperature": 1}, None),
        ("gpt-6-luna", {"max_tokens": 9}, (400, "Use 'max_completion_tokens' instead", "unsupported_parameter")),
        ("gpt-4o", {"max_tokens": 9}, None),
        ("gpt-4o", {"max_tokens": 9, "max_completion_tokens": 9}, (400, "at the same time is not supported", "inval")),
        ("gpt-4o", {"max_completion_tokens": 20000}, (400, "max_tokens is too large: 20000", "invalid_value")),
        ("gpt-4o", form(OPEN), (400, "'additionalProperties' is required to be supplied and to be false", None)),
        ("gpt-4o", form(BOUNDED), None),
        ("gpt-4o", form({**CLOSED, "required": []}), (400, "'required' is required to be supplied", None)),
        ("o4-mini", {}, (404, "has been deprecated", "model_not_found")),
        ("claude-opus-5-5", {"max_tokens": 9, "temperature": 1}, (400, "`temperature` is deprecated for this", None)),
        ("claude-sonnet-4-6", {"max_tokens": 9, "temperature": 1, "top_p": 1}, (400, "cannot both be specified", None)),
        ("claude-sonnet-4-6", {}, (400, "max_tokens: Field required", None)),
        ("claude-haiku-4-5", {"max_tokens": 70000}, (400, "max_tokens: 70000 > 64000, which is the maximum", None)),
        ("claude-sonnet-5-5", {"max_tokens": 9, **format_of(BOUNDED)},
         (400, "For 'integer' type, properties maximum, minimum are not supported", None)),
        ("claude-sonnet-5-5", {"max_tokens": 9, **format_of(OPEN)},
         (400, "'additionalProperties' must be explicitly set to false", None)),
        ("claude-3-7-sonnet-20250219", {"max_tokens": 9}, (404, "model: claude-3-7-sonnet-20250219", None)),
    ],
)  # fmt: skip
def test_the_server_refuses_what_is_documented(url, model, body, found):
    got = refused(url, model, **body)
    if found is None:
        assert got is None
        return
    status, message, code, _ = got
    assert status == found[0] and found[1] in message and str(code).startswith(str(found[2]))


@pytest.mark.parametrize("strict", [True, False])
def test_a_lenient_server_takes_it_all(strict):
    with oracle(strict=strict, any_model=True) as address:
        found = refused(address, "gpt-5-mini", temperature=0, max_tokens=9, top_k=3)
        assert (found is not None) == strict


@pytest.mark.parametrize("model, name", [("gpt-4o-mini", "max_completion_tokens"), ("my-model", "max_tokens")])
def test_a_server_that_stands_in_for_openai_gets_the_newer_name(rated, tmp_path, model, name):
    """One of this machine, under a name of OpenAI's; any other server keeps the older one."""
    words = ("--kind", "rating", "--input_files", rated, "--output_file", tmp_path / "out.jsonl", "--max_tokens", "9")
    with model_server() as server:
        assert in_process.run(PROGRAM, *words, "--api_type", model, "--base_url", server.url) == 0
        assert all(asked.body[name] == 9 and "temperature" not in asked.body for asked in server.asked)
