"""The oracle's server for tests: in a thread of this process, or as the program itself; and real clients of it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import threading
import time
import urllib.request

import anthropic
import openai
from aiohttp import web
from toys import ROOT

from data_collect.oracle_server import ServerArguments

PROGRAM = ROOT / "data_collect/oracle_server.py"


@contextlib.contextmanager
def oracle(**arguments):
    """Yields its base URL. `arguments` are those of the program."""
    loop, ready, url = asyncio.new_event_loop(), threading.Event(), []

    async def start():
        runner = ServerArguments(**arguments).server().runner()
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url.append(f"http://127.0.0.1:{runner.addresses[0][1]}/v1")
        ready.set()
        return runner

    def run():
        asyncio.set_event_loop(loop)
        runner = loop.run_until_complete(start())
        loop.run_forever()
        loop.run_until_complete(runner.cleanup())

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert ready.wait(20)
    try:
        yield url[0]
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(20)


@contextlib.contextmanager
def oracle_program(folder, *flags, **options):
    """Yields (its process, its base URL): the program itself, on a free port, as a shell script would start it."""
    file = folder / "oracle.url"
    words = [sys.executable, PROGRAM, "--port", "0", "--url_file", file, *flags]
    process = subprocess.Popen([*map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)
    try:
        wait_for(lambda: file.exists() or process.poll() is not None)
        yield process, file.read_text().strip()
    finally:
        process.kill()
        process.communicate()


def wait_for(condition, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.02)


_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def control(url, what, given=None):
    """`counts`, or `faults` with new rates."""
    body = None if given is None else json.dumps(given).encode()
    with _direct.open(urllib.request.Request(url.removesuffix("/v1") + f"/control/{what}", body)) as answer:
        return json.load(answer)


def openai_client(url, key="any", timeout=10):
    http = openai.DefaultHttpxClient(trust_env=False)
    return openai.OpenAI(base_url=url, api_key=key, max_retries=0, timeout=timeout, http_client=http)


def anthropic_client(url, key="any", timeout=10, headers=None):
    http = anthropic.DefaultHttpxClient(trust_env=False)
    options = {"max_retries": 0, "timeout": timeout, "default_headers": headers}
    return anthropic.Anthropic(base_url=url.removesuffix("/v1"), api_key=key, http_client=http, **options)
