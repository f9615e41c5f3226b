"""Requests in each provider's words and their keys, replies in one form, prices, saved answers."""

import asyncio
import hashlib
import json

import pytest
from aiohttp import web
from model_server import completion, error, model_server, ok
from oracle import oracle

from utils.errors import UserError
from utils.llm.asking import Question, RateLimits, ask
from utils.llm.ledger import Ledger
from utils.llm.providers import FailedAttempt, Price, Request, open_provider, parse_prices, request_of

USER = [{"role": "user", "content": "Grüß Gott"}]
SYSTEM = [{"role": "system", "content": "Judge."}, *USER]
SCHEMA = {"type": "object", "properties": {"rating": {"type": "integer"}}, "required": ["rating"]}


def sent(provider, request, timeout=5.0):
    async def once():
        async with provider.connect(timeout) as send:
            return await send(request)

    return asyncio.run(once())


# ------------------------------------------------------------------------------------------------------------- requests


def test_the_key_is_a_hash_of_provider_body_and_sample():
    request = request_of("openai", "m", USER, max_tokens=5, sample=2)
    body = {"model": "m", "messages": USER, "max_tokens": 5}
    assert request == Request("openai", body, 2)
    text = '["openai",{"max_tokens":5,"messages":[{"content":"Grüß Gott","role":"user"}],"model":"m"},2]'
    assert request.key == hashlib.sha256(text.encode()).hexdigest()
    shuffled = Request("openai", dict(reversed(body.items())), 2)
    assert shuffled.key == request.key


@pytest.mark.parametrize(
    "change", [{"temperature": 0.1}, {"max_tokens": 6}, {"sample": 1}, {"schema": SCHEMA}, {"top_p": 0.5}, {"seed": 1}]
)
def test_whatever_may_change_the_answer_changes_the_key(change):
    assert (
        request_of("openai", "m", USER, **{"max_tokens": 5, **change}).key
        != request_of("openai", "m", USER, max_tokens=5).key
    )


def test_openai_in_its_own_words():
    body = request_of("openai", "gpt-4o", SYSTEM, temperature=None, schema=SCHEMA, stop=["\n"], seed=None).body
    assert request_of("openai", "gpt-4o", SYSTEM, temperature=0.0).body["temperature"] == 0.0
    form = {"type": "json_schema", "json_schema": {"name": "reply", "strict": True, "schema": SCHEMA}}
    assert body == {"model": "gpt-4o", "messages": SYSTEM, "response_format": form, "stop": ["\n"]}
    newer = {"model": "o3-mini", "messages": USER, "max_completion_tokens": 9}
    assert request_of("openai", "o3-mini", USER, max_tokens=9).body == newer
    # OpenAI's own server wants the newer name for every model.
    assert request_of("openai", "gpt-4o", USER, max_tokens=9, own=True).body == {**newer, "model": "gpt-4o"}
    assert request_of("openai", "gpt-4o", USER, max_tokens=9).body["max_tokens"] == 9
    assert request_of("openai", "gpt-6-luna", USER, reasoning_effort="low").body["reasoning_effort"] == "low"


def test_anthropic_in_its_own_words():
    body = request_of("anthropic", "claude", SYSTEM, max_tokens=7, schema=SCHEMA, stop="\n").body
    form = {"format": {"type": "json_schema", "schema": SCHEMA}}
    assert body == {
        "model": "claude", "messages": USER, "system": "Judge.", "max_tokens": 7, "output_config": form,
        "stop_sequences": ["\n"],
    }  # fmt: skip
    assert request_of("anthropic", "claude", USER).body["max_tokens"] == 1024  # the API demands a limit
    body = request_of("anthropic", "claude", USER, schema=SCHEMA, reasoning_effort="low").body
    assert body["output_config"] == {**form, "effort": "low"} and "reasoning_effort" not in body


def test_bounds_of_a_schema_are_not_sent_to_anthropic():
    """A property may have the name of a bound; OpenAI takes the bounds."""
    bounded = {"type": "number", "minimum": 1, "maximum": 7, "enum": [1, 2]}
    schema = {
        "type": "object", "additionalProperties": False, "required": ["minimum"],
        "properties": {"minimum": bounded, "all": {"type": "array", "maxItems": 3, "items": {"anyOf": [bounded]}}},
    }  # fmt: skip
    plain = {"type": "number", "enum": [1, 2]}
    sent_schema = request_of("anthropic", "claude", USER, schema=schema).body["output_config"]["format"]["schema"]
    assert sent_schema == {
        **schema, "properties": {"minimum": plain, "all": {"type": "array", "items": {"anyOf": [plain]}}}
    }  # fmt: skip
    form = request_of("openai", "gpt-4o", USER, schema=schema).body["response_format"]
    assert form["json_schema"]["schema"] == schema


def test_half_a_character_cannot_be_sent():
    assert request_of("openai", "m", [{"role": "user", "content": "a\ud83db"}]).body["messages"][0]["content"] == "a?b"


def test_bounds_of_tokens():
    request = request_of("openai", "m", USER, max_tokens=5, n=3)
    assert request.most_output_tokens == 15 and request.most_input_tokens > len("Grüß Gott".encode())
    assert request_of("openai", "m", USER).most_output_tokens is None


# -------------------------------------------------------------------------------------------------------------- replies


def test_openai_replies():
    with model_server(lambda asked, number: ok("Yes.", headers={"x-request-id": "req-7"})) as server:
        reply = sent(open_provider("openai", server.url), request_of("openai", "m", USER))
    assert (reply.text, reply.finish_reason, reply.refused) == ("Yes.", "stop", False)
    assert (reply.input_tokens, reply.output_tokens, reply.request_id) == (10, 3, "req-7")
    assert json.loads(reply.raw)["choices"][0]["message"]["content"] == "Yes."


@pytest.mark.parametrize(
    "usage", [{"prompt_tokens": "10", "completion_tokens": None}, {}, None, {"prompt_tokens": True}]
)
def test_odd_usage_is_unknown(usage):
    def answer(asked, number):
        return web.json_response(completion() | {"usage": usage})

    with model_server(answer) as server:
        reply = sent(open_provider("openai", server.url), request_of("openai", "m", USER))
    assert reply.input_tokens is reply.output_tokens is None


MESSAGE = {
    "content": [{"type": "thinking", "thinking": "…"}, {"type": "text", "text": "A"}, {"type": "text", "text": "B"}],
    "usage": {"input_tokens": 5, "cache_read_input_tokens": 7, "output_tokens": 2},
}


@pytest.mark.parametrize(
    "stop, finish, refused",
    [("end_turn", "stop", False), ("stop_sequence", "stop", False), ("max_tokens", "length", False),
     ("refusal", "content_filter", True), ("pause_turn", "pause_turn", False)],
)  # fmt: skip
def test_anthropic_replies(stop, finish, refused, monkeypatch):
    def answer(asked, number):
        headers = {name.lower(): value for name, value in asked.headers.items()}  # which one depends on the version
        key = headers.get("x-api-key") or headers["authorization"].removeprefix("Bearer ")
        assert asked.request.path == "/v1/messages" and key == "sk-ant-12345"
        return web.json_response(MESSAGE | {"stop_reason": stop}, headers={"request-id": "req-8"})

    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-12345")
    request = request_of("anthropic", "claude", SYSTEM, schema=SCHEMA)
    with model_server(answer) as server:
        reply = sent(open_provider("anthropic", server.url, key_env="ANTHROPIC_API_KEY"), request)
        assert server.asked[0].body == request.body
    assert (reply.text, reply.finish_reason, reply.refused, reply.request_id) == ("AB", finish, refused, "req-8")
    assert (reply.input_tokens, reply.output_tokens) == (12, 2)


@pytest.mark.parametrize("api", ["openai", "anthropic"])
def test_each_fault_of_the_oracle(api, tmp_path):
    """Answered whichever API is spoken; what stays refused is an outcome."""
    faults = "429=0.1,429-retry-after=0.05,500=0.1,reset=0.1,malformed=0.1,empty=0.1,refusal=0.1"
    with oracle(faults=faults, retry_after=0.02, any_model=True) as url, Ledger(tmp_path / "ledger") as ledger:
        questions = [Question(request_of(api, "m", USER, sample=n, max_tokens=99), "completion") for n in range(60)]
        summary = ask(questions, ledger, open_provider(api, url), RateLimits(backoff=0.01, max_retries=20))
        report = ledger.report()
    assert summary.answered + summary.refused == 60 and summary.refused > 0 == summary.failed
    told = report["troubles"]
    assert told["the connection broke"] and told["the answer is not JSON"] and told["empty answer"]
    assert {"HTTP 429: too many requests; slow down"} < set(told)


@pytest.mark.parametrize("transport", ["DefaultAioHttpClient", "DefaultAsyncHttpxClient"])
@pytest.mark.parametrize("api", ["openai", "anthropic"])
def test_lost_connections_are_told_apart_by_either_transport(api, transport, monkeypatch):
    async def slam(asked, number):
        asked.request.transport.abort()

    monkeypatch.setattr("utils.llm.providers.http.TRANSPORTS", (transport,))
    request = request_of(api, "m", USER)
    with model_server(slam) as server:
        with pytest.raises(FailedAttempt) as met:
            sent(open_provider(api, server.url), request)
        assert (met.value.billed, met.value.again, met.value.unreachable) == (True, True, False)
    with pytest.raises(FailedAttempt) as met:
        sent(open_provider(api, server.url), request)
    assert (met.value.billed, met.value.again, met.value.unreachable) == (False, True, True)

    async def sleep(asked, number):
        await asyncio.sleep(5)

    with model_server(sleep) as server, pytest.raises(FailedAttempt, match="no answer within 0.2 s") as met:
        sent(open_provider(api, server.url), request, timeout=0.2)
    assert met.value.billed


@pytest.mark.parametrize(
    "body, told", [("<html>busy</html>", "busy"), ('"no"', "no"), ('{"detail": "why"}', "why"), ("", "")]
)
def test_errors_in_any_words(body, told):
    def answer(asked, number):
        response = error(400)
        response.text = body
        return response

    with model_server(answer) as server, pytest.raises(FailedAttempt) as met:
        sent(open_provider("openai", server.url), request_of("openai", "m", USER))
    assert met.value.reason.startswith("HTTP 400") and told in met.value.reason and not met.value.again


# ----------------------------------------------------------------------------------------------------- opening, prices


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://a/v1", "http://", "http://a:99999/v1", "http://[::1/v1"])
def test_addresses(url):
    with pytest.raises(UserError, match="--base_url is .*expected an address like"):
        open_provider("openai", url)


def test_who_asks_nothing_needs_no_key_and_no_package(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    monkeypatch.setitem(__import__("sys").modules, "openai", None)
    assert open_provider("openai", asks=False).price("gpt-4o-mini") == Price(0.15, 0.6)


def test_no_password_in_an_address():
    with pytest.raises(UserError, match="holds a user name or a password") as told:
        open_provider("openai", "http://me:geheim@localhost/v1")
    assert "geheim" not in str(told.value)


def test_a_missing_package_names_its_extra(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "anthropic", None)
    with pytest.raises(UserError, match=r"anthropic is not installed: pip install -e '.\[anthropic\]'"):
        open_provider("anthropic", "http://localhost/v1")


def test_prices():
    assert Price(2.5, 10).of(1_000_000, 100_000) == 3.5
    assert parse_prices(["1,2", "m=0.5,1"]) == {"": Price(1, 2), "m": Price(0.5, 1)}
    assert parse_prices(["a=b=1,2"]) == {"a=b": Price(1, 2)}
    limits = RateLimits(price=["m=1,2"])
    local = open_provider("openai", "http://localhost:1/v1")
    assert limits.price_of("m", local) == Price(1, 2)
    assert limits.price_of("gpt-4o", local) == Price(2.5, 10)  # a proxy, or a rehearsal
    other = open_provider("openai", "http://example.com/v1", asks=False)
    assert limits.price_of("gpt-4o", other) is None  # may cost anything
    assert limits.price_of("gpt-4o-of-mine", local) is None


@pytest.mark.parametrize("word", ["1", "1,2,3", "a,b", "nan,1", "1,inf", "-1,2", "m=", ""])
def test_bad_prices(word):
    with pytest.raises(UserError, match="expected .MODEL=.IN,OUT in USD per million tokens"):
        RateLimits(price=[word])


def test_the_price_list_holds_on_its_own_server(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-x")
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    assert open_provider("openai").price("gpt-4o") == Price(2.5, 10)
    assert open_provider("openai").price("gpt-4o-2031-01-01") is None


# --------------------------------------------------------------------------------------------------------------- replay


def test_saved_answers(tmp_path):
    path = tmp_path / "saved.jsonl"
    rows = [
        {"messages": USER, "text": "Rating: 1"},
        {"messages": USER, "text": "Rating: 2", "finish_reason": "length", "output_tokens": 3, "input_tokens": 9},
        {"messages": USER, "model": "other", "text": "Rating: 3"},
        {"messages": SYSTEM, "text": "No.", "refused": True},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    asked = [("m", USER, 0), ("m", USER, 1), ("m", USER, 5), ("other", USER, 0), ("m", SYSTEM, 0), ("m", [], 0)]
    questions = [
        Question(request_of("replay", model, messages, sample=n), "rating", {"low": 1, "high": 7})
        for model, messages, n in asked
    ]
    with Ledger(tmp_path / "ledger") as ledger:
        ask(questions, ledger, open_provider("replay", str(path)), RateLimits())
        found = [ledger.outcome(q.request.key, q.parser, q.parser_args) for q in questions]
    assert [outcome.value for outcome in found] == [1, 2, 2, 3, None, None]
    assert [outcome.state for outcome in found[4:]] == ["refused", "failed"]
    assert "saved.jsonl has no answer to these messages" in found[5].reason


@pytest.mark.parametrize(
    "row, words",
    [
        ({"messages": "x", "text": "a"}, "saved.jsonl:1: expected an object with messages"),
        ({"messages": [], "text": 3}, "saved.jsonl:1: field 'text' is '3'; expected text"),
        ({"messages": [], "text": "a", "txt": 1}, "saved.jsonl:1: unknown field 'txt'"),
    ],
)
def test_bad_saved_answers(tmp_path, row, words):
    path = tmp_path / "saved.jsonl"
    path.write_text(json.dumps(row))
    with pytest.raises(UserError, match=words):
        open_provider("replay", str(path))
