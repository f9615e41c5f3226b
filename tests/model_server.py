"""A server of chat models whose every answer a test decides: real HTTP, in a thread of this process."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import threading
import time
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web


@dataclass
class Asked:
    """One request as it came: when, with which headers, what."""

    at: float
    headers: dict[str, str]
    body: dict[str, Any]
    request: web.Request

    @property
    def content(self) -> str:
        return self.body["messages"][-1]["content"]


@dataclass
class ModelServer:
    url: str = ""
    asked: list[Asked] = field(default_factory=list)

    def times(self, content: str) -> list[float]:
        return [asked.at for asked in self.asked if asked.content == content]


def completion(text="Rating: 6", finish="stop", usage=(10, 3), **message):
    """The body of an answer of OpenAI's."""
    tokens = {"prompt_tokens": usage[0], "completion_tokens": usage[1]} if usage else None
    choice = {"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": text, **message}}
    return {"id": "c-1", "object": "chat.completion", "model": "m", "choices": [choice], "usage": tokens}


def ok(text="Rating: 6", headers=None, **more):
    return web.json_response(completion(text, **more), headers=headers)


def error(status, message="it went wrong", code=None, headers=None):
    return web.json_response({"error": {"message": message, "code": code}}, status=status, headers=headers)


@contextlib.contextmanager
def model_server(answer=lambda asked, number: ok()):
    """`answer(asked, number)` is called for the number-th request (from 1) with the same last message; it returns a
    response, or is a coroutine function that does."""
    server, ready, stop = ModelServer(), threading.Event(), []

    async def handle(request):
        asked = Asked(time.monotonic(), dict(request.headers), json.loads(await request.read()), request)
        server.asked.append(asked)
        given = answer(asked, len(server.times(asked.content)))
        return await given if inspect.isawaitable(given) else given

    async def serve():
        app = web.Application(client_max_size=2**28)
        app.router.add_post("/{path:.*}", handle)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        server.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
        end = asyncio.Event()
        stop.append((asyncio.get_running_loop(), end))
        ready.set()
        await end.wait()
        await runner.cleanup()

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    assert ready.wait(20)
    try:
        yield server
    finally:
        loop, end = stop[0]
        loop.call_soon_threadsafe(end.set)
        thread.join(20)
