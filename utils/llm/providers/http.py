"""Requests through the official clients, whose errors and raw answers are all read here."""

# The clients' own retries are off: the caller alone decides on the next attempt, and counts it. Requests go through
# with_raw_response: the body is kept as it came, and no time is spent on an object for every field. For the same reason
# a request's body goes in as extra_body, which the clients send as it is, and the transport is aiohttp where they have
# it: 0.6 ms of one core a request instead of 1.2.

from __future__ import annotations

import asyncio
import importlib
import json
import os
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, ClassVar

from utils.errors import UserError
from utils.llm.providers.address import checked_url, is_loopback, is_own, key_from
from utils.llm.providers.base import FailedAttempt, Reply, Request, Send
from utils.llm.providers.errors import ServerError, in_answer, read_error, retry_after
from utils.llm.providers.prices import Price, PriceList, price_list

# With these a gateway gave up waiting: the server behind it may have made the answer, and billed it.
GATEWAY = (408, 502, 504, 524)
LATE = (408, 504, 524)
# The first is the faster one; it needs aiohttp and a recent client.
TRANSPORTS = ("DefaultAioHttpClient", "DefaultAsyncHttpxClient")
Create = Callable[[dict[str, Any]], Awaitable[Any]]


class HttpProvider(ABC):
    """A server, the key for it, and the official client that talks to it."""

    name: ClassVar[str]
    package: ClassVar[str]  # of the official client, and the extra of pyproject.toml that installs it
    key_variable: ClassVar[str]
    url_variable: ClassVar[str]
    own_url: ClassVar[str]
    headers_variable: ClassVar[str]  # of further headers, which the client sends
    key_header: ClassVar[tuple[str, str]]  # its name, and its value around the key
    own_headers: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        base_url: str | None = None,
        environment: Mapping[str, str] = os.environ,
        asks: bool = True,
        key_env: str | None = None,
        prices: PriceList | None = None,
    ) -> None:
        """Check the address and the key.

        Args:
            base_url: another server of the same API, or None.
            environment: the environment variables.
            asks: False never connects, and needs neither the package nor a key.
            key_env: the environment variable of the key, or None: the provider's own, for its own server.
            prices: what is known of models; None: the project's list.
        """
        self.where = checked_url(base_url or environment.get(self.url_variable) or self.own_url)
        self._sdk = _load(self.package) if asks else None
        self._prices = prices or price_list()
        self._key, self._key_variable = "", key_env or self.key_variable
        if asks:
            self._key = key_from(self.key_variable, key_env, self.where, self.own_url, environment)

    @abstractmethod
    def _client(self, **settings: Any) -> Any:
        """Return the official asynchronous client."""

    @abstractmethod
    def _creator(self, client: Any) -> Create:
        """Return the client's method that takes a body and returns the raw response."""

    @abstractmethod
    def _read(self, answer: dict[str, Any]) -> dict[str, Any]:
        """Return the fields of a Reply in a parsed body. Raises KeyError, IndexError, TypeError or AttributeError for a
        body of another shape."""

    def price(self, model: str) -> Price | None:
        """Return the model's price in the price list, or None where the list does not hold for this server."""
        if not self._listed:
            return None
        return self._prices.price(model)

    def longest_reply(self, model: str) -> int | None:
        """Return the most tokens that the model writes, or None where that is not known."""
        if not self._listed:
            return None
        return self._prices.model(model).longest

    def thinks(self, request: Request) -> bool:
        """Return whether the model is known to think before it answers this request."""
        effort = request.body.get("reasoning_effort") or (request.body.get("output_config") or {}).get("effort")
        return self._listed and self._prices.model(request.model).thinks(effort)

    @property
    def _listed(self) -> bool:
        # Another server of the same API may charge anything; one on this machine under a listed name stands in for
        # that model (a proxy, or a rehearsal).
        return is_own(self.where, self.own_url) or is_loopback(self.where)

    @asynccontextmanager
    async def connect(self, timeout: float) -> AsyncIterator[Send]:
        """Open a session for one event loop. `timeout`: seconds that a whole answer may take."""
        async with self._open(timeout) as client:
            create = self._creator(client)

            async def send(request: Request) -> Reply:
                response = (await self.call(create(request.body), timeout)).http_response
                headers = response.headers
                return self.reply(response.text, headers.get("x-request-id") or headers.get("request-id"))

            yield send

    def _open(self, timeout: float) -> Any:
        settings = {"api_key": self._key or "none", "max_retries": 0, "timeout": timeout}
        if not is_own(self.where, self.own_url):
            # The client reads headers from the environment, which are for the provider's own server.
            lines = os.environ.get(self.headers_variable, "").split("\n")
            names = [*self.own_headers, *(line.partition(":")[0].strip() for line in lines)]
            omitted = dict.fromkeys(filter(None, names), self._sdk.Omit())
            # The client wants its own header of the key, and takes another one in its place.
            keyed = {name: self.key_header[1].format(settings["api_key"]) for name in omitted
                     if name.lower() == self.key_header[0]}  # fmt: skip
            settings["default_headers"] = omitted | keyed
        return self._client(http_client=self._transport(timeout), **settings)

    def _transport(self, timeout: float) -> Any:
        # A proxy cannot reach a server on this machine by its loopback address: trust_env would send it there.
        # A redirect would carry the key to wherever it leads.
        settings = {"trust_env": not is_loopback(self.where), "timeout": timeout, "follow_redirects": False}
        for name in TRANSPORTS:
            with suppress(RuntimeError, AttributeError):
                return getattr(self._sdk, name)(**settings)
        raise UserError(f"the package {self.package} is too old: pip install -U {self.package}")

    async def call(self, made: Awaitable[Any], timeout: float) -> Any:
        """Await a call of the client; raise its errors as FailedAttempt or UserError."""
        try:
            # The client's own time-out is for silence; this one is for the whole answer.
            return await asyncio.wait_for(made, timeout)
        except asyncio.TimeoutError:
            raise _late(timeout) from None
        except self._sdk.APIConnectionError as error:
            raise self._lost(error, timeout) from None
        except self._sdk.APIStatusError as error:
            raise self.status(error.response.status_code, error.response.text, error.response.headers) from None

    def _lost(self, error: Exception, timeout: float) -> FailedAttempt:
        """Tell a connection that was never made, which costs nothing, from one that broke."""
        names = [type(cause).__name__ for cause in _causes(error)]
        # aiohttp's exceptions, where there are any, say more than those of httpx that wrap them.
        aiohttp = [name for name in names if name.startswith(("Client", "Server"))]
        if aiohttp:
            never_connected = aiohttp[0].startswith("ClientConnector")
        else:
            never_connected = "ConnectError" in names or "ConnectTimeout" in names
        if never_connected:
            return FailedAttempt(f"cannot connect to {self.where}", again=True, unreachable=True)
        if isinstance(error, self._sdk.APITimeoutError) and not aiohttp:
            return _late(timeout)
        return FailedAttempt("the connection broke", again=True, billed=True)

    def status(self, status: int, text: str, headers: Mapping[str, str]) -> Exception:
        """Return the exception for an HTTP status other than 200: UserError where no request can succeed."""
        return self._failure(status, read_error(self.redact(text)), headers)

    def _failure(self, status: int, error: ServerError, headers: Mapping[str, str]) -> Exception:
        told = f"HTTP {status}"
        if error.message:
            told += f": {error.message}"
        if error.moderated:
            return FailedAttempt(told, again=False, refused=True)
        if status in (401, 403):
            if not self._key:
                remedy = "give --api_key_env NAME, the environment variable that holds a key for it"
                return UserError(f"{self.where} wants a key; {remedy} ({told})")
            return UserError(f"{self.where} rejects the key, set {self._key_variable} to a valid one ({told})")
        if status == 404:
            return UserError(f"{self.where} does not know the model or the address; check both ({told})")
        if status == 402 or error.no_credit:
            return UserError(f"{self.where}: the account has no credit left; run the same command again later ({told})")
        if error.refuses_option:
            return UserError(f"{self.where} refuses an option of every request; change it or leave it out ({told})")
        if status == 429:
            return FailedAttempt(told, again=True, busy=True, wait=retry_after(headers))
        if status >= 500 or status == 408:
            return FailedAttempt(
                told, again=True, billed=status in GATEWAY, late=status in LATE, wait=retry_after(headers)
            )
        return FailedAttempt(told, again=False)

    def reply(self, text: str, request_id: str | None) -> Reply:
        """Read a body that came with status 200. Raises FailedAttempt or UserError where it is no answer."""
        raw = self.redact(text)
        try:
            answer = json.loads(raw)
            error = in_answer(answer)
            if error is None:
                reply = Reply(request_id=request_id, raw=raw, **self._read(answer))
        except (ValueError, RecursionError):
            fault = "the answer is not JSON"
        except (KeyError, IndexError, TypeError, AttributeError):
            fault = "the answer's JSON has another shape"
        else:
            if error is not None:
                raise self._failure(error.status, error, {})
            if reply.refused or reply.finish_reason == "length" or (reply.text or "").strip():
                return reply
            raise FailedAttempt("empty answer", again=True, billed=True, reply=reply)
        raise FailedAttempt(fault, again=True, billed=True, reply=Reply(request_id=request_id, raw=raw))

    def redact(self, text: str) -> str:
        """Return the text without the key, which a server may repeat."""
        # A key shorter than 8 characters is a placeholder such as "none", a word that answers may hold.
        if len(self._key) < 8:
            return text
        return text.replace(self._key, "[key]")


def count(value: Any) -> int | None:
    """Return a number of tokens as the server gives it, or None for anything that is no count."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        return None
    return value


def _load(package: str) -> Any:
    try:
        return importlib.import_module(package)
    except ImportError:
        extra = "collect" if package == "openai" else package
        raise UserError(f"the package {package} is not installed: pip install -e '.[{extra}]'") from None


def _late(timeout: float) -> FailedAttempt:
    return FailedAttempt(f"no answer within {timeout:g} s", again=True, billed=True, late=True)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
