"""The built-in world's judge as a server that speaks OpenAI's chat API and Anthropic's Messages API.

    python data_collect/oracle_server.py --port 8008

Real clients ask it for ratings, preferences, orders, critiques and refinements as they would ask a paid model, and
it can be told to err and to fail at known rates (docs/feedback.md). It prints its address and stops on SIGTERM.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import signal
import socket
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import web

from utils.arguments import parse
from utils.arguments.options import expect, option
from utils.errors import UserError
from utils.reporting import run_program, say
from utils.serving import apis
from utils.serving.apis import Anthropic, ApiError, Call, OpenAI, Said
from utils.serving.faults import Counts, draw_fault, key_of, parse_faults
from utils.world.judge import MODELS, Judge

FOREVER = 3600.0  # seconds: longer than any client waits
LARGEST = 256 * 2**20  # bytes of one request


@dataclass
class ServerArguments:
    port: int = option(8008, help="port to listen on; 0: any that is free")
    host: str = option("127.0.0.1", help="address to listen on; the default is reached from this machine alone")
    url_file: str = option("", help="file that the address is written to once the server listens, and that it removes")
    parent_pid: int = option(0, help="stop when the process of this number is gone; 0: only on a signal")
    api_key: str = option("", help="the key that clients must send; none: any will do")
    any_model: bool = option(False, help="the oracle answers for any other name of a model, too")
    noise_temperature: float = option(0.7, help="P(a over b) = sigmoid(gap in utility / temperature); 0 never errs")
    noise: float = option(0.0, help="share of judgements that are wrong whatever the gap")
    position_bias: float = option(0.0, help="share of comparisons won by what is shown first, whatever it is")
    latency: float = option(0.0, help="seconds that every answer takes")
    faults: str = option("", help="what goes wrong and how often, as 429=0.1,reset=0.05 (docs/feedback.md)")
    slow: float = option(2.0, help="seconds that the fault `slow` adds")
    retry_after: float = option(1.0, help="seconds that the fault `429-retry-after` asks a client to wait")
    seed: int = option(1234, help="seed of the noise and of the faults")

    def __post_init__(self) -> None:
        expect(self, "0 to 1", "noise", "position_bias")
        expect(self, "0 or more", "noise_temperature", "latency", "slow", "retry_after", "parent_pid")
        if not 0 <= self.port <= 65535:
            raise UserError(f"--port is {self.port}; expected 0 to 65535")
        try:
            parse_faults(self.faults)
        except UserError as error:
            raise UserError(f"--faults: {error}") from None


class OracleServer:
    """State: the rates of faults, and what came in."""

    def __init__(self, args: ServerArguments) -> None:
        self.args = args
        self.judge = Judge(args.noise_temperature, args.noise, args.position_bias, args.seed)
        self.faults, self.latency = parse_faults(args.faults), args.latency
        self.counts, self.serial = Counts(), itertools.count(1)

    def application(self) -> web.Application:
        app = web.Application(client_max_size=LARGEST)
        app.router.add_post("/v1/chat/completions", lambda request: self.answer(request, OpenAI))
        app.router.add_post("/v1/messages", lambda request: self.answer(request, Anthropic))
        app.router.add_get("/v1/models", self.models)
        app.router.add_post("/control/faults", self.set_faults)
        app.router.add_get("/control/counts", self.show_counts)
        return app

    async def answer(self, request: web.Request, api: type[OpenAI] | type[Anthropic]) -> web.StreamResponse:
        headers = {api.id_header: f"req_{next(self.serial)}"}
        tally, fault = None, None
        try:
            self.check_key(request, api)
            body = _json(await request.read())
            key = key_of(body)
            tally = self.counts.of(key)
            tally.requests += 1
            fault = draw_fault(self.faults, self.args.seed, key, tally.requests)
            if fault:
                tally.faults[fault] += 1
            call = self.check(api.read(body))
            await asyncio.sleep(self.latency + (self.args.slow if fault == "slow" else 0))
            text = json.dumps(api.answer(call, self.said(call, fault, key, tally.answered))).encode()
        except ApiError as error:
            if tally is not None and not fault:
                tally.faults[str(error.status)] += 1
            if fault == "429-retry-after":
                headers["Retry-After"] = f"{self.args.retry_after:g}"
            return web.json_response(api.error(error), status=error.status, headers=headers)
        if fault == "time-out":
            await asyncio.sleep(FOREVER)
        if fault in ("reset", "time-out"):
            return await _break_off(request, text, headers)
        if fault == "malformed":
            text = text[: len(text) // 2]
        else:
            tally.answered += 1
        return web.Response(body=text, content_type="application/json", headers=headers)

    def said(self, call: Call, fault: str | None, key: str, sample: int) -> Said:
        """What the model says; raises ApiError where the fault is an error of its own."""
        if fault in ("429", "429-retry-after"):
            raise ApiError(429, "too many requests; slow down")
        if fault == "500":
            raise ApiError(500, "the server had an error while processing the request")
        if fault == "refusal":  # two ways to decline: in words, or by a filter
            return Said("", "refusal" if int(key, 16) % 2 else "filter")
        if fault == "empty":
            return Said("")
        return apis.say(self.judge.reply(call.messages, call.model, call.structured, sample if call.free else 0), call)

    def check_key(self, request: web.Request, api: type[OpenAI] | type[Anthropic]) -> None:
        if self.args.api_key and api.key(request.headers) != self.args.api_key:
            raise ApiError(401, "the API key is missing or wrong")

    def check(self, call: Call) -> Call:
        if call.model not in MODELS and not self.args.any_model:
            raise ApiError(404, f"the model {call.model!r} does not exist; known: {', '.join(MODELS)}")
        return call

    async def models(self, request: web.Request) -> web.Response:
        rows = [{"id": name, "object": "model", "created": 0, "owned_by": "plumbline"} for name in MODELS]
        return web.json_response({"object": "list", "data": rows})

    async def set_faults(self, request: web.Request) -> web.Response:
        """New rates for the old ones, and a new latency where `latency` is given; answers with what holds now."""
        try:
            given = _json(await request.read())
            given = given if isinstance(given, dict) else {"": given}
            latency = float(given.pop("latency", self.latency))
            self.faults = parse_faults(given)
        except (ApiError, UserError, TypeError, ValueError) as error:
            return web.json_response({"error": str(error)}, status=400)
        self.latency = latency
        return web.json_response({"faults": self.faults, "latency": self.latency})

    async def show_counts(self, request: web.Request) -> web.Response:
        return web.json_response(self.counts.to_json())


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError as error:
        raise ApiError(400, f"the body is not JSON: {error}") from None


async def _break_off(request: web.Request, text: bytes, headers: dict[str, str]) -> web.StreamResponse:
    """Half of an answer, then a reset of the connection."""
    response = web.StreamResponse(headers={**headers, "Content-Length": str(len(text))})
    response.content_type = "application/json"
    await response.prepare(request)
    await response.write(text[: len(text) // 2])
    await asyncio.sleep(0.01)  # what lies in the socket is lost in a reset
    if request.transport is not None:
        connection = request.transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        request.transport.abort()
    return response


async def serve(args: ServerArguments) -> None:
    """Listen until SIGTERM, SIGINT or the end of the parent process."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    runner = web.AppRunner(
        OracleServer(args).application(), access_log=None, handler_cancellation=True, shutdown_timeout=0.5
    )
    await runner.setup()
    try:
        await web.TCPSite(runner, args.host, args.port).start()
    except OSError as error:
        await runner.cleanup()
        raise UserError(f"--port {args.port}: cannot listen on {args.host}: {error.strerror}") from error
    url = f"http://{args.host}:{runner.addresses[0][1]}/v1"
    try:
        _write_url(args.url_file, url)
        say(f"listening on {url}")
        while not stop.is_set() and _lives(args.parent_pid):
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(stop.wait(), timeout=1.0)
    finally:
        if args.url_file:
            Path(args.url_file).unlink(missing_ok=True)
        await runner.cleanup()


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)  # signal 0 asks and does nothing; process 0 is our own group
    except ProcessLookupError:
        return False
    except PermissionError:  # it is somebody else's
        return True
    return True


def _write_url(path: str, url: str) -> None:
    if not path:
        return
    partial = Path(f"{path}.{os.getpid()}.partial")
    try:
        partial.write_text(url + "\n", encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        raise UserError(f"--url_file {path}: cannot be written: {error.strerror}") from error


def main(argv: list[str] | None = None) -> None:
    (args,) = parse([ServerArguments], argv, description=__doc__)
    asyncio.run(serve(args))


if __name__ == "__main__":
    run_program(main)
