"""What the providers with an official client have in common: errors and raw answers read alike.

The clients' own retries are off: the caller alone decides on the next attempt, and counts it. Requests go through
`with_raw_response`: the body is kept as it came, and no time is spent on an object for every field. For the same reason
a request's body goes in as `extra_body`, which the clients send as it is, and the transport is aiohttp where they have
it: 0.6 ms of one core a request instead of 1.2.
"""

from __future__ import annotations

import asyncio
import email.utils
import importlib
import ipaddress
import json
import math
import os
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, ClassVar
from urllib.parse import urlsplit

from utils.errors import UserError
from utils.llm.providers.base import Reply, Request, Send, Trouble
from utils.llm.providers.prices import Price, price_list

GATEWAY = (408, 502, 504, 524)  # somebody gave up waiting: behind it the answer may have been made, and be paid for
NO_CREDIT = ("insufficient_quota", "billing_hard_limit_reached", "billing_not_active")
FILTERED = ("content_filter", "content_policy_violation")
TRANSPORTS = ("DefaultAioHttpClient", "DefaultAsyncHttpxClient")  # the first needs aiohttp and a recent client
Create = Callable[[dict[str, Any]], Awaitable[Any]]


class HttpProvider(ABC):
    """A server, the key for it, and how its official client is used."""

    name: ClassVar[str]
    package: ClassVar[str]  # of the official client, and the extra of pyproject.toml that installs it
    key_variable: ClassVar[str]
    url_variable: ClassVar[str]
    own_url: ClassVar[str]

    def __init__(
        self, base_url: str | None = None, environment: Mapping[str, str] = os.environ, asks: bool = True
    ) -> None:
        """asks: False never connects, and needs neither the client's package nor a key."""
        self.where = _checked_url(base_url or environment.get(self.url_variable) or self.own_url)
        self._sdk = _load(self.package) if asks else None
        self._key = _key_from(self.key_variable, self.where, environment) if asks else ""

    @abstractmethod
    def _client(self, **settings: Any) -> Any:
        """The official asynchronous client."""

    @abstractmethod
    def _creator(self, client: Any) -> Create:
        """Its method that takes a body and returns the raw response."""

    @abstractmethod
    def _read(self, answer: dict[str, Any]) -> dict[str, Any]:
        """The fields of a Reply in a parsed body. Raises KeyError, IndexError, TypeError or AttributeError for a body
        of another shape."""

    def price(self, model: str) -> Price | None:
        """Another server of the same API may charge anything; one on this machine that goes by a listed name stands in
        for that model: a proxy, or a rehearsal."""
        own = urlsplit(self.where).hostname == urlsplit(self.own_url).hostname
        return price_list().get(model) if own or is_loopback(self.where) else None

    @asynccontextmanager
    async def connect(self, timeout: float) -> AsyncIterator[Send]:
        async with self._open(timeout) as client:
            create = self._creator(client)

            async def send(request: Request) -> Reply:
                response = (await self.call(create(request.body), timeout)).http_response
                headers = response.headers
                return self.reply(response.text, headers.get("x-request-id") or headers.get("request-id"))

            yield send

    def _open(self, timeout: float) -> Any:
        settings = {"api_key": self._key or "none", "max_retries": 0, "timeout": timeout}
        return self._client(http_client=self._transport(timeout), **settings)

    def _transport(self, timeout: float) -> Any:
        """No proxy stands between this machine and itself."""
        settings = {"trust_env": not is_loopback(self.where), "timeout": timeout}
        for name in TRANSPORTS:
            with suppress(RuntimeError, AttributeError):
                return getattr(self._sdk, name)(**settings)
        raise UserError(f"the package {self.package} is too old: pip install -U {self.package}")

    async def call(self, made: Awaitable[Any], timeout: float) -> Any:
        """What a call of the client returns, its errors as Trouble or UserError."""
        try:  # the client's own time-out is one of silence, this one of the whole answer
            return await asyncio.wait_for(made, timeout)
        except asyncio.TimeoutError:
            raise _late(timeout) from None
        except self._sdk.APIConnectionError as error:
            raise self._lost(error, timeout) from None
        except self._sdk.APIStatusError as error:
            raise self.status(error.response.status_code, error.response.text, error.response.headers) from None

    def _lost(self, error: Exception, timeout: float) -> Trouble:
        """Whether a broken connection ever was one, by the names of what caused it in httpx and aiohttp."""
        names = [type(cause).__name__ for cause in _causes(error)]
        aiohttp = [name for name in names if name.startswith(("Client", "Server"))]  # they tell more than httpx's
        never = aiohttp[0].startswith("ClientConnector") if aiohttp else {"ConnectError", "ConnectTimeout"} & {*names}
        if never:
            return Trouble(f"cannot connect to {self.where}", again=True, unreachable=True)
        if isinstance(error, self._sdk.APITimeoutError) and not aiohttp:
            return _late(timeout)
        return Trouble("the connection broke", again=True, billed=True)

    def status(self, status: int, text: str, headers: Mapping[str, str]) -> Exception:
        """What an HTTP status other than 200 means: UserError where every further request would meet the same."""
        code, message = _error_in(self.redact(text))
        told = f"HTTP {status}" + (f": {message}" if message else "")
        if status in (401, 403):
            return UserError(f"{self.where} rejects the key, set {self.key_variable} to a valid one ({told})")
        if status == 404:
            return UserError(f"{self.where} does not know the model or the address; check both ({told})")
        if status == 402 or code in NO_CREDIT:
            return UserError(f"{self.where}: the account has no credit left; the same command continues later ({told})")
        if status == 429:
            return Trouble(told, again=True, busy=True, wait=_retry_after(headers))
        if status >= 500 or status == 408:
            return Trouble(told, again=True, billed=status in GATEWAY, wait=_retry_after(headers))
        return Trouble(told, again=False, refused=code in FILTERED)

    def reply(self, text: str, request_id: str | None) -> Reply:
        """A body that came with status 200. Raises Trouble for what is no answer."""
        raw = self.redact(text)
        try:
            reply = Reply(request_id=request_id, raw=raw, **self._read(json.loads(raw)))
        except (ValueError, RecursionError):
            fault = "the answer is not JSON"
        except (KeyError, IndexError, TypeError, AttributeError):
            fault = "the answer's JSON has another shape"
        else:
            if reply.refused or reply.finish_reason == "length" or (reply.text or "").strip():
                return reply
            raise Trouble("empty answer", again=True, billed=True, reply=reply)
        raise Trouble(fault, again=True, billed=True, reply=Reply(None, None, False, None, None, request_id, raw))

    def redact(self, text: str) -> str:
        """A server may repeat the key that it was sent."""
        return text.replace(self._key, "[key]") if len(self._key) >= 8 else text  # a shorter one is a word like none


def is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def count(value: Any) -> int | None:
    """A number of tokens as a server gives it; anything else is unknown."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _load(package: str) -> Any:
    try:
        return importlib.import_module(package)
    except ImportError:
        extra = "collect" if package == "openai" else package
        raise UserError(f"the package {package} is not installed: pip install -e '.[{extra}]'") from None


def _checked_url(url: str) -> str:
    shown = url.rpartition("@")[2]
    try:
        parts = urlsplit(url)
        well_formed = parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port > 0)
    except ValueError:
        well_formed = False
    if not well_formed:
        raise UserError(f"--base_url is {shown!r}; expected an address like http://127.0.0.1:8000/v1")
    if "@" in parts.netloc:
        raise UserError(f"--base_url …@{shown} holds a user name or a password; keys belong in the environment")
    return url.rstrip("/")


def _key_from(variable: str, url: str, environment: Mapping[str, str]) -> str:
    key = environment.get(variable, "").strip()
    if not key and not is_loopback(url):
        raise UserError(f"no key for {url}: the environment variable {variable} is not set; export {variable}=…")
    if not key.isascii() or any(not character.isprintable() or character == " " for character in key):
        raise UserError(f"{variable} holds a space, a line break or a letter beyond ASCII, as no key does; set it anew")
    return key


def _late(timeout: float) -> Trouble:
    return Trouble(f"no answer within {timeout:g} s", again=True, billed=True)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _error_in(text: str) -> tuple[str | None, str]:
    """(code, message) of an error's body, as far as it has them."""
    try:
        body = json.loads(text)
    except ValueError:
        body = text
    error = body.get("error", body) if isinstance(body, dict) else body
    if isinstance(error, dict):
        code, message = error.get("code") or error.get("type"), error.get("message") or error.get("detail") or error
    else:
        code, message = None, error
    return code if isinstance(code, str) else None, " ".join(str(message).split())[:300]


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds: `Retry-After` holds seconds or a date, `retry-after-ms` milliseconds."""
    for name, unit in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        try:
            seconds = float(headers.get(name, "nan")) / unit
        except ValueError:
            date = email.utils.parsedate_tz(headers[name])
            seconds = email.utils.mktime_tz(date) - time.time() if date else math.nan
        if math.isfinite(seconds):
            return max(0.0, seconds)
    return None
