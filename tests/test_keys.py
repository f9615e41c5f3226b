"""A key goes to the server that it is for and to no other: canaries in the environment, real servers that look."""

import asyncio

import pytest
from aiohttp import web
from model_server import error, model_server, ok

from utils.errors import UserError
from utils.llm.providers import FailedAttempt, open_provider, request_of

USER = [{"role": "user", "content": "Hello"}]
OWN = {"openai": "https://api.openai.com/v1", "anthropic": "https://api.anthropic.com"}
CANARIES = {
    "OPENAI_API_KEY": "sk-canary-0123456789", "OPENAI_ORG_ID": "org-canary", "OPENAI_PROJECT_ID": "proj-canary",
    "OPENAI_ADMIN_KEY": "sk-canary-admin", "OPENAI_CUSTOM_HEADERS": "X-Gateway: canary\nAuthorization: Bearer canary",
    "ANTHROPIC_API_KEY": "sk-ant-canary-0123", "ANTHROPIC_AUTH_TOKEN": "canary-token",
    "ANTHROPIC_CUSTOM_HEADERS": "X-Gateway: canary\nx-api-key: canary",
}  # fmt: skip
ANSWER = {"content": [{"type": "text", "text": "A"}], "stop_reason": "end_turn", "usage": {}}


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name, value in CANARIES.items():
        monkeypatch.setenv(name, value)
    for name in ("OPENAI_BASE_URL", "ANTHROPIC_BASE_URL", "OTHER_KEY"):
        monkeypatch.delenv(name, raising=False)


def sent(provider, name):
    async def once():
        async with provider.connect(5.0) as send:
            return await send(request_of(name, "m", USER))

    return asyncio.run(once())


def answered(asked, number):
    return web.json_response(ANSWER) if asked.request.path == "/v1/messages" else ok()


@pytest.mark.parametrize("name", OWN)
def test_another_server_gets_no_key(name):
    """One on this machine needs none; nothing of the environment reaches it."""
    with model_server(answered) as server:
        sent(open_provider(name, server.url), name)
        (asked,) = server.asked
    assert "canary" not in f"{asked.headers} {asked.body}"


@pytest.mark.parametrize("name", OWN)
@pytest.mark.parametrize("by", ["--base_url", "the environment"])
def test_another_machine_needs_a_key_that_is_named(name, by, monkeypatch):
    address = "https://openrouter.ai/api/v1"
    given = address
    if by == "the environment":
        monkeypatch.setenv(f"{name.upper()}_BASE_URL", address)
        given = None
    host = OWN[name].removeprefix("https://").removesuffix("/v1")
    with pytest.raises(
        UserError, match=f"no key for {address}: {name.upper()}_API_KEY is for {host} alone; give --api"
    ):
        open_provider(name, given)
    with pytest.raises(UserError, match=f"no key for {address}: the environment variable OTHER_KEY is not set"):
        open_provider(name, given, key_env="OTHER_KEY")
    open_provider(name, given, key_env=f"{name.upper()}_API_KEY")  # a person may say that it is for both


@pytest.mark.parametrize("name", OWN)
def test_a_named_key_is_sent(name, monkeypatch):
    monkeypatch.setenv("OTHER_KEY", "sk-other-987654321")
    with model_server(answered) as server:
        sent(open_provider(name, server.url, key_env="OTHER_KEY"), name)
        (asked,) = server.asked
    assert "sk-other-987654321" in str(asked.headers) and "canary" not in str(asked.headers)


@pytest.mark.parametrize("name", OWN)
def test_a_redirect_takes_the_key_nowhere(name):
    with model_server(answered) as other:
        moved = lambda asked, number: web.Response(status=307, headers={"Location": f"{other.url}/elsewhere"})  # noqa: E731
        with model_server(moved) as server, pytest.raises(FailedAttempt, match="HTTP 307") as met:
            sent(open_provider(name, server.url, key_env=f"{name.upper()}_API_KEY"), name)
        assert not other.asked and not met.value.again


@pytest.mark.parametrize("name", OWN)
@pytest.mark.parametrize("url", ["https://{}", "https://eu.{}/v1"])
def test_the_own_server_takes_the_own_key(name, url):
    host = OWN[name].removeprefix("https://").removesuffix("/v1")
    assert "canary" not in repr(open_provider(name, url.format(host)))
    for other in (f"http://{host}", f"https://{host}.example.com", f"https://{host.replace('.', '-')}.com"):
        with pytest.raises(UserError, match="alone; give --api_key_env"):
            open_provider(name, other)


@pytest.mark.parametrize("name", OWN)
def test_keys_that_are_none(name, monkeypatch):
    variable = f"{name.upper()}_API_KEY"
    monkeypatch.delenv(variable)
    for url in ("http://127.0.0.1:1/v1", "http://localhost:1/v1", "http://[::1]:1/v1"):
        open_provider(name, url)
    with pytest.raises(UserError, match=f"no key for https.*{variable} is not set"):
        open_provider(name)
    monkeypatch.setenv(variable, "sk secret")
    with pytest.raises(UserError, match=f"{variable} holds a space") as told:
        open_provider(name)
    assert "secret" not in str(told.value)
    monkeypatch.setenv(variable, " sk-fine\n")
    assert "sk-fine" not in repr(open_provider(name))


@pytest.mark.parametrize("name", OWN)
def test_a_key_never_reaches_a_message(name, monkeypatch):
    key = CANARIES[f"{name.upper()}_API_KEY"]
    refuse = lambda asked, number: error(401, f"invalid key {key}")  # noqa: E731
    with model_server(refuse) as server:
        with pytest.raises(UserError, match=f"rejects the key, set {name.upper()}_API_KEY to a valid one") as told:
            sent(open_provider(name, server.url, key_env=f"{name.upper()}_API_KEY"), name)
        assert key not in str(told.value)
        with pytest.raises(UserError, match="wants a key; give --api_key_env NAME"):
            sent(open_provider(name, server.url), name)
