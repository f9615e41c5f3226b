"""The built-in world's judge as a server that speaks OpenAI's chat API and Anthropic's Messages API.

    python data_collect/oracle_server.py --port 8008

Real clients ask it for ratings, preferences, orders, critiques and refinements as they would ask a paid model, and
it can be told to err and to fail at known rates (docs/feedback.md). It prints its address and stops on SIGTERM.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from argparse import ArgumentParser
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

try:
    import utils.errors  # noqa: F401
except ImportError:
    ArgumentParser().exit(2, "error: no environment is active; at the project's root: source training/environment.sh\n")

from aiohttp import web

from utils.arguments import parse
from utils.arguments.options import expect, option, overwriting
from utils.errors import UserError
from utils.outputs import claim, remove
from utils.provenance import move
from utils.reporting import run_program, say
from utils.world.judge import MODELS, Judge
from utils.world.serving.faults import HEADERS, RateLimit, parse_faults
from utils.world.serving.server import ChatServer, Settings


@dataclass
class ServerArguments:
    port: int = option(8008, help="port to listen on; 0: any that is free", title="Server")
    host: str = option("127.0.0.1", help="address to listen on; the default is reached from this machine alone")
    url_file: str = option("", help="file that holds the address for as long as the server listens")
    overwrite: bool = overwriting()
    parent_pid: int = option(0, help="stop when the process of this number is gone; 0: only on a signal")
    api_key: str = option("", help="the key that clients must send; None: any will do")
    any_model: bool = option(False, help="answer for models of any other name, too")
    strict: bool = option(
        False, help="answer for OpenAI's and Anthropic's models; refuse what their own servers refuse, in their words"
    )
    noise_temperature: float = option(
        0.7,
        help="noise of comparisons; P(a over b) = sigmoid(gap in utility / temperature), 0 never errs",
        title="Errors of judgement",
    )
    noise: float = option(0.0, help="share of judgements that are wrong whatever the gap")
    position_bias: float = option(0.0, help="share of comparisons won by the answer shown first, whatever it is")
    latency: float = option(0.0, help="seconds that every answer takes", title="Delays and faults")
    faults: str = option("", help="faults and how often each occurs; as 429=0.1,reset=0.05 (docs/feedback.md)")
    slow: float = option(2.0, help="seconds that the fault `slow` adds")
    retry_after: float = option(1.0, help="seconds that the fault `429-retry-after` asks a client to wait")
    requests_per_minute: float = option(0.0, help="rate limit, beyond which requests get HTTP 429; 0: none")
    bucket: float = option(0.0, help="requests that the rate limit takes at once; 0: those of one second")
    rate_header: Literal[HEADERS] = option("retry-after", help="how a refusal tells when to come back")
    seed: int = option(1234, help="seed of the noise and of the faults", title="Server")

    def __post_init__(self) -> None:
        expect(self, "0 to 1", "noise", "position_bias")
        expect(self, "0 or more", "noise_temperature", "parent_pid")
        expect(self, "0 or more", "latency", "slow", "retry_after")
        expect(self, "0 or more", "requests_per_minute", "bucket")
        if not 0 <= self.port <= 65535:
            raise UserError(f"--port is {self.port}; expected 0 to 65535")
        if self.parent_pid and not _exists(self.parent_pid):
            raise UserError(f"--parent_pid {self.parent_pid}: there is no such process")
        try:
            parse_faults(self.faults)
        except UserError as error:
            raise UserError(f"--faults: {error}") from None

    def server(self) -> ChatServer:
        """Return a server with these settings."""
        judge = Judge(self.noise_temperature, self.noise, self.position_bias, self.seed)
        names = ("any_model", "strict", "api_key", "latency", "slow", "retry_after", "seed")
        limit = RateLimit(self.requests_per_minute, self.bucket, self.rate_header)
        given = {name: getattr(self, name) for name in names}
        settings = Settings(MODELS, faults=parse_faults(self.faults), rate_limit=limit, **given)
        return ChatServer(
            lambda call, sample: judge.reply(call.messages, call.model, call.structured, sample), settings
        )


async def serve(args: ServerArguments) -> None:
    """Listen until SIGTERM, SIGINT or the end of the parent process."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    has_parent = _watch(args.parent_pid)
    runner = args.server().runner()
    await runner.setup()
    try:
        url = await _listen(runner, args)
        with _address(args.url_file, url):
            say(f"listening on {url}")
            # The parent sends no signal when it is killed, so it is looked for once a second.
            while has_parent() and not stop.is_set():
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(stop.wait(), timeout=1.0)
    finally:
        await runner.cleanup()


async def _listen(runner: web.AppRunner, args: ServerArguments) -> str:
    """Start to listen, and return the address that clients use as base_url."""
    try:
        await web.TCPSite(runner, args.host, args.port).start()
    except OSError as error:
        raise UserError(f"--host {args.host} --port {args.port}: cannot listen there: {error.strerror}") from error
    host = args.host
    # An IPv6 address stands in brackets in front of a port.
    if ":" in host:
        host = f"[{host}]"
    (_, port, *_), *_ = runner.addresses
    return f"http://{host}:{port}/v1"


@contextlib.contextmanager
def _address(path: str, url: str) -> Iterator[None]:
    """Keep the address in a file while the server listens."""
    if not path:
        yield
        return
    # Written beside and renamed: a program that waits for the file reads all of it.
    file, partial = Path(path), Path(f"{path}.{os.getpid()}.partial")
    try:
        partial.write_text(url + "\n", encoding="utf-8")
        move(partial, file)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise UserError(f"--url_file {path}: cannot be written: {error.strerror}") from error
    try:
        yield
    finally:
        remove(file)


def _watch(process: int) -> Callable[[], bool]:
    """Return a function that tells whether the process still lives."""
    # A parent is gone as soon as another process takes its place, even while it is not reaped yet.
    if process == os.getppid():
        return lambda: os.getppid() == process
    return lambda: not process or _exists(process)


def _exists(process: int) -> bool:
    try:
        os.kill(process, 0)  # signal 0 asks and does nothing
    except ProcessLookupError:
        return False
    except PermissionError:  # it belongs to another user
        return True
    return True


def main(argv: list[str] | None = None) -> None:
    """Serve until a signal."""
    (args,) = parse([ServerArguments], argv, description=__doc__)
    claim("oracle_server.py", {"--url_file": args.url_file}, overwrite=args.overwrite)
    asyncio.run(serve(args))


if __name__ == "__main__":
    run_program(main)
