"""The routes of a server of chat models: OpenAI's and Anthropic's, and two to control it.

POST /control/faults   rates of faults as JSON, in place of the old ones; `latency` (seconds) and `rate_limit` (an
                       object of requests_per_minute, bucket, header) may be among them
GET /control/counts    what came in, what was answered in full and what went wrong, in all and by request body
"""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
import struct
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from utils.errors import UserError
from utils.world.serving import apis
from utils.world.serving.apis import Anthropic, ApiError, Call, OpenAI, Said
from utils.world.serving.batches import BatchRoutes
from utils.world.serving.faults import RATE_LIMIT, Counts, RateLimit, RequestCount, draw_fault, key_of, parse_faults
from utils.world.serving.strict import refuse_anthropic, refuse_openai

FOREVER = 3600.0  # seconds: longer than any client waits
LARGEST = 256 * 2**20  # bytes of one request
Api = type[OpenAI] | type[Anthropic]
REFUSE = {OpenAI: refuse_openai, Anthropic: refuse_anthropic}
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Settings:
    """The settings of a server."""

    models: tuple[str, ...]  # the names that it answers for
    any_model: bool = False  # answer for every other name too
    strict: bool = False  # refuse what the providers' own servers refuse, and answer for their models
    api_key: str = ""  # the key that a client must give; "": none
    latency: float = 0.0  # seconds of every answer
    faults: dict[str, float] = field(default_factory=dict)
    slow: float = 2.0  # seconds that the fault `slow` adds
    retry_after: float = 1.0  # seconds
    rate_limit: RateLimit = field(default_factory=RateLimit)
    seed: int = 0


@dataclass
class Spoken:
    """The reply to one request: a status and a body, unless the fault keeps it from arriving."""

    status: int
    body: dict[str, Any]
    fault: str | None
    count: RequestCount


class ChatServer:
    """A server of chat models.

    Args:
        speak: speak(call, sample) is the model; `sample` differs for each request at a temperature above 0.
        settings: of the server.
    """

    def __init__(self, speak: Callable[[Call, str], str], settings: Settings) -> None:
        self.speak, self.settings = speak, settings
        self.counts, self.serial = Counts(), itertools.count(1)
        self.batches = BatchRoutes(self.in_batch, lambda: self.settings.latency)

    def application(self) -> web.Application:
        app = web.Application(client_max_size=LARGEST, middlewares=[self.guard])
        app.router.add_post("/v1/chat/completions", lambda request: self.answer(request, OpenAI))
        app.router.add_post("/v1/messages", lambda request: self.answer(request, Anthropic))
        app.router.add_get("/v1/models", self.models)
        app.router.add_routes(self.batches.routes())
        app.router.add_post("/control/faults", self.set_faults)
        app.router.add_get("/control/counts", self.show_counts)
        return app

    def runner(self) -> web.AppRunner:
        """Return a runner, to be set up and given a site. A client that leaves ends the work on its answer; a
        stop waits for no request."""
        return web.AppRunner(self.application(), access_log=None, handler_cancellation=True, shutdown_timeout=0.5)

    @web.middleware
    async def guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Check the key, and put every error into the form of its API."""
        api = Anthropic if request.path == "/v1/messages" else OpenAI
        try:
            if self.settings.api_key and request.path.startswith("/v1/"):
                _check_key(api.key(request.headers), self.settings.api_key)
            return await handler(request)
        except ApiError as error:
            return web.json_response(api.error(error), status=error.status)

    async def answer(self, request: web.Request, api: Api) -> web.StreamResponse:
        body, number = _json(await request.read()), f"req_{next(self.serial)}"
        headers = {api.id_header: number}
        wait = self.settings.rate_limit.take(time.monotonic())
        if wait:
            return self.too_many(body, api, headers | self.settings.rate_limit.headers(wait))
        spoken = self.decide(body, api)
        if spoken.fault == "429-retry-after":
            headers["Retry-After"] = f"{self.settings.retry_after:g}"
        if spoken.status == 200:
            slow = self.settings.slow if spoken.fault == "slow" else 0
            await asyncio.sleep(self.settings.latency + slow)
        if spoken.fault == "time-out":
            await asyncio.sleep(FOREVER)
        body = json.dumps(spoken.body).encode()
        # A time-out ends as a reset too: the client has long left.
        if spoken.fault in ("reset", "time-out"):
            return await _break_off(request, body, headers)
        if spoken.fault == "malformed":
            body = body[: len(body) // 2]
        elif spoken.status == 200:
            # Both at once, and before the first byte goes out: no client has an answer that is not counted.
            spoken.count.answered += 1
            if spoken.fault != "empty":
                spoken.count.good.append(number)
        return web.Response(body=body, status=spoken.status, content_type="application/json", headers=headers)

    def too_many(self, body: Any, api: Api, headers: dict[str, str]) -> web.Response:
        """Refuse a request beyond the rate limit."""
        count = self.counts.of(key_of(body))
        count.requests += 1
        count.faults[RATE_LIMIT] += 1
        told = f"rate limit reached: {self.settings.rate_limit.requests_per_minute:g} requests a minute"
        return web.json_response(api.error(ApiError(429, told)), status=429, headers=headers)

    def decide(self, body: Any, api: Api) -> Spoken:
        """Count a request, draw its fault, and answer it."""
        key = key_of(body)
        count = self.counts.of(key)
        # Of earlier ones, those that went well: a retried request gets the text that it would have got at once.
        number = count.requests - count.faults.total()
        count.requests += 1
        fault = draw_fault(self.settings.faults, seed=self.settings.seed, key=key, attempt=count.requests)
        try:
            call = api.read(body)
            if self.settings.strict:
                REFUSE[api](body)
            elif call.model not in self.settings.models and not self.settings.any_model:
                known = ", ".join(self.settings.models)
                raise ApiError(404, f"the model {call.model!r} does not exist; known: {known}")
            said = self.say(call, fault, key=key, number=number)
        except ApiError as error:
            count.faults[fault or str(error.status)] += 1
            return Spoken(error.status, api.error(error), fault=fault, count=count)
        if fault:
            count.faults[fault] += 1
        return Spoken(200, api.answer(call, said), fault=fault, count=count)

    def say(self, call: Call, fault: str | None, key: str, number: int) -> Said:
        """Return what the model says.

        Args:
            call: the request.
            fault: its fault, if it has one.
            key: of its body.
            number: how many requests with this body went well before.

        Returns:
            The reply.

        Raises:
            ApiError: the fault is an error of the server.
        """
        if fault in ("429", "429-retry-after"):
            raise ApiError(429, "too many requests; slow down")
        if fault == "500":
            raise ApiError(500, "the server had an error while processing the request")
        # Models decline in two ways, in words or by a filter, and a client has to know both.
        if fault == "refusal":
            return Said("", "refusal" if int(key, 16) % 2 else "filter")
        if fault == "empty":
            return Said("")
        sample = ""
        if call.free:
            sample = f"{key} {number}"
        return apis.say(self.speak(call, sample), call)

    def in_batch(self, body: Any) -> tuple[int, dict[str, Any] | None]:
        """Answer a line of a batch. A fault that breaks a connection breaks nothing here, and a time-out is a line that
        was never reached."""
        spoken = self.decide(body, OpenAI)
        if spoken.fault == "time-out":
            return 0, None
        spoken.count.answered += spoken.status == 200
        return spoken.status, spoken.body

    async def models(self, request: web.Request) -> web.Response:
        rows = [{"id": name, "object": "model", "created": 0, "owned_by": "plumbline"} for name in self.settings.models]
        return web.json_response({"object": "list", "data": rows})

    async def set_faults(self, request: web.Request) -> web.Response:
        given = _json(await request.read())
        if not isinstance(given, dict):
            raise ApiError(400, "expected a JSON object of rates")
        latency = given.pop("latency", self.settings.latency)
        if not isinstance(latency, int | float) or not 0 <= latency < FOREVER:
            raise ApiError(400, f"latency is {latency!r}; expected seconds")
        limit = given.pop("rate_limit", None)
        try:
            rate_limit = RateLimit(**limit) if limit is not None else self.settings.rate_limit
            self.settings.faults = parse_faults(given)
        except (UserError, TypeError) as error:
            raise ApiError(400, str(error)) from None
        self.settings.latency, self.settings.rate_limit = latency, rate_limit
        return web.json_response({"faults": self.settings.faults, "latency": latency})

    async def show_counts(self, request: web.Request) -> web.Response:
        return web.json_response(self.counts.to_json())


def _check_key(given: str, expected: str) -> None:
    if given != expected:
        raise ApiError(401, "the API key is missing or wrong")


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError as error:
        raise ApiError(400, f"the body is not JSON: {error}") from None


async def _break_off(request: web.Request, body: bytes, headers: dict[str, str]) -> web.StreamResponse:
    """Send half of an answer, then reset the connection."""
    response = web.StreamResponse(headers={**headers, "Content-Length": str(len(body))})
    response.content_type = "application/json"
    await response.prepare(request)
    await response.write(body[: len(body) // 2])
    await asyncio.sleep(0.01)  # a reset takes with it what still lies in the socket
    if request.transport is not None:
        connection = request.transport.get_extra_info("socket")
        # Lingering for 0 seconds: closing then sends a reset and not an orderly end.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        request.transport.abort()
    return response
