"""Errors as OpenRouter and servers like it tell them: moderation of one row, and errors that come with status 200."""

import json

import pytest
from aiohttp import web
from model_server import completion, error, model_server, ok

from utils.errors import UserError
from utils.llm.asking import Question, RateLimits, ask
from utils.llm.ledger import Ledger
from utils.llm.providers import FailedAttempt, open_provider, request_of
from utils.llm.providers.batches import BatchSession
from utils.llm.providers.errors import read_error

# openrouter.ai/docs/api/reference/errors-and-debugging: `reasons`, `flagged_input`, provider_name, model_slug.
METADATA = {"reasons": ["violence"], "flagged_input": "…", "provider_name": "OpenAI", "model_slug": "m"}
FLAGGED = 'm requires moderation on OpenAI. Your input was flagged for "violence".'
MODERATED = {"error": {"code": 403, "message": FLAGGED, "metadata": METADATA}}
FILTERED = {"error": {"code": "content_policy_violation", "message": "The request was rejected by the safety system."}}


def question(text):
    return Question(request_of("openai", "m", [{"role": "user", "content": text}], max_tokens=9), "rating",
                    {"low": 1, "high": 7})  # fmt: skip


@pytest.fixture
def start(tmp_path):
    """start(answer, texts) -> (summary, outcomes, report, times that each was asked)"""

    def run(answer, texts="abcde", **limits):
        questions = [question(text) for text in texts]
        with model_server(answer) as server, Ledger(tmp_path / "ledger") as ledger:
            limits = RateLimits(**{"backoff": 0.01, **limits})
            summary = ask(questions, ledger, open_provider("openai", server.url), limits)
            found = [ledger.outcome(q.request.key, q.parser, q.parser_args) for q in questions]
            return summary, found, ledger.report(), [len(server.times(text)) for text in texts]

    return run


@pytest.mark.parametrize("body, status", [(MODERATED, 403), (MODERATED, 200), (FILTERED, 400), (FILTERED, 403)])
def test_moderation_refuses_one_row(start, body, status):
    """The others are answered, it is asked once, and it stays refused."""

    def answer(asked, number):
        return web.json_response(body, status=status) if asked.content == "c" else ok()

    summary, found, report, asked = start(answer)
    assert (summary.answered, summary.refused, summary.failed) == (4, 1, 0) and asked == [1] * 5
    assert found[2].state == "refused" and body["error"]["message"] in found[2].reason
    assert report["possibly_billed"] == 0
    assert start(answer)[3] == [0] * 5


def test_a_key_without_rights_is_no_moderation(start):
    refuse = lambda asked, number: error(403, "The key has no access to this model", "permission_error")  # noqa: E731
    with pytest.raises(UserError, match="HTTP 403: The key has no access"):
        start(refuse)


def in_body(code, message="it went wrong"):
    return web.json_response({"error": {"code": code, "message": message}, "user_id": "u"})


def in_choice(code):
    body = completion("", finish="error")
    body["choices"][0]["error"] = {"code": code, "message": "the provider broke off"}
    return web.json_response(body)


@pytest.mark.parametrize(
    "first, reason, billed",
    [
        (lambda: in_body(429), "HTTP 429: it went wrong", 0),
        (lambda: in_body("rate_limit_exceeded"), "HTTP 429: it went wrong", 0),
        (lambda: in_body(503), "HTTP 503: it went wrong", 0),
        (lambda: in_body(502), "HTTP 502: it went wrong", 1),
        (lambda: in_body(None, "odd"), "HTTP 502: odd", 1),
        (lambda: in_choice(502), "HTTP 502: the provider broke off", 1),
        (lambda: web.json_response({"error": "overloaded"}), "HTTP 502: overloaded", 1),
    ],
)
def test_an_error_that_comes_as_an_answer_is_tried_again(start, first, reason, billed):
    summary, found, report, asked = start(lambda asked, number: first() if number == 1 else ok(), texts="a")
    assert (summary.answered, summary.retries, asked) == (1, 1, [2]) and found[0].value == 6
    assert report["troubles"] == {reason: 1} and report["possibly_billed"] == billed


@pytest.mark.parametrize(
    "code, told",
    [(401, "wants a key"), (402, "no credit left"), (404, "does not know the model"), ("insufficient_quota", "credit")],
)
def test_an_error_that_comes_as_an_answer_ends_the_run(start, code, told):
    with pytest.raises(UserError, match=told):
        start(lambda asked, number: in_body(code))


def test_one_that_is_the_rows_own_fails_it(start):
    answer = lambda asked, number: in_body(400, "too long") if asked.content == "b" else ok()  # noqa: E731
    summary, found, _, asked = start(answer)
    assert (summary.answered, summary.failed, asked) == (4, 1, [1] * 5) and found[1].reason == "HTTP 400: too long"


def test_in_a_batch():
    """A line's answer is read as any other; an error that ends a run comes back as one."""
    session = BatchSession(None, open_provider("openai", "http://localhost:1/v1"), timeout=1, not_found=KeyError)

    def outcome(body, status=200):
        return session._outcome({"custom_id": "k", "response": {"status_code": status, "body": body}})[1]

    assert outcome(completion()).text == "Rating: 6"
    refused = outcome(MODERATED)
    assert isinstance(refused, FailedAttempt) and refused.refused and not refused.again
    assert isinstance(outcome({"error": {"code": 402, "message": "no"}}), UserError)
    option = outcome({"error": {"code": "unsupported_value", "message": "'temperature'"}}, status=400)
    assert isinstance(option, UserError) and "refuses an option" in str(option)


@pytest.mark.parametrize("text", ["", "[]", "null", '{"error": null}', '{"error": {"metadata": 3}}', '"no"', "<html>"])
def test_odd_bodies(text):
    assert not read_error(text).moderated and json.dumps(read_error(text).message)


def test_words_of_an_option_are_not_those_of_a_prompt():
    """A row whose text is quoted in an error must not end the run."""
    assert not read_error('{"error": {"message": "invalid prompt: Extra inputs? output_config"}}').refuses_option
    assert not read_error('{"error": {"message": "the prompt is too long"}}').moderated
